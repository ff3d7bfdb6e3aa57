"""Price books in the control store: immutable versions, the newest in force."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from loop.control.store import open_control_store
from loop.domain.errors import BadInput, Conflict, Corrupt, NotFound
from loop.domain.money import Price, PriceBook
from loop.ledger.charge_versions import ChargeVersionStore
from loop.ledger.price_book_store import PriceBookStore
from tests.servers.postgres_server import postgres_server

CHEAP = Price("m", "2026-01-01", 1, 1, 1, 1, 1)
DEAR = replace(CHEAP, effective_from="2026-06-01", input_microusd=2)
BASE = PriceBook("shipped-1", [CHEAP])


@pytest.fixture(scope="module")
def postgres() -> Iterator[Engine]:
    with postgres_server() as url:
        engine = open_control_store(url)
        yield engine
        engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "postgres":
        engine = request.getfixturevalue("postgres")
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM price_books"))
            connection.execute(text("DELETE FROM charge_versions"))
        yield engine
        return
    engine = open_control_store(f"sqlite:///{tmp_path / 'control.db'}")
    yield engine
    engine.dispose()


def test_each_change_is_a_version_and_none_is_lost(engine: Engine) -> None:
    store = PriceBookStore(engine, BASE)
    first = store.in_force()
    second = store.add([DEAR], author="ada", reason="a new list")
    assert second.version.startswith("v2-")
    for again in (store, PriceBookStore(engine, BASE)):
        assert again.in_force().prices() == (CHEAP, DEAR)
        assert again.find(first.version).prices() == (CHEAP,)
        assert again.find("1").version == first.version
    assert [(v.number, v.author, v.reason) for v in store.versions()] == [
        (2, "ada", "a new list"),
        (1, "turnwise", "the prices of shipped-1"),
    ]
    assert store.add([DEAR], author="ada", reason="again") is second
    with pytest.raises(NotFound):
        store.find("v1-000000000000")
    with pytest.raises(NotFound):
        store.book(9)
    with pytest.raises(BadInput):
        store.add([CHEAP], author=" ", reason="r")


def test_a_new_base_goes_under_what_was_set_by_hand(engine: Engine) -> None:
    own = replace(CHEAP, model="own")
    PriceBookStore(engine, BASE).add([own], author="ada", reason="ours")
    later = PriceBookStore(engine, PriceBook("shipped-2", [replace(CHEAP, input_microusd=9), DEAR]))
    assert later.in_force().version.startswith("v3-")
    assert {price.model: price.input_microusd for price in later.in_force().prices()} == {
        "m": 2,
        "own": 1,
    }
    assert later.in_force().find("m", "2026-05-31") == replace(CHEAP, input_microusd=9)
    assert len(PriceBookStore(engine, PriceBook("x", later._base.prices())).versions()) == 3


def test_two_changes_at_once_are_both_kept(engine: Engine) -> None:
    stores = [PriceBookStore(engine, BASE) for _ in range(4)]

    def add(number: int) -> None:
        stores[number].add([replace(CHEAP, model=f"m{number}")], author="a", reason="r")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert stores[0].in_force().models() == ("m", "m0", "m1", "m2", "m3")


def test_a_change_of_another_book_than_was_looked_at_is_refused(engine: Engine) -> None:
    store = PriceBookStore(engine, BASE)
    seen = store.in_force().version
    store.add([DEAR], author="a", reason="r", expected=seen)
    with pytest.raises(Conflict):
        store.add([replace(CHEAP, model="n")], author="a", reason="r", expected=seen)


def test_a_book_that_was_edited_is_refused(engine: Engine) -> None:
    PriceBookStore(engine, BASE).in_force()
    with engine.begin() as connection:
        edit = "UPDATE price_books SET prices = replace(prices, '2026-01-01', '2026-01-02')"
        connection.execute(text(edit))
    with pytest.raises(Corrupt):
        PriceBookStore(engine, BASE).in_force()


def test_a_charge_version_holds_on_its_days(engine: Engine) -> None:
    versions = ChargeVersionStore(engine)
    assert versions.currently()("2026-11-01") == 0

    def begin(first: str, last: str) -> int:
        return versions.begin(
            first, last, "v1-x", author="a", reason="r", outcome={"turns": 3}
        ).version

    assert begin("2026-11-01", "2026-12-01") == 1
    assert begin("2026-11-01", "2026-12-01") == 1  # goes on with the one that did not end
    with pytest.raises(Conflict, match="has not come to its end"):
        begin("2026-11-02", "2026-12-01")
    versions.mark_rewritten(1)
    versions.finish(1)
    assert begin("2026-11-10", "2026-11-11") == 2
    days = ["2026-10-31", "2026-11-01", "2026-11-10", "2026-11-30", "2026-12-01"]
    assert list(map(versions.currently(), days)) == [0, 1, 2, 1, 0]
    assert versions.get(1).outcome == {"turns": 3}
    with pytest.raises(NotFound):
        versions.get(3)
