"""The scheduled stages of ``turnwise serve``, each a short function that says if it found work."""

from __future__ import annotations

import time

from loop.ledger.current_spend import changed_days
from loop.service import evaluation_stage, repricing_stage, rollout_stage
from loop.service.assemble import Parts
from loop.service.attribution_stage import attribute_changes
from loop.service.maintenance import writing_allowed
from loop.service.retention_keeping import RetentionKeeper, is_due
from loop.service.schedule import RepeatedTask

ATTRIBUTION_INTERVAL_SECONDS = 2.0
CHARGE_INTERVAL_SECONDS = 60.0
CLUSTER_INTERVAL_SECONDS = 300.0
RENEWAL_INTERVAL_SECONDS = 60.0
COMPACTION_INTERVAL_SECONDS = 600.0
RESUME_INTERVAL_SECONDS = 15.0
RETENTION_INTERVAL_SECONDS = 60.0  # between two looks whether a day has passed
COMPACTED_TABLES = ("scores", "profiles", "clusters", "estimates", "charges", "daily_charges")
"""The tables that these stages write; the drainer compacts its own."""


def scheduled_tasks(parts: Parts) -> list[RepeatedTask]:
    """The tasks in the order of the loop; none is started."""
    settings = parts.settings
    return [
        RepeatedTask("evaluate", lambda: evaluate(parts), settings.evaluate_interval_seconds),
        RepeatedTask("judge", lambda: judge(parts), settings.judge_interval_seconds),
        RepeatedTask("attribute", lambda: attribute(parts), ATTRIBUTION_INTERVAL_SECONDS),
        RepeatedTask("charge", lambda: charge(parts), CHARGE_INTERVAL_SECONDS),
        RepeatedTask("cluster", lambda: cluster(parts), CLUSTER_INTERVAL_SECONDS),
        RepeatedTask(
            "rollout", lambda: rollout_stage.tick(parts), settings.rollout_interval_seconds
        ),
        RepeatedTask("budget", parts.budget_keeper.tick, settings.budget_interval_seconds),
        RepeatedTask("renew", lambda: rollout_stage.renew(parts), RENEWAL_INTERVAL_SECONDS),
        RepeatedTask("search", lambda: resume(parts), RESUME_INTERVAL_SECONDS),
        RepeatedTask("retention", lambda: retain(parts), RETENTION_INTERVAL_SECONDS),
        RepeatedTask("compact", lambda: compact(parts), COMPACTION_INTERVAL_SECONDS),
    ]


def resume(parts: Parts) -> bool:
    """Goes on with a search whose process is gone."""
    if not parts.runs.is_any_silent(time.time_ns() // 1000):
        return False
    # Imported here: Optuna takes longer to load than the rest, and most processes never search.
    from loop.service.optimization_stage import resume_runs

    return resume_runs(parts)


def evaluate(parts: Parts) -> bool:
    return evaluation_stage.evaluate(parts).sessions > 0


def attribute(parts: Parts) -> bool:
    with writing_allowed(parts.settings.data_dir) as allowed:
        return allowed and attribute_changes(parts)


def judge(parts: Parts) -> bool:
    """Where there is a key and a part of the organization consents."""
    if not parts.settings.anthropic_api_key or not parts.settings.judge_org_paths:
        return False
    from loop.service import judge_stage  # the API's library takes a second to load

    return judge_stage.tick(parts)


def charge(parts: Parts) -> bool:
    """Rolls up the charges of the days on which turns changed since the last time."""
    repricing_stage.finish_pending(parts)
    revision = parts.lake.max_revision()
    done = parts.stage_log.read("charge")
    if revision <= done.revision:
        return False
    days = changed_days(parts.lake, done.revision)
    rows = parts.charge_table.roll_up(days)
    parts.stage_log.record(
        "charge",
        revision=revision,
        at_us=time.time_ns() // 1000,
        done=rows,
        note=f"{len(days)} days rolled up in the last pass",
    )
    return False


def cluster(parts: Parts) -> bool:
    """Clusters anew when sessions were scored since the last time."""
    scored = parts.stage_log.read("evaluate")
    clustered = parts.stage_log.read("cluster")
    if scored.revision > clustered.revision:
        from loop.service import clustering_stage  # scikit-learn takes seconds to load

        with writing_allowed(parts.settings.data_dir) as allowed:
            if allowed:
                clustering_stage.cluster_low_scoring(parts.lake, parts.stage_log)
        if parts.settings.cluster_namer:
            from loop.service.cluster_naming import name_latest_clusters

            name_latest_clusters(parts)
    return False


def retain(parts: Parts) -> bool:
    """Once a day, if a policy is written, removes what is past its age."""
    if not is_due(parts, parts.stage_log.read("retention").at_us):
        return False
    with parts.work.running("retention"):
        answer = RetentionKeeper(parts).apply(dry_run=False)
    parts.stage_log.record(
        "retention",
        revision=0,
        at_us=time.time_ns() // 1000,
        done=sum(row["rows"] for row in answer["rows"]),
        note=f"{answer['sessions']} sessions in the last pass",
    )
    return False


def compact(parts: Parts) -> bool:
    """Joins the small files of the tables that the scheduled stages write."""
    parts.lake.compact(COMPACTED_TABLES)
    return False
