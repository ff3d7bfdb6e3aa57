"""A charge keeps the price it was made with; pricing anew adds a version and edits nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from collectors.drainer import Drainer
from collectors.journal import Journal
from loop.domain.errors import BadInput, Conflict
from loop.domain.money import Price, PriceBook
from loop.domain.turns import Charged, TokenUsage, Turn
from loop.lake import Lake
from loop.lake.compaction import LakePolicy
from loop.ledger.charge_table import ChargeTable
from loop.ledger.charge_versions import ChargeVersionStore
from loop.ledger.chargeback import spend
from loop.ledger.price_book_store import PriceBookStore
from loop.ledger.pricing import Pricing, day_of_turn, price
from loop.ledger.repricing import Repricing, Revising
from tests.collectors.pipeline import ROOMY
from tests.collectors.recordings import all_bodies
from tests.lake.lake_records import HOUR_US, content, turn
from tests.ledger.control_stores import control_store

MODELS = ("claude-opus-4-7", "claude-sonnet-4-6", "claude-haiku-4-5")
BASE = PriceBook("base", [Price(m, "2020-01-01", *[1_000_000] * 5) for m in MODELS])
DOUBLE = [replace(one, input_microusd=2_000_000) for one in BASE.prices()]
SETTLE_AT_ONCE = LakePolicy(rest_seconds=0)
FIRST, LAST = "2025-11-23", "2025-11-24"


@dataclass(slots=True)
class Ledger:
    engine: Engine
    lake: Lake
    books: PriceBookStore
    versions: ChargeVersionStore
    charges: ChargeTable
    revision: int = 100

    def write(self, *turns: Turn) -> None:
        """Stores turns as a drainer would: priced, at the next revision."""
        self.revision += 1
        sessions = {one.session_id for one in turns}
        prices = Pricing(self.books, self.versions).now()
        priced = prices.price(turns, self.lake.charged_of(sessions))
        self.lake.write_turns(priced, [], revision=self.revision)

    def write_session(self, session_id: str, turns: list[Turn]) -> None:
        """The session has these turns and no others any more."""
        self.revision += 1
        prices = Pricing(self.books, self.versions).now()
        priced = prices.price(turns, self.lake.charged_of([session_id]))
        self.lake.write_turns(priced, [], revision=self.revision, emptied=[session_id])

    def reprice(self, name: str = "latest", revising: Revising | None = None) -> dict[str, Any]:
        repricing, book = self.repricing(), self.books.find(name)
        version = repricing.begin(book, FIRST, LAST, author="ada", reason="r")
        for _ in repricing.rewrite(version, book, revising or self.revising):
            pass
        repricing.finish(version)
        return {**version.outcome, "charge_version": version.version}

    def repricing(self) -> Repricing:
        return Repricing(self.lake, self.charges, self.versions)

    @contextmanager
    def revising(self) -> Iterator[int]:
        self.revision += 1
        yield self.revision

    def total(self, version: int | None = None) -> int:
        (row,) = spend(self.lake, [], charge_version=version, repricings=self.versions.list())
        return int(row["cost_microusd"])


@contextmanager
def ledger(folder: Path) -> Iterator[Ledger]:
    engine = control_store(folder)
    lake, versions = (
        Lake.open(str(folder / "lake"), policy=SETTLE_AT_ONCE),
        ChargeVersionStore(engine),
    )
    books = PriceBookStore(engine, BASE)
    yield Ledger(engine, lake, books, versions, ChargeTable(lake, versions))
    engine.dispose()


def unpriced(number: int, session_id: str = "s1", **given_: object) -> Turn:
    fields = {"cost_microusd": None, "usage": TokenUsage(1_000_000)} | given_
    return turn(number, session_id, **fields)


def test_a_turn_keeps_its_price_when_more_of_its_session_arrives(tmp_path: Path) -> None:
    with ledger(tmp_path) as it:
        it.write(unpriced(1))
        first = it.books.in_force().version
        it.books.add(DOUBLE, author="a", reason="r")
        it.write(unpriced(1, effort="high"), unpriced(2))
        old, new = it.lake.turns_of(["s1"])
        assert (old.effort, old.cost_microusd, old.price_version) == ("high", 1_000_000, first)
        assert (new.cost_microusd, new.price_version) == (2_000_000, it.books.in_force().version)
        grown = unpriced(1, usage=TokenUsage(3_000_000))  # its tokens became known only now
        it.write(grown, unpriced(2))
        assert it.lake.turns_of(["s1"])[0].cost_microusd == 3_000_000


def test_what_was_unpriced_stays_so_until_it_is_priced_anew(tmp_path: Path) -> None:
    with ledger(tmp_path) as it:
        strange = unpriced(1, served_model="m", requested_model="m")
        it.write(strange)
        assert it.lake.turns_of(["s1"])[0].unpriced_reason == "unknown model m"
        it.books.add([replace(DOUBLE[0], model="m")], author="a", reason="r")
        it.write(replace(strange, effort="low"))
        assert it.lake.turns_of(["s1"])[0].cost_microusd is None
        report = it.reprice()
        assert (report["unpriced_before"], report["unpriced_after"]) == (1, 0)
        assert it.lake.turns_of(["s1"])[0].unpriced_reason == ""


def test_pricing_anew_is_a_version_and_the_old_one_can_be_read(tmp_path: Path) -> None:
    with ledger(tmp_path) as it:
        it.lake.write_turns([], [content(1)], revision=1)
        outside = unpriced(1, "s1", started_at_us=turn(0).started_at_us + 48 * HOUR_US)
        it.write(unpriced(2), outside, unpriced(3, "s2"))
        texts = it.lake.contents_of(["s1"])
        it.books.add(DOUBLE, author="a", reason="r")
        preview = it.repricing().preview(it.books.in_force(), FIRST, LAST)
        assert it.total() == 3_000_000
        assert it.versions.list() == []
        report = it.reprice()
        assert report["charge_version"] == 1
        assert preview.as_dict() == {k: report[k] for k in report if k != "charge_version"}
        assert (report["before_microusd"], report["after_microusd"]) == (2_000_000, 4_000_000)
        assert (it.total(), it.total(1), it.total(0)) == (5_000_000, 5_000_000, 3_000_000)
        assert it.lake.contents_of(["s1"]) == texts
        assert it.lake.charged_of(["s1"]) == {
            ("s1", "req_s1_2"): Charged(it.books.in_force().version, 1),
            ("s1", "req_s1_1"): Charged(it.books.find("1").version, 0),
        }
        late = unpriced(4, "s3")  # arrives on a day that was priced anew
        it.write(late)
        assert it.lake.turns_of(["s3"])[0].charge_version == 1
        it.charges.roll_up([FIRST])
        assert (it.total(1), it.total(0)) == (7_000_000, 3_000_000)
        by_rollup = spend(it.lake, ["day", "session"], from_rollup=True, until=LAST)
        assert by_rollup == spend(it.lake, ["day", "session"], until=LAST)
        it.reprice("1")
        assert (it.total(), it.total(1), it.total(0)) == (4_000_000, 7_000_000, 3_000_000)
        with pytest.raises(BadInput, match="no charge version 3"):
            it.total(3)


def test_one_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    with ledger(tmp_path) as it:
        it.write(unpriced(1), unpriced(2))
        it.books.add(DOUBLE, author="a", reason="r")

        @contextmanager
        def failing() -> Iterator[int]:
            raise Conflict("away")
            yield 0

        with pytest.raises(Conflict):
            it.reprice(revising=failing)
        assert it.total(0) == 2_000_000
        assert it.versions.unfinished() is not None
        assert it.reprice()["charge_version"] == 1
        assert it.versions.unfinished() is None
        assert (it.total(), it.total(0)) == (4_000_000, 2_000_000)
        with pytest.raises(BadInput, match="no day"):
            it.repricing().preview(it.books.in_force(), LAST, FIRST)


histories = st.lists(
    st.one_of(
        st.just("settle"),
        # of a session: its turns, each with its day and tokens
        st.tuples(
            st.sampled_from(["s1", "s2"]),
            st.dictionaries(
                st.integers(1, 3), st.tuples(st.integers(-1, 2), st.integers(0, 10**9)), max_size=3
            ),
        ),
    ),
    max_size=4,
)


@settings(max_examples=5, deadline=None)
@given(histories)
def test_each_current_turn_of_the_days_is_priced_anew_and_nothing_else(history: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, ledger(Path(folder)) as it:
        for step in history:
            if step == "settle":
                it.lake.compact(["turns"])
                continue
            session_id, drawn = step
            it.write_session(
                session_id,
                [
                    unpriced(
                        number,
                        session_id,
                        usage=TokenUsage(tokens),
                        started_at_us=turn(0).started_at_us + day * 24 * HOUR_US,
                    )
                    for number, (day, tokens) in drawn.items()
                ],
            )
        before = it.lake.turns_of(["s1", "s2"])
        it.charges.roll_up(sorted({day_of_turn(one) for one in before}))
        totals = it.total(), sum(one.cost_microusd or 0 for one in before)
        assert totals[0] == totals[1]
        it.books.add(DOUBLE, author="a", reason="r")
        report, book = it.reprice(), it.books.in_force()
        inside = [one for one in before if FIRST <= day_of_turn(one) < LAST]
        assert it.lake.turns_of(["s1", "s2"]) == [
            replace(price(one, book), charge_version=1) if one in inside else one for one in before
        ]
        assert (report["turns"], report["changed"]) == (
            len(inside),
            sum(one.cost_microusd != price(one, book).cost_microusd for one in inside),
        )
        assert it.total(0) == totals[0]
        assert (
            it.total(1)
            == it.total()
            == sum(one.cost_microusd or 0 for one in it.lake.turns_of(["s1", "s2"]))
        )
        assert spend(it.lake, [], since=FIRST, until=LAST, from_rollup=True) == spend(
            it.lake, [], since=FIRST, until=LAST
        )


def test_the_stores_are_asked_once_for_all_turns_of_a_write(tmp_path: Path) -> None:
    with ledger(tmp_path) as it:
        it.books.in_force()
        asked: list[str] = []
        event.listen(it.engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
        prices = Pricing(it.books, it.versions).now()
        assert asked
        asked.clear()
        priced = prices.price([unpriced(number) for number in range(50)], {})
        assert not asked
        assert {one.price_version for one in priced} == {it.books.in_force().version}


def test_the_drainer_keeps_prices_and_waits_for_a_re_pricing(tmp_path: Path) -> None:
    bodies = all_bodies()
    with (
        ledger(tmp_path) as it,
        Journal(tmp_path / "journal", ROOMY) as journal,
        Drainer(journal, it.lake, Pricing(it.books, it.versions)) as drainer,
    ):
        for body in bodies[: len(bodies) // 2]:
            journal.append_sync(body.signal, body.content_type, body.content)
        drainer.drain_once()
        first = it.books.in_force().version
        known = it.lake.query("SELECT session_id, turn_id FROM turns WHERE price_version <> ''")
        it.books.add(DOUBLE, author="a", reason="r")
        for body in bodies:
            journal.append_sync(body.signal, body.content_type, body.content)
        drainer.drain_once()
        rows = it.lake.query("SELECT session_id, turn_id, price_version FROM turns")
        versions = {(row["session_id"], row["turn_id"]): row["price_version"] for row in rows}
        kept = [(row["session_id"], row["turn_id"]) for row in known]
        assert {versions[key] for key in kept if key in versions} == {first}
        assert it.books.in_force().version in versions.values()
        repricing, book = it.repricing(), it.books.in_force()
        version = repricing.begin(book, "2026-01-01", "2027-01-01", author="ada", reason="r")
        assert list(repricing.rewrite(version, book, drainer.revising))[-1][0] > 0
        repricing.finish(version)
        assert version.outcome["turns"] == len(versions)
        (one,) = it.lake.query("SELECT count(DISTINCT price_version) AS n FROM turns")
        assert one["n"] == 1
        before = it.lake.versions()["turns"]
        for body in bodies:
            journal.append_sync(body.signal, body.content_type, body.content)
        drainer.drain_once()
        assert it.lake.versions()["turns"] == before  # nothing new, nothing written
