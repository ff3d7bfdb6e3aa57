"""The read model: what the API, the command line and the pages show, as plain JSON-able dicts."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Any

from loop.access.callers import current_caller
from loop.access.verbs import Verb
from loop.access.view import ALL_ROWS, View
from loop.domain.errors import NotFound
from loop.ledger.chargeback import spend, unpriced_reasons
from loop.ledger.suspected_doubles import suspected_doubles
from loop.service import (
    cluster_readings,
    policy_readings,
    rollout_readings,
    run_readings,
    session_readings,
)
from loop.service.assemble import Parts
from loop.service.judge_desk import JudgeDesk
from loop.service.logged_turns import reach_of
from optimizers.classic import classic_policy
from routing_policies.transitions import PolicyVersion

STAGES = {
    "collect": ("Collect", "/sessions"),
    "charge": ("Charge", "/spend"),
    "evaluate": ("Evaluate", "/sessions?sort=quality"),
    "cluster": ("Cluster", "/clusters"),
    "optimize": ("Optimize", "/runs"),
    "rollout": ("Roll out", "/rollouts"),
}
LAST_TRANSITIONS = 20
MAX_VERSION = 2**31 - 1


class Readings:
    """Reads from the assembled parts; writes nothing.

    ``sees`` says what the caller of the moment may see: other rows are neither shown nor counted.
    """

    def __init__(self, parts: Parts, sees: Callable[[], View] = lambda: ALL_ROWS) -> None:
        self._parts = parts
        self._sees = sees

    # -- the loop as a whole -------------------------------------------------------------------

    def readiness(self) -> dict[str, Any]:
        """Raises :class:`Unavailable` while a store does not answer."""
        self._parts.lake.versions()
        self._parts.versions.current_serial(self._parts.settings.channel)
        return {"ready": True}

    def settings(self) -> dict[str, Any]:
        return {"rows": self._parts.settings.rows(), "next": None}

    def overview(self) -> dict[str, Any]:
        """For a part of the organization, its own spend and the policy that routes it."""
        parts = self._parts
        sees_all = self._sees().sees_all
        transitions = parts.versions.transitions()[-LAST_TRANSITIONS:]
        current = parts.versions.current_publication(parts.settings.channel)
        publication = current.publication if current else None
        return {
            "as_of_us": time.time_ns() // 1000,
            "stages": [self._stage(name, *shown) for name, shown in STAGES.items() if sees_all],
            "spend": self._spend_of_month(),
            "waiting": self._waiting() if sees_all else [],
            "transitions": [
                policy_readings.transition_row(move) for move in reversed(transitions) if sees_all
            ],
            "policy": publication
            and {
                "serial": publication.serial,
                "rollout_id": publication.rollout_id,
                "arms": [
                    {"name": arm.name, "weight": arm.weight, "policy_version": arm.policy_version}
                    for arm in publication.arms
                ],
            },
        }

    def _stage(self, name: str, label: str, url: str) -> dict[str, Any]:
        progress = self._parts.stage_log.read(name)
        return {
            "name": name,
            "label": label,
            "url": url,
            "last_at_us": progress.at_us or None,
            "count": progress.done,
            "note": progress.note,
        }

    def _spend_of_month(self) -> dict[str, Any]:
        month = datetime.datetime.now(datetime.UTC).strftime("%Y-%m")
        rows = [
            row
            for row in spend(
                self._parts.lake,
                ["day"],
                since=f"{month}-01",
                only=self._sees().condition(),
            )
            if row["day"].startswith(month)
        ]
        return {
            "month": month,
            "turns": sum(row["turns"] for row in rows),
            "cost_microusd": sum(row["cost_microusd"] or 0 for row in rows),
            "unpriced_turns": sum(row["unpriced_turns"] for row in rows),
        }

    def _waiting(self) -> list[dict[str, str]]:
        rows = [policy_readings.version_row(row) for row in self._parts.versions.list_versions()]
        explored = {
            arm.policy_version
            for record in self._parts.versions.publications(self._parts.settings.channel)
            for arm in record.publication.arms
        }
        asked = {
            "in_review": "Version {version} ({name}) waits for a review",
            "approved": "Version {version} ({name}) is approved and not yet published",
            "gate_inconclusive": "Version {version} ({name}): the gate could not tell",
            "paused": "Version {version} ({name}): its canary is paused",
        }
        return [
            {"what": asked[row["state"]].format(**row), "url": f"/policies/{row['version']}"}
            for row in rows
            if row["state"] in asked
            and not (row["state"] == "approved" and row["version"] in explored)
        ]

    # -- sessions and money --------------------------------------------------------------------

    def spend(
        self,
        by: str,
        since: str | None = None,
        until: str | None = None,
        level: int | None = None,
        charge_version: int | None = None,
    ) -> dict[str, Any]:
        """Spend by groups, read from the rollup where that is current; ``unpriced`` says why
        turns have no cost, where some have none."""
        parts = self._parts
        groupings = [name.strip() for name in by.split(",") if name.strip()]
        rows = spend(
            parts.lake,
            groupings,
            since=since,
            until=until,
            level=level,
            from_rollup=parts.is_rolled_up(since or "", until or "9999-12-31"),
            charge_version=charge_version,
            repricings=parts.charge_versions.list() if charge_version is not None else (),
            only=self._sees().condition(),
        )
        answer: dict[str, Any] = {"rows": rows, "next": None}
        if any(row["unpriced_turns"] for row in rows):
            answer["unpriced"] = unpriced_reasons(
                parts.lake, since, until, only=self._sees().condition()
            )
        return answer

    def suspected_doubles(
        self, since: str | None = None, until: str | None = None
    ) -> dict[str, Any]:
        """Turns that are probably charged a second time, and what they come to together."""
        rows = suspected_doubles(self._parts.lake, since, until, only=self._sees().condition())
        cost = sum(row["cost_microusd"] or 0 for row in rows)
        return {"rows": rows, "cost_microusd": cost, "next": None}

    def list_sessions(
        self,
        limit: int = 50,
        cursor: str | None = None,
        sort: str = "started",
        disagreeing: bool = False,
        cluster: str | None = None,
        **filters: str | None,
    ) -> dict[str, Any]:
        """``filters``: developer, repository, model, org. ``cluster``: only the sessions of that
        cluster. ``disagreeing``: only the sessions whose logs, metrics and spans tell different
        sums."""
        members = None
        if cluster is not None:
            found = cluster_readings.find_cluster(self._parts.lake, cluster, self._sees())
            members = found.session_ids
        read = session_readings.list_disagreeing if disagreeing else session_readings.list_sessions
        return read(
            self._parts.lake,
            limit=limit,
            cursor=cursor,
            sort=sort,
            filters=filters,
            members=members,
            view=self._sees(),
        )

    def show_session(self, session_id: str, content: bool = False) -> dict[str, Any]:
        """With ``content`` the caller needs the verb for texts."""
        if content:
            current_caller.get().require(Verb.CONTENT)
        return session_readings.show_session(
            self._parts.lake,
            session_id,
            content=content,
            view=self._sees(),
            labels=self._parts.labels.current(session_id=session_id),
        )

    def show_judge(self) -> dict[str, Any]:
        """Whether there is a judge, what it spent today, and how many labels there are."""
        return JudgeDesk(self._parts).show()

    def show_calibration(self) -> dict[str, Any]:
        """How each judge that has judged stands."""
        return JudgeDesk(self._parts).calibration()

    def list_clusters(self) -> dict[str, Any]:
        """Clusters are made over all sessions: a part of the organization sees those in which
        nothing but its own sessions lies."""
        return cluster_readings.list_clusters(self._parts.lake, self._sees())

    def show_cluster(self, cluster_id: str) -> dict[str, Any]:
        """Raises :class:`NotFound`, also for one that holds sessions of others."""
        return cluster_readings.show_cluster(self._parts.lake, cluster_id, self._sees())

    # -- runs and policies ---------------------------------------------------------------------

    def reach_of_classic(self) -> dict[str, Any]:
        """How much each rule of the classic policy would match, under each measure."""
        rows, words = reach_of(self._parts, classic_policy(), self._sees())
        return {"rows": rows, "next": None, "words": words}

    def list_runs(self) -> dict[str, Any]:
        return run_readings.list_runs(self._parts, self._sees())

    def show_run(self, run_id: str) -> dict[str, Any]:
        return run_readings.show_run(self._parts, run_id, self._sees())

    def list_policies(self) -> dict[str, Any]:
        """Those that may route what the caller sees."""
        versions = self._parts.versions.list_versions()
        rows = [
            policy_readings.version_row(version)
            for version in reversed(versions)
            if policy_readings.concerns(version.policy, self._sees())
        ]
        return {"rows": rows, "next": None}

    def show_policy(self, version: int) -> dict[str, Any]:
        """For a part of the organization without the moves, whose evidence is of all."""
        found = self._policy(version)
        transitions = self._parts.versions.transitions(version) if self._sees().sees_all else []
        reach, reach_words = reach_of(self._parts, found.policy, self._sees())
        return {
            **policy_readings.version_row(found),
            "document": found.policy.to_document(),
            "transitions": [policy_readings.transition_row(move) for move in transitions],
            "gate": policy_readings.gate_of(transitions),
            "reach": reach,
            "reach_words": reach_words,
        }

    def list_transitions(self) -> dict[str, Any]:
        """Every move as it is recorded, in the order of the hash chain."""
        moves = self._parts.versions.transitions()
        rows = [{**move.to_document(), "hash": move.hash} for move in moves]
        return {"rows": rows, "next": None}

    def _policy(self, version: int) -> PolicyVersion:
        """Raises :class:`NotFound`, also for one that is no concern of the caller's."""
        found = self._parts.versions.get(known_number(version))
        if not policy_readings.concerns(found.policy, self._sees()):
            raise NotFound(
                f"There is no policy version {version}.", fix="`turnwise policy list` shows all."
            )
        return found

    def list_rollouts(self) -> dict[str, Any]:
        return rollout_readings.list_rollouts(self._parts, self._sees())

    def show_rollout(self, rollout_id: str) -> dict[str, Any]:
        return rollout_readings.show_rollout(self._parts, rollout_id, self._sees())

    def diff_policies(self, before: int, after: int) -> dict[str, Any]:
        old, new = self._policy(before).policy, self._policy(after).policy
        words = policy_readings.diff_words(old, new)
        return {
            "from": before,
            "to": after,
            "words": words,
            "documents": {"from": old.to_document(), "to": new.to_document()},
        }


def known_number(version: int) -> int:
    """The version, if it can be one. Raises :class:`NotFound` for what fits no column."""
    if version > MAX_VERSION:
        raise NotFound("There is no such policy version.", fix="`turnwise policy list` shows all.")
    return version
