"""Turns and contents: assembled again whenever a session's events grow, never edited in place.

A *revision* is the journal position that a session was assembled at. A write holds whole sessions;
only what differs from what is stored is appended, and what the session no longer has is appended as
removed. Readers take the highest revision of each (session, turn). ``docs/decisions/0003`` has the
reasons.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from loop.domain.turns import Charged, Content, Turn
from loop.lake.delta_log import DeltaLog
from loop.lake.queries import LakeQueries, to_columns
from loop.lake.revised_rows import WATERMARK, RevisedRows
from loop.lake.session_survey import SessionRows, survey
from loop.lake.turn_records import (
    content_columns,
    content_order,
    content_values,
    read_contents,
    read_turns,
    turn_columns,
    turn_order,
    turn_values,
)


class TurnTable:
    """The only writer of ``turns`` and ``contents``."""

    def __init__(self, turns: DeltaLog, contents: DeltaLog, queries: LakeQueries) -> None:
        self._queries = queries
        self._turns = RevisedRows(turns, queries, turn_columns, turn_values)
        self._contents = RevisedRows(contents, queries, content_columns, content_values)

    def write(
        self,
        turns: Sequence[Turn],
        contents: Sequence[Content],
        *,
        revision: int,
        emptied: Collection[str] = (),
        listed: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Stores whole sessions as they are at a revision; ``emptied`` ones have nothing any more.

        Of a session in ``listed`` only the turn ids there (``""``: texts of no turn) are stored as
        they are, and its others stay.

        Writing the same again changes nothing. Raises :class:`BadInput` for a value that can't be
        stored and :class:`Unavailable`; after either, the same call may be made again.
        """
        session_ids = sorted(
            {turn.session_id for turn in turns}
            | {text.session_id for text in contents}
            | set(emptied)
            | set(listed or ())
        )
        turn_groups = {(turn.session_id, turn.turn_id): [turn] for turn in turns}
        content_groups: dict[tuple[str, str], list[Content]] = defaultdict(list)
        for content in contents:
            content_groups[content.session_id, content.turn_id].append(content)
        for group in content_groups.values():
            if len(group) > 1:
                group.sort(key=content_order)
        # Contents go first: the turns' commit carries the watermark, so whoever reads it
        # finds both.
        self._contents.write(content_groups, session_ids, revision=revision, listed=listed)
        self._turns.write(
            turn_groups, session_ids, revision=revision, watermark=True, listed=listed
        )

    def charged_of(
        self, session_ids: Collection[str], listed: Mapping[str, Collection[str]]
    ) -> dict[tuple[str, str], Charged]:
        """The price and charge version of each stored turn of the sessions that has one."""
        return self._turns.charged(session_ids, listed)

    def turns_of(self, session_ids: Collection[str]) -> list[Turn]:
        """The current turns in order of (session, time, sequence, id)."""
        found = self._current_of(self._turns, session_ids)
        return sorted(read_turns(found), key=turn_order) if found else []

    def contents_of(
        self, session_ids: Collection[str], kinds: Collection[str] | None = None
    ) -> list[Content]:
        """The current texts in order of (session, time, sequence), of some kinds or all."""
        found = self._current_of(self._contents, session_ids, kinds)
        return read_contents(found) if found else []

    def max_revision(self) -> int:
        """The highest revision written in full; -1 when none is."""
        number = self._turns.log.transaction_number(WATERMARK)
        return -1 if number is None else number

    def sessions_changed_since(self, revision: int) -> list[str]:
        """The sessions with a turn or a text of a higher revision, in order of the first day on
        which they have one, then of id: so their files are read one after the other."""
        first_days: dict[str, str] = {}
        for table in (self._turns, self._contents):
            name = table.log.schema.name
            files = [
                file
                for file in table.log.snapshot().files
                if file.max_revision is None or file.max_revision > revision
            ]
            rows = self._queries.run(
                f"""SELECT session_id, min(day) AS day FROM {name}_rows WHERE revision > ?
                    GROUP BY session_id""",  # noqa: S608
                [revision],
                files={name: files},
            )
            found = to_columns(rows)
            for session_id, day in zip(found["session_id"], found["day"], strict=True):
                first_days[session_id] = min(day, first_days.get(session_id, day))
        return sorted(first_days, key=lambda session_id: (first_days[session_id], session_id))

    def survey(self, session_ids: Collection[str]) -> list[SessionRows]:
        """How large each of the sessions is and a digest of its rows, in the given order; of those
        that have any. Texts are not read."""
        files = {
            table.log.schema.name: table.session_files.holding(session_ids)
            for table in (self._turns, self._contents)
        }
        return survey(self._queries, session_ids, files)

    def _current_of(
        self,
        table: RevisedRows,
        session_ids: Collection[str],
        kinds: Collection[str] | None = None,
    ) -> dict[str, list[Any]]:
        if not session_ids:
            return {}
        name = table.log.schema.name
        files = table.session_files.holding(session_ids)
        where = "" if kinds is None else " WHERE kind IN (SELECT unnest(?))"
        rows = self._queries.run(
            f"SELECT * FROM {name}{where}",  # noqa: S608
            [] if kinds is None else [sorted(kinds)],
            files={name: files},
            sessions=session_ids,
        )
        return to_columns(rows)
