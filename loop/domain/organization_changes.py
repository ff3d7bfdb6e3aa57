"""Changes of the organization tree: what a change does to the spans, and how it reads in words.

Each takes a tree and gives the spans of the tree after it; nothing before the day of the change is
touched. A change of a field holds until the next recorded change of the same field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from loop.domain.errors import BadInput, Conflict, NotFound
from loop.domain.organization import NodeSpan, OrganizationTree

FIELDS = ("name", "kind", "parent_id", "owner")


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node as a CSV file or a command names it; ``line`` is where, for messages."""

    node_id: str
    name: str
    kind: str
    parent_id: str = ""
    owner: str = ""
    line: int = 0


def add_nodes(tree: OrganizationTree, rows: Sequence[NodeRow], day: str) -> OrganizationTree:
    """The tree in which each row holds from a day on: nodes are added, or changed where they are
    there already. Nodes that no row names stay. Raises :class:`BadInput` naming each fault."""
    seen: dict[str, int] = {}
    problems = []
    for row in rows:
        if row.node_id in seen:
            where = f"line {row.line}: " if row.line else ""
            problems.append(f"{where}{row.node_id} is in line {seen[row.node_id]} already.")
        seen[row.node_id] = row.line
    if problems:
        raise BadInput("The rows contradict each other.", why=" ".join(problems))
    changed = {
        row.node_id: _with_fields(
            tree.spans_of(row.node_id) if row.node_id in tree else (),
            row.node_id,
            {name: getattr(row, name) for name in FIELDS},
            day,
        )
        for row in rows
    }
    return _checked(_replaced(tree, changed), day, rows)


def change_node(
    tree: OrganizationTree, node_id: str, fields: Mapping[str, str], day: str
) -> OrganizationTree:
    """Moves (``parent_id``), renames (``name``) or gives another ``owner`` from a day on.

    Raises :class:`NotFound` when the node is not in force then, :class:`BadInput` for what would
    be no tree.
    """
    spans = tree.spans_of(node_id)
    if tree.node(node_id, day) is None:
        raise NotFound(
            f"Node {node_id} is not in force on {day}.", fix=f"`turnwise org show {node_id}`."
        )
    changed = _with_fields(spans, node_id, fields, day)
    return _replaced(tree, {node_id: changed}).check(since=day)


def close_node(tree: OrganizationTree, node_id: str, day: str) -> OrganizationTree:
    """Ends a node before a day. Raises :class:`Conflict` while nodes lie below it from then on."""
    spans = tree.spans_of(node_id)
    if tree.node(node_id, day) is None:
        raise NotFound(f"Node {node_id} is not in force on {day}.")
    below = {
        span.node_id
        for span in tree.spans
        if span.parent_id == node_id and (not span.valid_to or span.valid_to > day)
    }
    if below:
        raise Conflict(
            f"Node {node_id} can't end on {day}: {', '.join(sorted(below))} lie below it.",
            fix="Move or close them first.",
        )
    kept = [
        replace(span, valid_to=day) if span.covers(day) else span
        for span in spans
        if span.valid_from < day
    ]
    return _replaced(tree, {node_id: kept}).check(since=day)


def changed_nodes(before: OrganizationTree, after: OrganizationTree) -> tuple[str, ...]:
    """The ids of the nodes of which something different is said, sorted."""
    old, new = _by_node(before), _by_node(after)
    return tuple(sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)))


def describe_change(before: OrganizationTree, after: OrganizationTree, day: str) -> list[str]:
    """In words what is different from a day on, one sentence per node."""
    old, new = before.on(day), after.on(day)
    lines = []
    for node_id in changed_nodes(before, after):
        was, now = old.get(node_id), new.get(node_id)
        if now is None and was is not None:
            lines.append(f"{before.path(node_id, day)} ({node_id}) ends.")
        elif now is not None and was is None:
            lines.append(f"{after.path(node_id, day)} ({node_id}) is new: {_words(now.kind)}.")
        elif now is not None and was is not None:
            lines += _field_lines(before, after, was, now, day)
    return lines


def _field_lines(
    before: OrganizationTree, after: OrganizationTree, was: NodeSpan, now: NodeSpan, day: str
) -> list[str]:
    where = f"{before.path(was.node_id, day)} ({was.node_id})"
    lines = []
    if was.parent_id != now.parent_id:
        old_place = before.path(was.parent_id, day) or "the top"
        new_place = after.path(now.parent_id, day) or "the top"
        lines.append(f"{where} moves from {old_place} to {new_place}.")
    if was.name != now.name:
        lines.append(f"{where} is called {now.name}.")
    if was.kind != now.kind:
        lines.append(f"{where} becomes {_words(now.kind)}.")
    if was.owner != now.owner:
        lines.append(f"{where} belongs to {now.owner or 'nobody'}.")
    return lines


def _words(kind: str) -> str:
    article = "an" if kind == "org" else "a"
    return f"{article} {kind.replace('_', ' ')}"


def _replaced(
    tree: OrganizationTree, changed: Mapping[str, Sequence[NodeSpan]]
) -> OrganizationTree:
    others = [span for span in tree.spans if span.node_id not in changed]
    return OrganizationTree([*others, *(span for spans in changed.values() for span in spans)])


def _with_fields(
    spans: Sequence[NodeSpan], node_id: str, fields: Mapping[str, str], day: str
) -> list[NodeSpan]:
    """A node's spans with the fields holding from a day on; the node is added where it is not in
    force on that day."""
    before = next((span for span in spans if span.covers(day)), None)
    if before is None:
        said: dict[str, Any] = {name: fields[name] for name in FIELDS}
        until = min((span.valid_from for span in spans if span.valid_from > day), default="")
        return _joined([*spans, NodeSpan(node_id, **said, valid_from=day, valid_to=until)])
    changed: list[NodeSpan] = []
    holding = set(fields)  # those that no later change has taken over yet
    for span in spans:
        if span.valid_to and span.valid_to <= day:
            changed.append(span)
            continue
        holding = {name for name in holding if getattr(span, name) == getattr(before, name)}
        said = {name: fields[name] for name in holding}
        if span.valid_from < day:
            changed.append(replace(span, valid_to=day))
            span = replace(span, valid_from=day)
        changed.append(replace(span, **said))
    return _joined(changed)


def _joined(spans: Sequence[NodeSpan]) -> list[NodeSpan]:
    """Neighbours that say the same are one span."""
    joined: list[NodeSpan] = []
    for span in sorted(spans, key=lambda span: span.valid_from):
        last = joined[-1] if joined else None
        if last is not None and last.valid_to == span.valid_from and _says(last) == _says(span):
            joined[-1] = replace(last, valid_to=span.valid_to)
        else:
            joined.append(span)
    return joined


def _says(span: NodeSpan) -> tuple[str, ...]:
    return tuple(getattr(span, name) for name in FIELDS)


def _by_node(tree: OrganizationTree) -> dict[str, list[NodeSpan]]:
    found: dict[str, list[NodeSpan]] = {}
    for span in tree.spans:
        found.setdefault(span.node_id, []).append(span)
    return found


def _checked(tree: OrganizationTree, day: str, rows: Iterable[NodeRow]) -> OrganizationTree:
    try:
        return tree.check(since=day)
    except BadInput as error:
        lines = {row.node_id: row.line for row in rows if row.line}
        words = set(error.why.replace(":", " ").replace(",", " ").split())
        named = [f"{node_id} is line {line}" for node_id, line in lines.items() if node_id in words]
        hint = f" ({'; '.join(named[:5])})" if named else ""
        raise BadInput(error.what, why=error.why + hint, fix=error.fix) from error
