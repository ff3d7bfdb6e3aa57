"""The organization tree and the developer directory as CSV files, read with errors by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loop.domain.errors import BadInput, TurnwiseError
from loop.domain.organization import KINDS, OrganizationTree, check_day
from loop.domain.organization_changes import NodeRow

NODE_COLUMNS = ("node_id", "name", "kind", "parent_id", "owner")
MEMBER_COLUMNS = ("developer", "node_id", "from")
MAX_TOLD = 20  # faults that one message names


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A developer (an e-mail address or an id, as the client states it) in a node from a day on;
    an empty ``node_id`` takes the developer out of the directory from then on."""

    developer: str
    node_id: str
    valid_from: str
    line: int = 0


def read_nodes(text: str) -> list[NodeRow]:
    """The nodes of a CSV file with a heading (:data:`NODE_COLUMNS`, ``owner`` may be left out).

    Raises :class:`BadInput` naming each line that can't be used.
    """
    rows, problems = [], []
    for line, cells in _read(text, NODE_COLUMNS, needed=NODE_COLUMNS[:4]):
        row = NodeRow(**cells, line=line)
        if row.kind not in KINDS:
            problems.append(f"line {line}: {row.kind!r} is no kind (one of {', '.join(KINDS)}).")
        if not row.node_id or not row.name:
            problems.append(f"line {line}: node_id and name must not be empty.")
        rows.append(row)
    _refuse(problems)
    return rows


def read_members(text: str, effective: str) -> list[MemberRow]:
    """The developers of a CSV file with a heading (:data:`MEMBER_COLUMNS`); where ``from`` is
    empty or left out, ``effective`` holds. Raises :class:`BadInput` naming each bad line."""
    rows, problems = [], []
    for line, cells in _read(text, MEMBER_COLUMNS, needed=MEMBER_COLUMNS[:2]):
        try:
            day = check_day(cells["from"] or effective, "from")
        except TurnwiseError as error:
            problems.append(f"line {line}: {error.what}")
            continue
        if not cells["developer"]:
            problems.append(f"line {line}: developer must not be empty.")
        rows.append(MemberRow(cells["developer"], cells["node_id"], day, line))
    _refuse(problems)
    return rows


def write_nodes(tree: OrganizationTree, day: str) -> str:
    """The nodes in force on a day, parents first; :func:`read_nodes` reads it back."""
    nodes = sorted(tree.on(day).values(), key=lambda node: tree.path(node.node_id, day))
    return write_csv(
        NODE_COLUMNS, ([getattr(node, name) for name in NODE_COLUMNS] for node in nodes)
    )


def write_csv(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return text.getvalue()


def _read(
    text: str, columns: Sequence[str], needed: Sequence[str]
) -> Iterable[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        heading = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in needed if name not in heading]
        unknown = [name for name in heading if name not in columns]
        if missing or unknown:
            faults = [f"{name} is missing" for name in missing]
            faults += [f"{name!r} is unknown" for name in unknown]
            raise BadInput(
                "The first line must name the columns.",
                why=f"{', '.join(faults)}.",
                fix=f"Write {','.join(columns)}.",
            )
        reader.fieldnames = heading
        problems = []
        found = []
        for cells in reader:
            if None in cells or None in cells.values():
                problems.append(f"line {reader.line_num}: it has not {len(heading)} cells.")
                continue
            row = dict.fromkeys(columns, "") | {name: cells[name].strip() for name in heading}
            found.append((reader.line_num, row))
    except csv.Error as error:
        raise BadInput(f"line {reader.line_num}: this is no CSV.", why=str(error)) from error
    _refuse(problems)
    return found


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        more = f" And {len(problems) - MAX_TOLD} more." if len(problems) > MAX_TOLD else ""
        raise BadInput(
            f"{len(problems)} lines can't be used; nothing was imported.",
            why=" ".join(problems[:MAX_TOLD]) + more,
        )
