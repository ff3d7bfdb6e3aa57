"""How the terminal shows records: data on stdout, talk on stderr, escapes of traces removed."""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

talk = Console(stderr=True, highlight=False)
_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a printed table: the row's key, its heading and how to write a value."""

    key: str
    heading: str
    kind: str = "text"  # text | count | money | share | score | time


def print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], empty: str) -> None:
    """A table with right-aligned numbers that are never cut."""
    if not rows:
        talk.print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        if column.kind == "text":
            table.add_column(column.heading, overflow="fold")
        else:
            table.add_column(column.heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(show(row.get(column.key), column.kind)) for column in columns))
    width = None if sys.stdout.isatty() else 160
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def print_lines(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(plain(line) + "\n")


def show(value: Any, kind: str = "text") -> str:
    """A value as people read it. ``None`` is a dash: unknown is not zero."""
    if value is None:
        return "–"
    if kind == "count":
        return f"{value:,}"
    if kind == "money":
        return f"${value / 1e6:,.4f}"
    if kind == "share":
        return f"{100 * value:.2f} %"
    if kind == "score":
        return f"{value:.2f}"
    if kind == "time":
        moment = datetime.datetime.fromtimestamp(value / 1e6, datetime.UTC)
        return moment.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple):
        return ", ".join(show(item) for item in value)
    return plain(str(value))


def plain(text: str) -> str:
    """The text without terminal escapes and control characters (tabs and newlines stay)."""
    return _CONTROL.sub("", text)
