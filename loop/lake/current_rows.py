"""What is current of a table's rows, in SQL over its files.

Tables with revisions are read in parts: settled files as they are, open ones by the plain rule
(``docs/decisions/0011``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loop.lake.data_files import DataFile, settled_and_open
from loop.lake.schemas import TableSchema

CURRENT: dict[str, str] = {
    "events": "SELECT DISTINCT ON (event_id) * FROM {rows} ORDER BY event_id, received_at_us",
    "scores": """
        SELECT * FROM {rows} QUALIFY row_number() OVER (
            PARTITION BY session_id, evaluator
            ORDER BY scored_at_us DESC, evaluator_version DESC, input_digest DESC, value DESC
        ) = 1""",
    "profiles": """
        SELECT * FROM {rows} QUALIFY row_number() OVER (
            PARTITION BY session_id ORDER BY profiled_at_us DESC, scored_at_us DESC
        ) = 1""",
    "clusters": """
        SELECT * FROM {rows} QUALIFY clustered_at_us = max(clustered_at_us) OVER ()
        AND cluster_id <> ''""",
    # The earliest; collectors/event_identity.py has the same order for those that tie.
    "decisions": """
        SELECT DISTINCT ON (decision_id) * FROM {rows}
        ORDER BY decision_id, at_us, session_id, agent_id, serial, policy_version, policy_digest,
            arm, bucket, propensity, rule_id, requested_model, routed_model,
            upstream_status NULLS FIRST""",
    "estimates": "SELECT * FROM {rows}",
    "charges": "SELECT * FROM {rows}",
    "daily_charges": "SELECT * FROM {rows}",
}

MANY_ROWS = 200_000
_OF_ROWS = '"commit", removed, supersedes_from_day, supersedes_to_day'
_KEYED = f"EXCLUDE ({_OF_ROWS})"
_OWN = {
    "turns": f"EXCLUDE ({_OF_ROWS}, charge_key)",
    "contents": f"EXCLUDE ({_OF_ROWS})",
}
CURRENT |= {
    # A turn is one row, its texts are several.
    name: f"""
        SELECT * {_OWN[name]} FROM (
            SELECT * FROM {{rows}} QUALIFY {rank}() OVER (
                PARTITION BY session_id, turn_id ORDER BY revision DESC, "commit" DESC) = 1
        ) WHERE NOT removed"""  # noqa: S608
    for name, rank in (("turns", "row_number"), ("contents", "dense_rank"))
}
"""What a view shows of a table's rows: only what is current, each thing once."""
NEWEST_OF_MANY = {
    # Few keys have several revisions. Finding these first, by hash (a collision costs a little
    # time, nothing else), and numbering only their rows takes half the time of numbering all; but
    # it reads the files three times, which many small files don't repay.
    "turns": f"""
        SELECT * {_OWN["turns"]} FROM (
            SELECT * FROM {{rows}} WHERE hash(session_id, turn_id) NOT IN (
                SELECT hash(session_id, turn_id) AS key FROM {{rows}}
                GROUP BY key HAVING count(*) > 1)
            UNION ALL
            SELECT * FROM {{rows}} WHERE hash(session_id, turn_id) IN (
                SELECT hash(session_id, turn_id) AS key FROM {{rows}}
                GROUP BY key HAVING count(*) > 1)
            QUALIFY row_number() OVER (
                PARTITION BY session_id, turn_id ORDER BY revision DESC, "commit" DESC) = 1
        ) WHERE NOT removed""",  # noqa: S608
}
"""The same answer for more than ``MANY_ROWS``."""
_SETTLED = "SELECT * {own} FROM {rows}"
_LOOKED_THROUGH = """
    SELECT * {own} FROM {rows} AS settled {join} JOIN {opened} AS opened
    ON opened.session_id = settled.session_id AND opened.turn_id = settled.turn_id
    AND row(opened.revision, opened."commit") > row(settled.revision, settled."commit")"""
# A turn's texts may lie under several days, some of them settled and others still open: rows of
# one writing don't supersede each other.

PARTS = ("rows", "keyed", "superseded", "unkeyed")
"""``turns_keyed`` less ``turns_superseded`` are the current rows of the settled files whose rows
have a ``charge_key``; ``turns_unkeyed`` are all others. To read keyed rows without looking for what
supersedes them, and to take off the few that are, costs less than to join them all."""

View = Callable[[str, Sequence[DataFile]], str]
"""Makes a view of some files, unless it is there already, and returns its name."""


@dataclass(frozen=True, slots=True)
class TableParts:
    """The files of a table, by how their rows are read: settled ones to take as they are, settled
    ones that open files may supersede rows of, and open ones."""

    schema: TableSchema
    straight: Sequence[DataFile]
    looked_through: Sequence[DataFile]
    opened: Sequence[DataFile]
    has_key: Callable[[DataFile], bool]

    def sql_of(self, shown: str, view: View, *, is_many: bool) -> str:
        """The SELECT of the table itself (its name) or of one of its parts.

        ``is_many``: so many rows are open that looking for the newest by hash first pays.
        """
        name = self.schema.name
        if shown == f"{name}_keyed":
            keyed = [file for file in self._settled() if self.has_key(file)]
            return _SETTLED.format(rows=view(f"{shown}_settled", keyed), own=_KEYED)
        opened = view(f"{name}_open", self.opened)
        if shown == f"{name}_superseded":
            keyed = [file for file in self.looked_through if self.has_key(file)]
            older = view(f"{shown}_settled", keyed)
            return _LOOKED_THROUGH.format(rows=older, opened=opened, own=_KEYED, join="SEMI")
        is_whole = shown == name
        own = _OWN.get(name, "")
        straight, looked_through = (
            [file for file in files if is_whole or not self.has_key(file)]
            for files in (self.straight, self.looked_through)
        )
        parts = []
        if straight:
            parts.append(_SETTLED.format(rows=view(f"{shown}_settled", straight), own=own))
        if looked_through:
            older = view(f"{shown}_looked_through", looked_through)
            parts.append(_LOOKED_THROUGH.format(rows=older, opened=opened, own=own, join="ANTI"))
        if self.opened or not parts:
            newest = NEWEST_OF_MANY if is_many and name in NEWEST_OF_MANY else CURRENT
            parts.append(newest[name].format(rows=opened))
        return " UNION ALL ".join(f"({part})" for part in parts)

    def _settled(self) -> list[DataFile]:
        return [*self.straight, *self.looked_through]


def parts_of(
    schema: TableSchema, files: Sequence[DataFile], has_key: Callable[[DataFile], bool]
) -> TableParts:
    """``has_key`` says of a settled file whether each of its rows has a charge key."""
    if not schema.has_revisions:
        return TableParts(schema, [], [], files, has_key)
    return TableParts(schema, *settled_and_open(files), has_key)
