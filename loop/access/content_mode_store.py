"""The content modes of the organization's nodes: their one writer.

A node without a mode has that of the nearest node above it. A mode holds from the moment it was
set, for what comes after it: it has no days.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, String, Table, delete, insert, select

from loop.access.organization_store import load_tree
from loop.access.records import AccessLog, Author
from loop.control.store import metadata
from loop.domain.content_modes import ContentMode, parse_mode

content_modes = Table(
    "content_modes",
    metadata,
    Column("node_id", String(64), primary_key=True),
    Column("mode", String(16), nullable=False),
)


class ContentModeStore:
    """Each change is one transaction and one record among those of access."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log

    def set_mode(self, node_id: str, mode: ContentMode | None, author: Author) -> bool:
        """Sets the mode of a node, or takes its own away (``None``); whether that changed it.

        Raises :class:`NotFound` for a node that the organization never had.
        """
        with self._log.writing() as connection:
            load_tree(connection).spans_of(node_id)
            before = load_modes(connection).get(node_id)
            if before == mode:
                return False
            connection.execute(delete(content_modes).where(content_modes.c.node_id == node_id))
            if mode is not None:
                connection.execute(insert(content_modes).values(node_id=node_id, mode=mode))
            details = {"before": before, "after": mode}
            self._log.append(connection, "content-mode.set", node_id, author, details)
        return True


def load_modes(connection: Connection) -> dict[str, ContentMode]:
    """The modes that nodes have of their own, by node id."""
    rows = connection.execute(select(content_modes)).all()
    return {row.node_id: parse_mode(row.mode, "content_modes") for row in rows}
