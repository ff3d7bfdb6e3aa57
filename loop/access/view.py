"""Which rows a caller may see: those that are charged to its node, or below it, on their day; and
whose records, as they came in."""

from __future__ import annotations

from dataclasses import dataclass

from loop.access.directory import Directory
from loop.domain.days import utc_day
from loop.domain.organization import SEPARATOR, PathSpan


@dataclass(frozen=True, slots=True)
class View:
    """``spans`` are the paths that the node has had, each with its days; ``None`` is all rows.

    A node that moved sees each row where it was charged on that day: what it spent before under
    another parent is still its own, and what others spent there is not.
    """

    spans: tuple[PathSpan, ...] | None = None

    @property
    def sees_all(self) -> bool:
        return self.spans is None

    def condition(self) -> tuple[str, list[object]]:
        """SQL over the columns ``day`` and ``org_path``, with its parameters."""
        if self.spans is None:
            return "true", []
        parts: list[str] = []
        parameters: list[object] = []
        for span in self.spans:
            until = " AND day < ?" if span.valid_to else ""
            parts.append(f"(day >= ?{until} AND (org_path = ? OR starts_with(org_path, ?)))")
            parameters += [span.valid_from, *([span.valid_to] if span.valid_to else [])]
            parameters += [span.path, span.path + SEPARATOR]
        return f"({' OR '.join(parts)})" if parts else "false", parameters

    def admits(self, org_path: str, day: str) -> bool:
        """Whether a row of that day and path is seen: the same answer as :meth:`condition`."""
        if self.spans is None:
            return True
        return any(
            span.valid_from <= day
            and (not span.valid_to or day < span.valid_to)
            and (org_path == span.path or org_path.startswith(span.path + SEPARATOR))
            for span in self.spans
        )


@dataclass(frozen=True, slots=True)
class SenderView:
    """Whose records a caller may see as they came in, before anything says whom they are charged
    to: those of credentials of its node and of nodes below, as the tree was when they came.

    ``directory`` ``None`` is all senders. What came by the installation's own credential, or by
    none, is seen with all senders only.
    """

    directory: Directory | None = None
    node_id: str = ""

    @property
    def sees_all(self) -> bool:
        return self.directory is None

    def admits(self, credential: str | None, at_us: int) -> bool:
        if self.directory is None:
            return True
        known = self.directory.credentials.get(credential or "")
        if known is None or not known.node_id:
            return False
        return self.directory.tree.is_within(known.node_id, self.node_id, utc_day(at_us))


ALL_ROWS = View()
ALL_SENDERS = SenderView()


def view_of(directory: Directory, node_id: str) -> View:
    """What a node sees; "" sees all."""
    return ALL_ROWS if not node_id else View(directory.tree.paths_of(node_id))


def senders_of(directory: Directory, node_id: str) -> SenderView:
    """Whose records a node sees; "" sees all."""
    return ALL_SENDERS if not node_id else SenderView(directory, node_id)
