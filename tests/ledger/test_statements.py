"""Statements add up at every level, never change once closed, and carry what changed on."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from loop.domain.errors import BadInput, Conflict, Corrupt, NotFound, Refused
from loop.domain.turns import TokenUsage, Turn
from loop.lake import Lake
from loop.ledger.statement_formats import FORMATS, render
from loop.ledger.statement_store import StatementStore
from loop.ledger.statements import AMOUNTS, Month
from tests.lake.lake_records import turn
from tests.ledger.control_stores import control_store

NOVEMBER, DECEMBER = Month.parse("2025-11"), Month.parse("2025-12")
DAY_US = 24 * 3_600_000_000
EVIL = '=HYPERLINK("x")'
BILLED = {
    "billed_microusd": 5,
    "estimated_microusd": 3,
    "residual_microusd": 2,
    "days": 30,
    "days_of_month": 30,
    "reasons": [{"reason": "rounding", "microusd": 2}],
}


@dataclass(slots=True)
class Books:
    engine: Engine
    lake: Lake
    statements: StatementStore
    revision: int = 0

    def write(self, *turns: Turn) -> None:
        self.revision += 1
        self.lake.write_turns(turns, [], revision=self.revision)


@contextmanager
def books(folder: Path) -> Iterator[Books]:
    engine = control_store(folder)
    lake = Lake.open(str(folder / "lake"))
    yield Books(engine, lake, StatementStore(engine, lake))
    engine.dispose()


def charged(number: int, session_id: str = "s1", day: int = 0, **given_: Any) -> Turn:
    start = turn(0).started_at_us + day * DAY_US
    return turn(number, session_id, started_at_us=start, price_version="v1-x", **given_)


def cost_of(rows: list[dict[str, Any]]) -> int:
    return sum(row["cost_microusd"] or 0 for row in rows)


paths = st.sampled_from(["a", "a/b", "a/b/c", "a/b/d/e", "b/a", "unattributed"])
names = st.sampled_from(["x", "y", EVIL, "<b>", ""])
drawn_turns = st.lists(
    st.tuples(
        paths, names, names, st.one_of(st.none(), st.integers(0, 2**62)), st.integers(0, 2**40)
    ),
    max_size=12,
)


@settings(max_examples=5, deadline=None)
@given(drawn_turns)
def test_every_level_adds_up_to_the_turns(drawn: list[tuple[Any, ...]]) -> None:
    turns = [
        charged(
            n,
            org_path=path,
            developer=developer,
            repository=repository,
            cost_microusd=cost,
            usage=TokenUsage(tokens, 1, 2, 3, 4),
        )
        for n, (path, developer, repository, cost, tokens) in enumerate(drawn)
    ]
    with tempfile.TemporaryDirectory() as folder, books(Path(folder)) as it:
        if turns:
            it.write(*turns)
        document = it.statements.draft(NOVEMBER, "")
        expected = {
            "turns": len(turns),
            "unpriced_turns": sum(one.cost_microusd is None for one in turns),
            "input_tokens": sum(one.usage.input_tokens for one in turns),
            "cost_microusd": sum(one.cost_microusd or 0 for one in turns),
        }
        tops = [row for row in document["by_org"] if row["level"] == 1]
        for rows in (
            [document["totals"]],
            tops,
            *(document[name] for name in ("by_developer", "by_repository", "by_model", "lines")),
        ):
            assert {name: sum(row[name] or 0 for row in rows) for name in expected} == expected
        for row in document["by_org"]:
            below = [
                o
                for o in document["lines"]
                if (o["org_path"] + "/").startswith(row["org_path"] + "/")
            ]
            assert cost_of(below) == (row["cost_microusd"] or 0)
        for path in ("a/b",):
            if any((one.org_path + "/").startswith(path + "/") for one in turns):
                part = it.statements.draft(NOVEMBER, path)
                (node,) = [row for row in document["by_org"] if row["org_path"] == path]
                assert {n: part["totals"][n] for n in AMOUNTS} == {n: node[n] for n in AMOUNTS}


def test_a_closed_statement_is_printed_again_byte_for_byte(tmp_path: Path) -> None:
    with books(tmp_path) as it:
        it.write(charged(1), charged(2, cost_microusd=None, unpriced_reason="unknown model m"))
        closed = it.statements.close(NOVEMBER, "", "ada", BILLED)
        assert re.fullmatch(r"2025-11-[0-9a-f]{12}", closed["statement_id"])
        printed = {kind: it.statements.printed(NOVEMBER, "", kind) for kind in FORMATS}
        it.write(charged(1), charged(2), charged(3))
        again = StatementStore(it.engine, Lake.open(str(tmp_path / "lake")))
        for kind in FORMATS:
            assert again.printed(NOVEMBER, "", kind) == printed[kind] == render(closed, kind)
        assert json.loads(printed["json"]) == closed
        with pytest.raises(Conflict):
            it.statements.close(NOVEMBER, "", "bob")
        assert [row["closed_by"] for row in it.statements.statements()] == ["ada"]
        with it.engine.begin() as connection:
            connection.execute(text("UPDATE statements SET content_hash = 'x'"))
        with pytest.raises(Corrupt):
            it.statements.printed(NOVEMBER, "", "csv")


def test_what_changes_after_the_close_stands_in_the_next_one(tmp_path: Path) -> None:
    with books(tmp_path) as it:
        it.write(charged(1, cost_microusd=100), charged(2, "s2", cost_microusd=50))
        first = it.statements.close(NOVEMBER, "", "ada")
        assert first["control"]["closing_microusd"] == 150
        it.write(charged(1, cost_microusd=130), charged(5, day=10, cost_microusd=7))
        it.write(charged(3, "s3", cost_microusd=11, developer="late@example.com"))
        second = it.statements.close(DECEMBER, "", "ada")
        assert [(row["month"], row["cost_microusd"]) for row in second["adjustments"]] == [
            ("2025-11", 30),
            ("2025-11", 11),
        ]
        assert "charged anew" in second["adjustments"][0]["cause"]
        assert "arrived" in second["adjustments"][1]["cause"]
        control = second["control"]
        assert control == {
            "opening_microusd": 150,
            "charges_microusd": 7,
            "adjustments_microusd": 41,
            "total_microusd": 48,
            "closing_microusd": 198,
            "turns": 1,
            "unpriced_turns": 0,
        }
        third = it.statements.draft(Month.parse("2026-01"), "")
        assert third["adjustments"] == []
        assert third["control"]["closing_microusd"] == 198
        with pytest.raises(Conflict):
            it.statements.close(Month.parse("2025-10"), "", "ada")


def test_only_a_month_that_is_over_can_be_closed(tmp_path: Path) -> None:
    with books(tmp_path) as it:
        with pytest.raises(Refused, match="not over"):
            it.statements.close(Month.parse("2999-01"), "", "ada")
        with pytest.raises(BadInput):
            it.statements.close(NOVEMBER, "", " ")
        with pytest.raises(NotFound):
            it.statements.draft(NOVEMBER, "no/such/path")
        with pytest.raises(BadInput):
            it.statements.printed(NOVEMBER, "", "pdf")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "2025", "2025-13", "2025-00", "25-01", "2025-1", "²⁰²⁵-01"])
def test_what_is_no_month_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        Month.parse(name)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=3, max_size=3))
def test_hostile_names_stay_texts(hostile: list[str]) -> None:
    evil = [lead + name for lead, name in zip(("=", "+cmd|", "@"), hostile, strict=True)]
    amounts = dict.fromkeys(AMOUNTS, 1)
    line = dict(zip(("org_path", "developer", "repository"), evil, strict=True))
    row = {**line, "model": "<script>alert(1)</script>", **amounts}
    document = {
        **{name: [row | {"level": 1}] for name in ("by_org", "by_developer", "by_repository")},
        **dict.fromkeys(("statement_id", "state", "month", "from", "until", "org_path"), "x"),
        "content_hash": "h",
        "by_model": [row],
        "lines": [row],
        "totals": amounts,
        "unpriced": [{"reason": "<i>", "model": "m", "turns": 1}],
        "adjustments": [row | {"month": "2025-10", "cause": "=1", "cost_microusd": -5}],
        "price_versions": ["v"],
        "charge_versions": [0],
        "table_versions": {"turns": 1},
        "billed": None,
        "control": dict.fromkeys(
            ("opening_microusd", "charges_microusd", "adjustments_microusd"), 0
        )
        | {"total_microusd": 0, "closing_microusd": 0},
    }
    rows = list(csv.DictReader(io.StringIO(render(document, "csv"), newline="")))
    for cells in rows:
        for name, cell in cells.items():
            is_number = name in (*AMOUNTS, "cost_usd") and re.fullmatch(r"-?[0-9.]*", cell)
            assert is_number or not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    page = render(document, "html")

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            assert tag not in ("script", "i", "img", "iframe", "link", "a")

    Tags(convert_charrefs=True).feed(page)
    assert "alert(1)" in page
    assert "\x1b" not in render(document, "table")
