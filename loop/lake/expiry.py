"""Rows past their age go for good, from all versions of a table: as in erasure, files are written
anew without them, and files of old versions that hold any are deleted.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from loop.lake.data_files import DataFile
from loop.lake.delta_log import DeltaLog, store_errors
from loop.lake.erasure import Progress, read_parts, to_stored_batches
from loop.lake.event_table import write_json
from loop.lake.pinned_log import ERASED, list_files

Strip = Callable[[Any], Any]
"""Takes an event's attributes and returns them without texts."""
UNNAMED = ("clusters", "estimates")
BY_OWN_DAY = (*UNNAMED, "events", "decisions")
"""The tables with rows that belong to no session."""
WRITTEN_AFTER = ("scores", "profiles")
"""The tables whose rows may lie under a later day than any of the session's own."""
OF_TEXTS = ("contents", "profiles")
"""The tables whose rows hold texts, or words of texts."""


@dataclass(frozen=True, slots=True)
class Expired:
    """What goes. ``sessions`` go whole, of ``texts`` only the contents and the texts in events;
    both map session ids to the class that decided. Rows that belong to no session go by their own
    day: those before ``unnamed_before`` (empty: none). Nothing but scores and profiles lies in live
    files of later days than ``until_day``."""

    sessions: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    unnamed_before: str = ""
    until_day: str = ""


@dataclass(slots=True)
class ExpiredRows:
    """What went, or would, from one table for one class: ``bytes`` are the file's share."""

    table: str
    class_name: str
    rows: int = 0
    stripped: int = 0
    bytes: int = 0
    first_day: str = ""
    last_day: str = ""

    def add(self, day: str, rows: int, stripped: int, size: float) -> None:
        self.rows += rows
        self.stripped += stripped
        self.bytes += round(size)
        self.first_day = min(filter(None, (self.first_day, day)))
        self.last_day = max(self.last_day, day)


def expire_rows(
    log: DeltaLog,
    expired: Expired,
    mark: str,
    *,
    strip: Strip,
    dry_run: bool,
    progress: Progress = lambda _: None,
) -> list[ExpiredRows]:
    """Removes the rows from one table. Running it again finishes what was cut off.

    Raises :class:`Conflict` when another process rewrites the table meanwhile.
    """
    found: dict[str, ExpiredRows] = {}
    name = log.schema.name
    with log.write_lock:
        live = {file.path: file for file in log.snapshot().files}
        infos = list_files(log)
        for place, info in enumerate(infos):
            file, day = live.get(info.path), info.path.split("/", 1)[0].removeprefix("day=")
            is_later = day > max(expired.until_day, expired.unnamed_before)
            if file is not None and is_later and name not in WRITTEN_AFTER:
                continue
            progress(f"{name}: file {place + 1} of {len(infos)}")
            rows = _Rows(name, day, expired, strip)
            if not _count(log, info, rows, found if file is not None else {}):
                continue
            if dry_run:
                continue
            if file is not None:
                log.rewrite(
                    [file],
                    [(file.day, _kept(log, file, rows), file.is_settled)],
                    note="retention",
                    metadata={ERASED: mark},
                )
            with store_errors(name):
                log.filesystem().delete_file(info.path)
    return list(found.values())


class _Rows:
    """Which rows of a file go, and which lose their texts."""

    def __init__(self, table: str, day: str, expired: Expired, strip: Strip) -> None:
        self.day = day
        self._strip = strip
        self._is_unnamed = table in UNNAMED
        going = dict(expired.sessions)
        if table in OF_TEXTS:
            going = {**expired.texts, **going}
        if table in BY_OWN_DAY and day < expired.unnamed_before:
            going[""] = "default"
        self.columns = {"session_id"} if not self._is_unnamed else {"day"}
        self._going = pa.array(list(going), pa.string())
        self._classes = list(going.values())
        self._goes_whole = self._is_unnamed and "" in going
        texts = expired.texts if table == "events" else {}
        self._texts = pa.array(list(texts), pa.string())
        self._text_classes = list(texts.values())
        if texts:
            self.columns |= {"attributes"}

    def sort(self, part: pa.Table) -> tuple[Any, dict[str, int], dict[int, str], dict[str, int]]:
        """A mask of what stays, how many go by class, new attributes by row, how many by class."""
        if self._is_unnamed:
            gone = {"default": part.num_rows} if self._goes_whole else {}
            return pa.array([not self._goes_whole] * part.num_rows, pa.bool_()), gone, {}, {}
        sessions = part["session_id"].cast(pa.string())
        places = pc.index_in(sessions, self._going)
        counts: dict[str, int] = defaultdict(int)
        for each in places.drop_null().value_counts():
            counts[self._classes[each["values"].as_py()]] += each["counts"].as_py()
        changed: dict[int, str] = {}
        stripped: dict[str, int] = defaultdict(int)
        if len(self._texts):
            where = pc.index_in(sessions, self._texts).to_pylist()
            for row, place in enumerate(where):
                if place is None:
                    continue
                before = part["attributes"][row].as_py()
                after = write_json(self._strip(json.loads(before)))
                if after != before:
                    changed[row] = after
                    stripped[self._text_classes[place]] += 1
        return places.is_null(), counts, changed, stripped


def _count(log: DeltaLog, info: pafs.FileInfo, rows: _Rows, found: dict[str, ExpiredRows]) -> bool:
    gone: dict[str, int] = defaultdict(int)
    stripped: dict[str, int] = defaultdict(int)
    total = 0
    for part in read_parts(log, info.path, None if "day" in rows.columns else rows.columns):
        total += part.num_rows
        _, some, _, more = rows.sort(part)
        for name, count in some.items():
            gone[name] += count
        for name, count in more.items():
            stripped[name] += count
    for name in {*gone, *stripped}:
        entry = found.setdefault(name, ExpiredRows(log.schema.name, name))
        entry.add(rows.day, gone[name], stripped[name], info.size * gone[name] / total)
    return bool(gone or stripped)


def _kept(log: DeltaLog, file: DataFile, rows: _Rows) -> Iterator[pa.RecordBatch]:
    for part in read_parts(log, file.path):
        stays, _, changed, _ = rows.sort(part)
        if changed:
            place = part.column_names.index("attributes")
            texts = part["attributes"].to_pylist()
            for row, text in changed.items():
                texts[row] = text
            column = pa.chunked_array([pa.array(texts, pa.string())])
            part = part.set_column(place, "attributes", column)
        yield from to_stored_batches(log, part.filter(stays))
