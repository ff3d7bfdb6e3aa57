"""The organization tree: who is charged, and how that changed from day to day.

A node keeps its id for ever. What is said of it (its name, kind, parent and owner) holds from one
UTC day up to another; a change begins a new :class:`NodeSpan` and leaves the days before alone. So
"who was this charged to on that day" has one answer, whatever is changed later.

Days are texts, ``YYYY-MM-DD``, which compare as they follow each other; ``valid_to`` is exclusive,
and "" in it means: still so.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

from loop.domain.errors import BadInput, NotFound
from loop.domain.turns import UNATTRIBUTED

NodeKind = Literal["org", "business_unit", "sub_unit", "cost_center"]
KINDS: tuple[NodeKind, ...] = get_args(NodeKind)
"""From the top down. A node lies under one of a higher kind, so a path has at most four names."""

SEPARATOR = "/"
MAX_NAME = 100
MAX_ID = 64


@dataclass(frozen=True, slots=True)
class NodeSpan:
    """What is said of a node from ``valid_from`` up to, and without, ``valid_to`` ("": open)."""

    node_id: str
    name: str
    kind: NodeKind
    parent_id: str  # "" for an org
    owner: str
    valid_from: str
    valid_to: str = ""

    def covers(self, day: str) -> bool:
        return self.valid_from <= day and (not self.valid_to or day < self.valid_to)


@dataclass(frozen=True, slots=True)
class PathSpan:
    """The path that a node had over some days."""

    path: str
    valid_from: str
    valid_to: str = ""


class OrganizationTree:
    """All spans of all nodes. Immutable; looking up is by an index per day of change."""

    def __init__(self, spans: Iterable[NodeSpan] = ()) -> None:
        self.spans = tuple(sorted(spans, key=lambda span: (span.node_id, span.valid_from)))
        self._days = sorted(
            {day for span in self.spans for day in (span.valid_from, span.valid_to) if day}
        )
        self._moments: list[_Moment | None] = [None] * len(self._days)
        self._by_node: dict[str, list[NodeSpan]] = {}
        for span in self.spans:
            self._by_node.setdefault(span.node_id, []).append(span)

    def check(self, since: str = "") -> OrganizationTree:
        """This tree, if it is one on every day from ``since`` on.

        Raises :class:`BadInput` naming each fault: a node without its parent, a kind that does not
        lie below its parent's, two siblings of one name, two spans of a node on one day.
        """
        problems = _span_problems(self.spans)
        for day in self._days:
            if day >= since:
                problems += [f"On {day}: {fault}" for fault in self._moment(day).problems]
        if problems:
            raise BadInput("This is no tree.", why=" ".join(dict.fromkeys(problems)))
        return self

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._by_node

    def spans_of(self, node_id: str) -> tuple[NodeSpan, ...]:
        """The spans of one node in order of time. Raises :class:`NotFound`."""
        if node_id not in self._by_node:
            raise NotFound(
                f"The organization has no node {node_id!r}.", fix="`turnwise org list` shows all."
            )
        return tuple(self._by_node[node_id])

    def on(self, day: str) -> Mapping[str, NodeSpan]:
        """The nodes in force on a day, by id."""
        return self._moment(day).nodes

    def node(self, node_id: str, day: str) -> NodeSpan | None:
        """What is said of a node on a day; ``None`` when it is not in force then."""
        return self._moment(day).nodes.get(node_id)

    def path(self, node_id: str, day: str) -> str:
        """The names from the top down to the node on a day, "" when it is not in force then."""
        return self._moment(day).paths.get(node_id, "")

    def lineage(self, node_id: str, day: str) -> tuple[NodeSpan, ...]:
        """The nodes from the top down to this one on a day; empty when it is not in force."""
        nodes = self._moment(day).nodes
        found = []
        node = nodes.get(node_id)
        while node is not None:
            found.append(node)
            node = nodes.get(node.parent_id)
        return tuple(reversed(found))

    def is_within(self, node_id: str, ancestor_id: str, day: str) -> bool:
        """Whether a node is the other one or lies below it on a day; all lies below ""."""
        moment = self._moment(day)
        if not ancestor_id:
            return node_id in moment.nodes
        while node_id in moment.nodes:
            if node_id == ancestor_id:
                return True
            node_id = moment.nodes[node_id].parent_id
        return False

    def named(self, text: str, day: str) -> tuple[str, ...]:
        """The ids of the nodes that a text names on a day: by id, by path, or by a path's end."""
        return self._moment(day).names.get(text.casefold(), ())

    def paths_of(self, node_id: str) -> tuple[PathSpan, ...]:
        """Every path that a node has had, in order of time.

        A row whose day and path lie in one of them, or below it, is of the node's subtree.
        """
        found: list[PathSpan] = []
        for index, day in enumerate(self._days):
            path = self._moment(day).paths.get(node_id, "")
            until = self._days[index + 1] if index + 1 < len(self._days) else ""
            if not path:
                continue
            if found and found[-1].path == path and found[-1].valid_to == day:
                found[-1] = PathSpan(path, found[-1].valid_from, until)
            else:
                found.append(PathSpan(path, day, until))
        return tuple(found)

    def _moment(self, day: str) -> _Moment:
        index = bisect_right(self._days, day) - 1
        if index < 0:
            return _BEFORE_ALL
        moment = self._moments[index]
        if moment is None:
            moment = self._moments[index] = _Moment(self.spans, day)
        return moment


class _Moment:
    """The tree between two days on which something changes."""

    __slots__ = ("names", "nodes", "paths", "problems")

    def __init__(self, spans: Iterable[NodeSpan], day: str) -> None:
        self.problems: list[str] = []
        self.names: dict[str, tuple[str, ...]] = {}
        self.nodes = {span.node_id: span for span in spans if span.covers(day)}
        self.paths: dict[str, str] = {}
        names: dict[str, list[str]] = {}
        siblings: dict[tuple[str, str], str] = {}
        for node in self.nodes.values():
            problem = _place_problem(node, self.nodes)
            twin = siblings.setdefault((node.parent_id, node.name.casefold()), node.node_id)
            if twin != node.node_id:
                problem = f"{twin} and {node.node_id} are both called {node.name!r} there."
            if problem:
                self.problems.append(problem)
        if self.problems:
            return
        for node_id in self.nodes:
            path = self._path_of(node_id)
            parts = path.casefold().split(SEPARATOR)
            ends = {SEPARATOR.join(parts[start:]) for start in range(len(parts))}
            for text in ends | {node_id.casefold()}:
                names.setdefault(text, []).append(node_id)
        self.names = {text: tuple(ids) for text, ids in names.items()}

    def _path_of(self, node_id: str) -> str:
        if node_id not in self.paths:
            node = self.nodes[node_id]
            above = self._path_of(node.parent_id) + SEPARATOR if node.parent_id else ""
            self.paths[node_id] = above + node.name
        return self.paths[node_id]


_BEFORE_ALL = _Moment((), "")


def check_day(text: str, name: str = "day") -> str:
    """The day, if it is one. Raises :class:`BadInput`."""
    try:
        if date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise BadInput(f"{name}={text!r} is no day.", fix="Write YYYY-MM-DD.")


def _span_problems(spans: tuple[NodeSpan, ...]) -> list[str]:
    problems = []
    before: NodeSpan | None = None
    for span in spans:
        problems += _text_problems(span)
        if span.valid_to and span.valid_to <= span.valid_from:
            problems.append(f"{span.node_id}: {span.valid_to} does not follow {span.valid_from}.")
        overlaps = before is not None and before.node_id == span.node_id
        if overlaps and before is not None and not "" < before.valid_to <= span.valid_from:
            problems.append(f"{span.node_id} is said to be two things on {span.valid_from}.")
        before = span
    return problems


def _text_problems(span: NodeSpan) -> list[str]:
    problems = []
    if not span.node_id or len(span.node_id) > MAX_ID or not _is_plain(span.node_id):
        problems.append(f"{span.node_id!r} can't be a node's id (1 to {MAX_ID} plain characters).")
    if span.name != span.name.strip() or not span.name or len(span.name) > MAX_NAME:
        problems.append(f"{span.node_id}: a name has 1 to {MAX_NAME} characters.")
    elif not _is_plain(span.name) or span.name.casefold() == UNATTRIBUTED:
        problems.append(f"{span.node_id}: {span.name!r} can't be a name.")
    if span.owner and not _is_plain(span.owner):
        problems.append(f"{span.node_id}: {span.owner!r} can't be an owner.")
    if span.kind not in KINDS:
        problems.append(f"{span.node_id}: {span.kind!r} is no kind (one of {', '.join(KINDS)}).")
    return problems


def _is_plain(text: str) -> bool:
    """No separator, nothing unprintable, and nothing that a spreadsheet takes for a formula."""
    return text.isprintable() and SEPARATOR not in text and text[0] not in "=+-@"


def _place_problem(node: NodeSpan, nodes: Mapping[str, NodeSpan]) -> str:
    if not node.parent_id:
        return "" if node.kind == "org" else f"{node.node_id} is a {node.kind} without a parent."
    parent = nodes.get(node.parent_id)
    if parent is None:
        return f"the parent of {node.node_id}, {node.parent_id}, is not there."
    if node.kind not in KINDS or parent.kind not in KINDS:
        return ""  # said already
    if KINDS.index(node.kind) <= KINDS.index(parent.kind):
        return f"{node.node_id} is a {node.kind} and can't lie under a {parent.kind}."
    return ""
