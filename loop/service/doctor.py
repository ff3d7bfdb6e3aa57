"""``turnwise doctor``: finds the usual misconfigurations and says how to mend each."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from collectors.conventions.registry import known_conventions
from collectors.journal import sealed_segments
from collectors.segments import created_at_us
from evaluators.registry import known_evaluators
from loop.domain.errors import TurnwiseError
from loop.ledger.chargeback import unpriced_reasons
from loop.service.assemble import Parts, assemble
from loop.service.intake_readings import RECENT_DAYS, recent_hours_us, recent_us, sums_of
from loop.service.judge_desk import why_off
from loop.service.judge_planning import judging_limits
from loop.service.settings import Settings

SHOWN_REASONS = 5
DRAIN_LAG_US = 60_000_000
CLOCK_SKEW_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Check:
    check: str
    ok: bool
    detail: str
    fix: str = ""

    def as_row(self) -> dict[str, Any]:
        return {"check": self.check, "ok": self.ok, "detail": self.detail, "fix": self.fix}


def examine(settings: Settings) -> Iterator[Check]:
    """Yields one check after another; a part that fails ends only its own check."""
    yield _check_data_dir(settings)
    yield _check_disk(settings)
    parts = assemble(settings)
    examinations: list[tuple[str, Callable[[Parts], Check]]] = [
        ("lake", _check_lake),
        ("control store", _check_control_store),
        ("clock", _check_clock),
        ("client switches", _check_client_switches),
        ("gateways", _check_gateways),
        ("drainer", _check_drainer),
        ("intake", _check_intake),
        ("conflicts", _check_conflicts),
        ("quarantine", _check_quarantine),
        ("prices", _check_prices),
        ("conventions", _check_conventions),
        ("evaluators", _check_evaluators),
        ("judge", _check_judge),
    ]
    for name, examination in examinations:
        try:
            yield examination(parts)
        except TurnwiseError as error:
            yield Check(name, False, f"{error.what} {error.why}".strip(), error.fix)


def _check_data_dir(settings: Settings) -> Check:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    writable = os.access(settings.data_dir, os.W_OK | os.X_OK)
    return Check(
        "data folder",
        writable,
        f"{settings.data_dir} is {'writable' if writable else 'not writable'}",
        "Give the service's user the folder, or name another by TURNWISE_DATA_DIR.",
    )


def _check_disk(settings: Settings) -> Check:
    free = shutil.disk_usage(settings.data_dir).free
    return Check(
        "disk",
        free > settings.min_free_bytes,
        f"{free / 1e9:.1f} GB free; collectors refuse below {settings.min_free_bytes / 1e9:.1f} GB",
        "Free some space, or put the data folder on a larger disk.",
    )


def _check_lake(parts: Parts) -> Check:
    versions = parts.lake.versions()
    return Check("lake", True, f"{parts.settings.lake_uri} answers: {len(versions)} tables", "")


def _check_control_store(parts: Parts) -> Check:
    records = parts.versions.verify_chain()
    return Check("control store", True, f"answers; {records} records in an unbroken hash chain")


def _check_clock(parts: Parts) -> Check:
    newest = parts.lake.query("SELECT max(started_at_us) AS at_us FROM turns")[0]["at_us"]
    ahead_us = (newest or 0) - time.time_ns() // 1000
    return Check(
        "clock",
        ahead_us < CLOCK_SKEW_US,
        "the newest turn lies "
        + ("in the past" if ahead_us <= 0 else f"{ahead_us / 3.6e9:.1f} h in the future"),
        "Set the clocks of the developers' machines and of this one (NTP).",
    )


def _check_judge(parts: Parts) -> Check:
    settings = parts.settings
    if off := why_off(settings):
        return Check("judge", True, f"off: {off}")
    judging_limits(settings)
    today = datetime.now(UTC).date().isoformat()
    price = parts.price_book.find(settings.judge_model, today)
    if price is None or "batch" not in dict(price.service_tiers):
        return Check(
            "judge",
            False,
            f"{settings.judge_model} has no price, for batches too: nothing can be judged",
            "Add its price (`turnwise prices set`), or set TURNWISE_JUDGE_MODEL.",
        )
    return Check(
        "judge",
        True,
        f"{settings.judge_model} judges {settings.judge_sample_rate:.1%} of sessions of "
        f"{', '.join(settings.judge_org_paths)} for at most ${settings.judge_budget_usd:g} a day",
    )


def _check_client_switches(parts: Parts) -> Check:
    rows = parts.lake.query(
        "SELECT count(*) AS prompts, count(*) FILTER (state = 'redacted') AS redacted "
        "FROM contents WHERE kind = 'prompt'"
    )
    prompts, redacted = rows[0]["prompts"], rows[0]["redacted"]
    return Check(
        "client switches",
        redacted * 2 <= prompts,
        f"{redacted} of {prompts} prompts are redacted by the client",
        "Set OTEL_LOG_USER_PROMPTS=1, OTEL_LOG_ASSISTANT_RESPONSES=1, OTEL_LOG_TOOL_DETAILS=1 and "
        "OTEL_LOG_TOOL_CONTENT=1 in the clients' managed settings, or most sessions stay unscored.",
    )


def _check_gateways(parts: Parts) -> Check:
    channel = parts.settings.channel
    serial = parts.versions.current_serial(channel)
    known = parts.versions.acknowledgements(channel)
    behind = [gateway.instance for gateway in known if not gateway.has_applied(serial)]
    return Check(
        "gateways",
        not behind,
        f"{len(known) - len(behind)} of {len(known)} gateways have applied serial {serial}"
        + (f"; behind: {', '.join(behind[:5])}" if behind else ""),
        "See that these gateways still poll GET /v1/gateway/policy.",
    )


def _check_conventions(_: Parts) -> Check:
    registry = known_conventions()
    names = sorted(convention.name for convention in registry.conventions)
    return Check(
        "conventions",
        bool(names) and not registry.problems,
        "; ".join([f"{len(names)} adapters: {', '.join(names)}", *registry.problems]),
        "Install turnwise again where adapters are missing; mend or remove a broken one's package.",
    )


def _check_evaluators(_: Parts) -> Check:
    registry = known_evaluators()
    names = [evaluator.name for evaluator in registry.evaluators]
    return Check(
        "evaluators",
        bool(names) and not registry.problems,
        "; ".join([f"{len(names)} evaluators: {', '.join(names)}", *registry.problems]),
        "Install turnwise again where evaluators are missing; mend or remove a broken package.",
    )


def _check_drainer(parts: Parts) -> Check:
    sealed = sealed_segments(parts.journal_dir)
    waiting = sum(path.stat().st_size for path in sealed if path.exists())
    age_us = time.time_ns() // 1000 - created_at_us(sealed[0]) if sealed else 0
    return Check(
        "drainer",
        age_us < DRAIN_LAG_US,
        f"{waiting / 1e6:.1f} MB of what was received wait for the lake"
        + (f", the oldest for {age_us / 1e6:.0f} s" if sealed else ""),
        "See that `turnwise serve` or `turnwise drain` runs on this folder, and what it logs.",
    )


def _check_intake(parts: Parts) -> Check:
    sums = sums_of(parts.intake_log.rows(since_us=recent_hours_us()))
    refused = sum(sums["bodies_refused"].values())
    return Check(
        "intake",
        sums["balanced"],
        f"{sums['received']:,} records in the last day: {sums['stored']:,} stored, "
        f"{sums['duplicates']:,} duplicates, {sums['conflicts']:,} conflicts, "
        f"{sum(sums['rejected'].values()):,} rejected; {refused:,} bodies refused",
        "What was received does not equal what became of it: please report this.",
    )


def _check_conflicts(parts: Parts) -> Check:
    found = parts.lake.query(
        "SELECT count(DISTINCT conflict) AS n FROM events_rows "
        "WHERE conflict IS NOT NULL AND received_at_us >= ?",
        [recent_us()],
    )
    count = found[0]["n"]
    return Check(
        "conflicts",
        count == 0,
        f"{count} records came in versions that disagree in the last {RECENT_DAYS} days",
        "`turnwise conflict list` shows them and which version rules.",
    )


def _check_quarantine(parts: Parts) -> Check:
    entries = parts.quarantine.entries()
    return Check(
        "quarantine",
        not entries,
        f"{len(entries)} entries are set aside" + (f": {entries[0].reason}" if entries else ""),
        "`turnwise quarantine list` shows them; replay or drop them.",
    )


def _check_prices(parts: Parts) -> Check:
    rows = unpriced_reasons(parts.lake)
    turns = sum(row["turns"] for row in rows)
    reasons = "; ".join(f"{row['turns']:,} {row['reason']}" for row in rows[:SHOWN_REASONS])
    return Check(
        "prices",
        not rows,
        f"price book {parts.price_book.version} is in force; {turns:,} turns are unpriced"
        + (f": {reasons}" if rows else ""),
        "Give the missing prices (`turnwise prices set` or `import`), then charge the days anew "
        "(`turnwise prices reprice`).",
    )
