"""Keeping the lake: status, compaction, verification, restoring, erasing, legal holds."""

from __future__ import annotations

import datetime
import json
import time
import uuid
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import String, func, select

from loop.control.store import metadata
from loop.domain.errors import BadInput, Conflict, NotFound, Refused
from loop.lake.erasure import ErasedRows, PersonalRows, erase_rows, sessions_of
from loop.lake.table_status import table_status
from loop.lake.verification import Problem, orphans, verify_contents, verify_table
from loop.ledger.charge_checks import days_that_differ
from loop.ledger.charge_table import keep_sums_of_erased
from loop.service.assemble import Parts
from loop.service.job_files import read_jobs, write_job
from loop.service.maintenance import maintenance

ERASED_ORDER = (
    "contents",
    "events",
    "scores",
    "profiles",
    "decisions",
    "clusters",
    "estimates",
    "turns",
    "charges",
    "daily_charges",
)


class LakeKeeper:
    """The verbs of ``turnwise lake``. Each returns what the API answers."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._progress = parts.work.note
        self.holds = parts.holds
        self.erasures = parts.erasures
        self._jobs = parts.settings.data_dir / "erasures"

    # -- looking -------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        lake = self._parts.lake
        rows = [table_status(log, lake.policy) for log in lake.tables.values()]
        return {
            "rows": [row for row in rows if row is not None],
            "next": None,
            "policy": asdict(lake.policy),
            "unfinished_erasures": [path.stem for path in read_jobs(self._jobs)],
        }

    def verify(self, tables: Collection[str] = ()) -> dict[str, Any]:
        """``rows`` are the problems; what lies around unnamed is told apart, it does no harm."""
        lake = self._parts.lake
        logs = {name: log for name, log in lake.tables.items() if not tables or name in tables}
        self._check_names(tables)
        problems: list[Problem] = []
        left_over: dict[str, list[str]] = {}
        for name, log in logs.items():
            self._progress(f"{name}: {len(log.snapshot().files)} files")
            problems += verify_table(log)
            if found := orphans(log):
                left_over[name] = found
        if not problems and not tables:
            problems += verify_contents(lake.tables, lake.queries)
            if self._parts.stage_log.read("charge").revision >= lake.max_revision():
                problems += [
                    Problem("charges", f"{day['day']}: {day['charges']}, but turns {day['turns']}")
                    for day in days_that_differ(lake)
                ]
        problems += [
            Problem("", f"erasure {path.stem} was cut off; `turnwise lake erase --resume` ends it")
            for path in read_jobs(self._jobs)
        ]
        problems += [
            Problem("", f"{path.stem} was cut off; `turnwise lake retention apply --yes` ends it")
            for path in read_jobs(self._parts.settings.data_dir / "retention")
        ]
        rows = [problem.as_row() for problem in problems]
        return {"rows": rows, "next": None, "ok": not rows, "orphans": left_over}

    # -- changing ------------------------------------------------------------------------------

    def compact(self, tables: Collection[str] = ()) -> dict[str, Any]:
        """Files saved by table. Safe beside a running server: of two, one gives way."""
        self._check_names(tables)
        saved: dict[str, int] = {}
        for name in self._parts.lake.tables:
            if not tables or name in tables:
                self._progress(f"compacting {name}")
                saved |= self._parts.lake.compact([name])
        return {"rows": [{"table": n, "files_saved": s} for n, s in saved.items()], "next": None}

    def restore(
        self,
        table: str = "",
        *,
        version: int | None = None,
        at: str | None = None,
        dry_run: bool = True,
    ) -> dict[str, Any]:
        """One table to a version or a time, or all of them to a time, as new commits.

        Raises :class:`NotFound` when the version's files are gone, and says whether an erasure
        took them: what was erased can't come back.
        """
        if (version is None) == (at is None) or (not table and at is None):
            raise BadInput(
                "Name a table and a version, or a time.", fix="--version N or --at TIME."
            )
        self._check_names([table] if table else [])
        lake = self._parts.lake
        before = lake.versions()
        if table and table not in before:
            raise NotFound(f"The table {table} has not been written yet.")
        targets: dict[str, int] = {}
        for name in [table] if table else list(before):
            wanted = version if version is not None else self._version_at(name, str(at))
            if wanted is not None and wanted != before[name]:
                targets[name] = wanted
        pinned = lake.at(targets)
        rows: list[dict[str, Any]] = []
        for name, wanted in targets.items():
            old, new = pinned.tables[name].snapshot(), lake.tables[name].snapshot()
            rows.append(
                {
                    "table": name,
                    "from_version": before[name],
                    "to_version": wanted,
                    "rows_now": sum(file.rows for file in new.files),
                    "rows_then": sum(file.rows for file in old.files),
                    "committed": None,
                }
            )
        if not dry_run:
            with maintenance(self._parts):
                for row in rows:
                    self._progress(f"restoring {row['table']}")
                    row["committed"] = lake.tables[row["table"]].restore(row["to_version"])
            lake.queries.forget_files()
            if {"turns", "charges", "daily_charges"} & targets.keys():
                days = {row["day"] for row in lake.query("SELECT DISTINCT day FROM turns")}
                days |= {row["day"] for row in lake.query("SELECT DISTINCT day FROM charges")}
                self._parts.charge_table.roll_up(days)
        return {"rows": rows, "next": None, "dry_run": dry_run}

    def _version_at(self, name: str, at: str) -> int | None:
        """The version that was the newest at a time; ``None`` before the table was made."""
        try:
            moment = datetime.datetime.fromisoformat(at)
        except ValueError as error:
            raise BadInput(f"{at!r} is no time.", fix="Write 2026-11-24T18:00:00Z.") from error
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        table = self._parts.lake.tables[name].open_table()
        if table is None:
            return None
        until_ms = moment.timestamp() * 1000
        versions = [c["version"] for c in table.history() if c["timestamp"] <= until_ms]
        return max(versions, default=None)

    # -- erasing -------------------------------------------------------------------------------

    def erase(
        self, developer: str, *, asked_by: str, reason: str, dry_run: bool = True
    ) -> dict[str, Any]:
        """Erases one developer: see docs/lake.md for what goes, and what stays for finance.

        Raises :class:`Refused` while a legal hold covers any of it.
        """
        if not developer or developer in ("unattributed", "erased"):
            raise BadInput("Name the developer to erase.")
        if developer.lower() in f"{reason} {asked_by}".lower():
            raise BadInput("The reason and the name of who asks are kept: don't name the person.")
        if dry_run:
            sessions = sessions_of(self._parts.lake.tables, developer)
            self._refuse_held(developer, sessions)
            found = self._erase_tables(PersonalRows(developer, sessions), "", dry_run=True)
            return self._answer("", developer, sessions, found, dry_run=True)
        with maintenance(self._parts):
            sessions = sessions_of(self._parts.lake.tables, developer)
            self._refuse_held(developer, sessions)
            job = {
                "erasure_id": f"erasure-{uuid.uuid4().hex[:12]}",
                "developer": developer,
                "sessions": sorted(sessions),
                "asked_by": asked_by,
                "reason": reason,
                "at_us": time.time_ns() // 1000,
            }
            write_job(self._jobs, str(job["erasure_id"]), job)
            return self._run_job(job)

    def resume(self, *, dry_run: bool = True) -> dict[str, Any]:
        """Ends the erasures that were cut off, or says which there are."""
        if dry_run:
            rows = [{"erasure_id": path.stem} for path in read_jobs(self._jobs)]
            return {"rows": rows, "next": None, "dry_run": True}
        rows = []
        for path in read_jobs(self._jobs):
            job = json.loads(path.read_text())
            with maintenance(self._parts):
                rows.append(self._run_job(job))
        return {"rows": rows, "next": None, "dry_run": False}

    def _run_job(self, job: dict[str, Any]) -> dict[str, Any]:
        """Every step may be done again: a job that was cut off starts over."""
        parts, erasure_id, developer = self._parts, job["erasure_id"], job["developer"]
        sessions = set(job["sessions"]) | sessions_of(parts.lake.tables, developer)
        self.erasures.begin(
            erasure_id, asked_by=job["asked_by"], reason=job["reason"], at_us=job["at_us"]
        )
        self._progress("charges: kept without the person")
        keep_sums_of_erased(parts.lake, parts.charge_table, developer, sessions, erasure_id)
        person = PersonalRows(developer, sessions)
        found = self._erase_tables(person, erasure_id, dry_run=False)
        parts.lake.queries.forget_files()
        files = self._erase_files(person)
        runs = mark_runs(self._parts, erasure_id)
        forget_judgements(self._parts, sessions)
        counts = {
            row.table: {k: v for k, v in asdict(row).items() if k != "table"} for row in found
        }
        self.erasures.finish(erasure_id, counts | {"sessions": len(sessions), "files": files})
        answer = self._answer(erasure_id, developer, sessions, found, dry_run=False)
        (self._jobs / f"{erasure_id}.json").unlink(missing_ok=True)
        return answer | {"files_deleted": files, "runs_marked": runs}

    def _erase_tables(
        self, person: PersonalRows, erasure_id: str, *, dry_run: bool
    ) -> list[ErasedRows]:
        tables = self._parts.lake.tables
        found = []
        for name in ERASED_ORDER:
            for attempt in range(3):
                try:
                    found.append(
                        erase_rows(
                            tables[name],
                            person,
                            erasure_id,
                            dry_run=dry_run,
                            progress=self._progress,
                        )
                    )
                    break
                except Conflict:  # a compaction was at it; what is done is done
                    if attempt == 2:
                        raise
        return found

    def _erase_files(self, person: PersonalRows) -> int:
        """Quarantined records and archived segments that name the person; returns how many."""
        words = [word.encode() for word in {person.developer, *person.sessions}]
        deleted = 0
        for folder in (self._parts.quarantine.directory, self._parts.settings.data_dir / "archive"):
            for path in sorted(folder.glob("*")) if folder.exists() else ():
                if not path.is_file():
                    continue
                content = path.read_bytes()  # bodies are kept inflated
                if any(word in content for word in words):
                    for each in folder.glob(f"{path.stem}.*"):
                        each.unlink(missing_ok=True)
                    deleted += 1
        return deleted

    def _refuse_held(self, developer: str, sessions: set[str]) -> None:
        holds = self.holds.list(in_force=True)
        held = [hold for hold in holds if self._covers(hold, developer, sessions)]
        if held:
            first = held[0]
            raise Refused(
                "This can't be erased: a legal hold covers it.",
                why=f"{first['hold_id']} on a {first['kind']}: {first['reason']}"
                + (f" (and {len(held) - 1} more)" if len(held) > 1 else ""),
                fix="Release it first, if that is lawful: `turnwise lake hold release`.",
            )

    def _covers(self, hold: dict[str, Any], developer: str, sessions: set[str]) -> bool:
        value = hold["value"]
        if hold["kind"] == "developer":
            return bool(value == developer)
        if hold["kind"] == "session":
            return value in sessions
        condition, parameters = "repository = ?", [value]
        if hold["kind"] == "org":
            condition, parameters = (
                "(org_path = ? OR starts_with(org_path, ?))",
                [value, f"{value}/"],
            )
        rows = self._parts.lake.query(
            f"SELECT count(*) AS n FROM turns_rows WHERE {condition} "  # noqa: S608
            "AND (developer = ? OR session_id IN (SELECT unnest(?)))",
            [*parameters, developer, sorted(sessions)],
        )
        return bool(rows[0]["n"])

    def _answer(
        self,
        erasure_id: str,
        developer: str,
        sessions: Collection[str],
        found: list[ErasedRows],
        *,
        dry_run: bool,
    ) -> dict[str, Any]:
        return {
            "erasure_id": erasure_id,
            "dry_run": dry_run,
            "sessions": len(sessions),
            "rows": [asdict(row) for row in found],
            "next": None,
            "still_named_in": self._named_in_control_store(developer),
        }

    def _named_in_control_store(self, developer: str) -> list[str]:
        """Settings that name the person (budgets, rules, credentials) are not erased with the
        data: who set them removes them."""
        found = []
        with self._parts.engine.connect() as connection:
            for table in metadata.sorted_tables:
                for column in table.columns:
                    if not isinstance(column.type, String):
                        continue
                    condition = column.contains(developer, autoescape=True)
                    if connection.scalar(select(func.count()).select_from(table).where(condition)):
                        found.append(f"{table.name}.{column.name}")
        return found

    def _check_names(self, tables: Collection[str]) -> None:
        if unknown := [name for name in tables if name not in self._parts.lake.tables]:
            raise NotFound(
                f"There is no table {unknown[0]!r}.",
                fix=f"One of {', '.join(self._parts.lake.tables)}.",
            )


def forget_judgements(parts: Parts, session_ids: Collection[str]) -> None:
    """Takes sessions out of what judges and people said of them."""
    parts.judge_calls.forget(session_ids)
    parts.labels.forget(session_ids)


def mark_runs(parts: Parts, erasure_id: str) -> int:
    """Runs whose versions can't be read any more get the erasure's id in their manifest."""
    marked = 0
    for run in parts.runs.list(limit=1_000_000):
        pinned = parts.lake.at(run.table_versions)
        try:
            for name in run.table_versions:
                if name in pinned.tables:
                    pinned.tables[name].snapshot()
        except NotFound:
            parts.runs.add_tombstone(run.run_id, erasure_id)
            marked += 1
    return marked
