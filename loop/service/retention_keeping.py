"""Retention: which sessions are past their class's age and not held, and their removal."""

from __future__ import annotations

import datetime
import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from collectors.content_modes import Treatment
from collectors.screened_json import screen_document
from loop.domain.errors import BadInput, Conflict, Refused
from loop.domain.retention import RetentionPolicy, SessionFacts
from loop.lake.expiry import Expired, ExpiredRows, expire_rows
from loop.lake.rows import day_of
from loop.ledger.charge_table import give_back_sums, keep_sums_of_erased
from loop.service.assemble import Parts
from loop.service.job_files import read_jobs, write_job
from loop.service.lake_keeping import forget_judgements, mark_runs
from loop.service.maintenance import maintenance

ACTIVE = ("events", "turns", "contents", "decisions")
"""The tables whose rows say when a session was last active."""
ORDER = (
    "contents", "profiles", "scores", "decisions", "turns", "events", "clusters", "estimates",
)  # fmt: skip
_NOBODY = "\x1f"  # no developer's name: the sessions alone say whose charges are summed up
_ATTEMPTS = 3


class RetentionKeeper:
    """The verbs of ``turnwise lake retention``. ``today`` is a UTC day, for tests."""

    def __init__(self, parts: Parts, today: str | None = None) -> None:
        self._parts = parts
        self._today = today or day_of(time.time_ns() // 1000)
        self._jobs = parts.settings.data_dir / "retention"
        self.records = parts.retention

    def show(self) -> dict[str, Any]:
        """The policy in force, as ``rows`` its changes, and whether the daily pass applies it."""
        rows = self.records.list()
        policy = self.records.policy()
        return {
            "classes": dict(policy.days),
            "rules": [asdict(rule) for rule in policy.rules],
            "is_written": bool(rows),
            "unfinished": [path.stem for path in read_jobs(self._jobs)],
            "rows": rows,
            "next": None,
        }

    def set(self, change: dict[str, Any], *, actor: str, reason: str) -> dict[str, Any]:
        self.records.append(change, actor=actor, reason=reason)
        return self.show()

    def apply(self, *, dry_run: bool = True) -> dict[str, Any]:
        """What goes by table and class (``rows``), and what is past its age but ``held``.

        Raises :class:`Refused` as long as nobody has written a policy, but for a dry run.
        """
        if dry_run:
            expired, held = self._expired(self.records.policy())
            return self._answer("", expired, held, self._remove(expired, "", dry_run=True))
        if not self.records.list():
            raise Refused(
                "No retention policy is written.",
                why="What the built-in classes would remove is gone for good.",
                fix="Write one first: `turnwise lake retention set --class default --days 1096`.",
            )
        with maintenance(self._parts):
            self._finish()
            expired, held = self._expired(self.records.policy())
            if not (expired.sessions or expired.texts or expired.unnamed_before):
                return self._answer("", expired, held, [], dry_run=False)
            job = {"retention_id": f"retention-{uuid.uuid4().hex[:12]}", **asdict(expired)}
            rows = self._run(job, write_job(self._jobs, str(job["retention_id"]), job))
            return self._answer(str(job["retention_id"]), expired, held, rows, dry_run=False)

    def _finish(self) -> None:
        """Ends what was cut off. Sessions that a hold has come to meanwhile stay as they are, and
        count once: what their turns are charged is taken off the sums that were kept of them."""
        for path in read_jobs(self._jobs):
            job = json.loads(path.read_text())
            while True:
                if job.get("giving_back"):
                    self._give_back(job, path)
                held = self._held({*job["sessions"], *job["texts"]})
                giving = sorted(set(job["sessions"]) & set(held))
                if not giving:
                    break
                # Written first, so that another hold after another crash is a step of its own.
                job |= {"giving_back": giving, "gave_back": job.get("gave_back", 0) + 1}
                write_job(self._jobs, path.stem, job)
            for session_id in held:
                job["texts"].pop(session_id, None)
            if self._parts.holds.list(in_force=True):
                job["unnamed_before"] = ""
            self._run(job, path)

    def _give_back(self, job: dict[str, Any], path: Path) -> None:
        parts, sessions = self._parts, job["giving_back"]
        give_back_sums(
            parts.lake, parts.charge_table, sessions, job["retention_id"], job["gave_back"]
        )
        for session_id in sessions:
            job["sessions"].pop(session_id, None)
        job["giving_back"] = []
        write_job(self._jobs, path.stem, job)

    def _run(self, job: dict[str, Any], path: Path) -> list[ExpiredRows]:
        """Every step may be done again."""
        parts, mark = self._parts, job["retention_id"]
        expired = Expired(**{field.name: job[field.name] for field in fields(Expired)})
        parts.work.note("charges: summed up")
        keep_sums_of_erased(parts.lake, parts.charge_table, _NOBODY, set(expired.sessions), mark)
        rows = self._remove(expired, mark, dry_run=False)
        if rows:
            mark_runs(parts, mark)
        forget_judgements(parts, expired.sessions)
        parts.lake.queries.forget_files()
        if job["sessions"]:  # a roll-up between a crash and now may have seen turns and sums
            parts.charge_table.roll_up(self._charged_days(expired.until_day))
            self._expire("charges", Expired(sessions=expired.sessions), mark, dry_run=False)
        path.unlink()
        return rows

    def _charged_days(self, until_day: str) -> list[str]:
        found = self._parts.lake.query(
            "SELECT DISTINCT day FROM charges WHERE day <= ? AND developer = 'erased'", [until_day]
        )
        return [row["day"] for row in found]

    def _remove(self, expired: Expired, mark: str, *, dry_run: bool) -> list[ExpiredRows]:
        return [
            rows for name in ORDER for rows in self._expire(name, expired, mark, dry_run=dry_run)
        ]

    def _expire(
        self, name: str, expired: Expired, mark: str, *, dry_run: bool
    ) -> list[ExpiredRows]:
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._expire_once(name, expired, mark, dry_run=dry_run)
            except Conflict:  # a compaction was at it; what is done is done
                continue
        return self._expire_once(name, expired, mark, dry_run=dry_run)

    def _expire_once(
        self, name: str, expired: Expired, mark: str, *, dry_run: bool
    ) -> list[ExpiredRows]:
        log = self._parts.lake.tables[name]
        nothing = Treatment("none")
        return expire_rows(
            log,
            expired,
            mark,
            strip=lambda attributes: screen_document(attributes, nothing),
            dry_run=dry_run,
            progress=self._parts.work.note,
        )

    # -- deciding ------------------------------------------------------------------------------

    def _expired(self, policy: RetentionPolicy) -> tuple[Expired, dict[str, str]]:
        """What goes by now, and what would but for a hold: hold ids by session."""
        self._parts.work.note("looking for what is past its age")
        bounds = {name: policy.first_kept_day(name, self._today) for name in policy.days}
        last_days = self._last_days(max(bounds.values()))
        facts = self._facts(last_days)
        sessions: dict[str, str] = {}
        texts: dict[str, str] = {}
        for session_id, last_day in last_days.items():
            known = facts.get(session_id, SessionFacts())
            whole = policy.class_of(known)
            content = policy.class_of(known, contents=True)
            if last_day < bounds[whole]:
                sessions[session_id] = whole
            elif last_day < bounds[content]:
                texts[session_id] = content
        held = self._held({*sessions, *texts})
        for session_id in held:
            sessions.pop(session_id, None)
            texts.pop(session_id, None)
        is_held = bool(self._parts.holds.list(in_force=True))
        unnamed_class = policy.class_of(SessionFacts())
        going = [last_days[session_id] for session_id in (*sessions, *texts)]
        expired = Expired(
            sessions,
            texts,
            unnamed_before="" if is_held else self._unnamed_before(bounds[unnamed_class]),
            until_day=max(going, default=""),
        )
        return expired, held

    def _unnamed_before(self, bound: str) -> str:
        """The bound, if any file may hold older rows."""
        tables = self._parts.lake.tables
        for name in ("clusters", "estimates", "events", "decisions"):
            if any(file.day < bound for file in tables[name].snapshot().files):
                return bound
        return ""

    def _last_days(self, bound: str) -> dict[str, str]:
        """The last day of each session that has no row on or after the bound."""
        lake = self._parts.lake
        old: set[str] = set()
        snapshots = {name: lake.tables[name].snapshot().files for name in ACTIVE}
        for name, files in snapshots.items():
            past = [file for file in files if file.day < bound]
            rows = lake.queries.run(
                f"SELECT DISTINCT session_id FROM {name}_rows",  # noqa: S608
                files={name: past},
            )
            old.update(rows["session_id"].to_pylist())
        old -= {"", None}
        last: dict[str, str] = {}
        for name, files in snapshots.items() if old else ():
            rows = lake.queries.run(
                f"SELECT session_id, max(day) AS day FROM {name}_rows GROUP BY ALL",  # noqa: S608
                files={name: files},
                sessions=old,
            )
            for row in rows.to_pylist():
                last[row["session_id"]] = max(row["day"], last.get(row["session_id"], ""))
        return {session_id: day for session_id, day in last.items() if day < bound}

    def _facts(self, sessions: Collection[str]) -> dict[str, SessionFacts]:
        if not sessions:
            return {}
        rows = self._parts.lake.queries.run(
            "SELECT DISTINCT session_id, developer, org_path, repository FROM turns",
            sessions=sessions,
        ).to_pylist()
        by_session: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            by_session[row["session_id"]].append(row)
        return {
            session_id: SessionFacts(
                frozenset(row["developer"] for row in found),
                frozenset(row["org_path"] for row in found),
                frozenset(row["repository"] for row in found),
            )
            for session_id, found in by_session.items()
        }

    def _held(self, sessions: Collection[str]) -> dict[str, str]:
        """The hold on each session that is held. One without turns is held by any hold on an
        organization path or a repository, for nothing says where it belongs."""
        held: dict[str, str] = {}
        holds = self._parts.holds.list(in_force=True)
        if not sessions or not holds:
            return held
        queries = self._parts.lake.queries
        columns = ("developer", "repository", "org_path")
        rows = queries.run(
            f"SELECT DISTINCT session_id, {', '.join(columns)} FROM turns_rows "  # noqa: S608
            "WHERE NOT removed",
            sessions=sessions,
        ).to_pylist()
        homeless = set(sessions) - {row["session_id"] for row in rows}
        for hold in holds:
            kind, value, hold_id = hold["kind"], hold["value"], hold["hold_id"]
            found = {value} & set(sessions) if kind == "session" else set()
            if kind == "developer":
                found |= {row["session_id"] for row in rows if row["developer"] == value}
                named = queries.run(
                    "SELECT DISTINCT session_id FROM events_rows "
                    "WHERE contains(resource, ?) OR contains(attributes, ?)",
                    [json.dumps(value, ensure_ascii=False)] * 2,
                    sessions=sessions,
                )
                found |= set(named["session_id"].to_pylist())
            if kind == "repository":
                found |= homeless | {r["session_id"] for r in rows if r["repository"] == value}
            if kind == "org":
                found |= homeless | {
                    row["session_id"]
                    for row in rows
                    if row["org_path"] == value or (row["org_path"] or "").startswith(f"{value}/")
                }
            for session_id in found:
                held.setdefault(session_id, hold_id)
        return held

    def _answer(
        self,
        retention_id: str,
        expired: Expired,
        held: dict[str, str],
        rows: list[ExpiredRows],
        *,
        dry_run: bool = True,
    ) -> dict[str, Any]:
        return {
            "retention_id": retention_id,
            "dry_run": dry_run,
            "sessions": len(expired.sessions),
            "sessions_without_texts": len(expired.texts),
            "held": [
                {"hold_id": hold_id, "sessions": count}
                for hold_id, count in sorted(Counter(held.values()).items())
            ],
            "rows": [asdict(row) for row in rows],
            "next": None,
        }


def is_due(parts: Parts, last_us: int) -> bool:
    """Whether the daily pass has something to do: a policy is written, and it is another day."""
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    jobs = parts.settings.data_dir / "retention"
    return bool(parts.retention.list()) and (day_of(last_us) < now or bool(read_jobs(jobs)))


def change_from(document: dict[str, Any]) -> dict[str, Any]:
    """The change that a request asks for. Raises :class:`BadInput` for one of unknown keys."""
    change = document.get("change")
    known = {"class", "days", "kind", "value", "contents_class", "end"}
    if not isinstance(change, dict) or not change or set(change) - known:
        raise BadInput(f'Send "change", an object of {", ".join(sorted(known))}.')
    return change
