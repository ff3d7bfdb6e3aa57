"""The provider's reports: read exactly, fetched with patience, the residual given its reasons."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from loop.control.store import open_control_store
from loop.domain.errors import BadInput, Corrupt, Refused, Unavailable
from loop.domain.money import Price, PriceBook
from loop.domain.turns import TokenUsage, Turn
from loop.lake import Lake
from loop.ledger import reconciliation as reasons
from loop.ledger.admin_api import ATTEMPTS, PATHS, AdminApi
from loop.ledger.billing_reports import BilledLine, BillingReport, read_pages, read_report
from loop.ledger.billing_store import BillingStore
from loop.ledger.price_book_store import PriceBookStore
from loop.ledger.pricing import Pricing
from loop.ledger.reconciliation import Reconciliation, reconcile
from loop.ledger.statements import Month
from tests.contracts.admin_api import DOCUMENTED_COST, DOCUMENTED_USAGE, check_page
from tests.fakes.admin_api import KEY, FakeAdminApi, fake_admin_api
from tests.lake.lake_records import turn

MONTH = Month.parse("2025-11")
DAY, NEXT = "2025-11-23", "2025-11-24"
MODEL = "claude-opus-4-7"
BOOK = PriceBook(
    "b", [Price(MODEL, "2020-01-01", 5_000_000, 25_000_000, 500_000, 6_250_000, 10**7)]
)
USAGE_CSV = (
    "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,"
    "usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
    "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,"
    "web_search_count,inference_geo,speed\n"
    "2025-11-23,claude-opus-4-7,k,Default,standard,≤ 200k,1000,1,2,3,100,4,not_available,\n"
    "2025-11-23,claude-opus-4-7-20260416,l,Default,standard,≤ 200k,500,0,0,0,0,0,not_available,\n"
)
COST_CSV = (
    "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,"
    "list_price_usd,cost_type,inference_geo,speed\n"
    "2025-11-23,Claude Opus 4.7,Default,k,message,≤ 200k,input_no_cache,0.05,0.05,token,,\n"
    "2025-11-23,Claude Opus 4.7,Default,l,message,≤ 200k,input_no_cache,0.0025,0.01,token,,\n"
    "2025-11-24,Claude Opus 4.7,Default,k,message,≤ 200k,input_cache_write_1h,1.5,1.5,token,,\n"
)


@pytest.fixture
def api() -> Iterator[FakeAdminApi]:
    with fake_admin_api() as server:
        yield server


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_control_store(f"sqlite:///{tmp_path / 'control.db'}")
    yield engine
    engine.dispose()


def amounts(report: BillingReport) -> dict[tuple[str, str, str], tuple[int, str]]:
    return {(x.day, x.model, x.kind): (x.tokens, x.usd) for x in report.lines}


def test_the_documented_answers_are_read() -> None:
    check_page(DOCUMENTED_USAGE, "usage")
    check_page(DOCUMENTED_COST, "cost")
    usage = read_report(json.dumps(DOCUMENTED_USAGE), "usage.json")
    model = "claude-sonnet-4"
    assert {kind: tokens for (_, _, kind), (tokens, _) in amounts(usage).items()} == {
        "input_tokens": 1500,
        "output_tokens": 500,
        "cache_read_tokens": 200,
        "cache_creation_5m_tokens": 500,
        "cache_creation_1h_tokens": 1000,
        "web_search": 10,
    }
    cost = read_report(json.dumps([DOCUMENTED_COST]), "cost.json")
    assert amounts(cost) == {("2025-08-01", model, "input_tokens"): (0, "1.2378912")}  # cents


def test_the_consoles_exports_are_read() -> None:
    usage, cost = read_report("\ufeff" + USAGE_CSV, "u.csv"), read_report(COST_CSV, "c.csv")
    assert (usage.kind, usage.days, cost.kind, cost.days) == ("usage", (DAY,), "cost", (DAY, NEXT))
    assert amounts(usage)[DAY, MODEL, "input_tokens"] == (1500, "0")
    assert amounts(usage)[DAY, MODEL, "web_search"] == (4, "0")
    assert amounts(cost) == {
        (DAY, MODEL, "input_tokens"): (0, "0.0525"),
        (NEXT, MODEL, "cache_creation_1h_tokens"): (0, "1.5"),
    }
    for report in (usage, cost):
        document = json.loads(json.dumps(report.to_document()))
        assert BillingReport.from_document(document) == report


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "{",
        "[]",
        '{"data": 1}',
        '{"data": [{"results": []}]}',
        '{"data": [{"starting_at": "soon", "results": []}]}',
        '{"data": [{"starting_at": "2025-11-01T00:00:00Z", "results": [{"amount": "x"}]}]}',
        COST_CSV.replace("0.0025", "much"),
        COST_CSV.replace("2025-11-24", "Monday"),
        COST_CSV.replace("input_no_cache", "colour"),
        USAGE_CSV.replace("1000", "-5"),
    ],
)
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        read_report(text, "it")


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(BadInput):
        read_report(text, "it")


def test_all_pages_are_fetched_with_the_documented_requests(api: FakeAdminApi) -> None:
    api.page_days = 7
    api.usage(DAY, "claude-opus-4-7-20260416", input_tokens=5)
    api.cost("2025-11-30", MODEL, "output_tokens", "250")
    api.failures += [(429, {"retry-after": "3"}), (529, {}), (500, {"retry-after": "soon"})]
    pauses: list[float] = []
    with AdminApi(api.url, KEY, sleep=pauses.append) as client:
        usage, cost = client.fetch("usage", MONTH, ("ws_1",)), client.fetch("cost", MONTH)
    assert pauses == [3.0, 1.0, 2.0]
    assert usage.days == cost.days == tuple(MONTH.days())
    assert amounts(usage) == {(DAY, MODEL, "input_tokens"): (5, "0")}
    assert amounts(cost) == {("2025-11-30", MODEL, "output_tokens"): (0, "2.5")}
    path, query, headers = api.requests[3]
    assert (path, headers["anthropic-version"]) == (PATHS["usage"], "2023-06-01")
    assert query["group_by[]"] == ["model", "service_tier"]
    assert query["workspace_ids[]"] == ["ws_1"]
    assert (query["starting_at"], query["ending_at"], query["bucket_width"]) == (
        ["2025-11-01T00:00:00Z"],
        ["2025-12-01T00:00:00Z"],
        ["1d"],
    )
    assert len(api.requests) == 3 + 5 + 5
    for kind in PATHS:
        first = {k: v for k, v in query.items() if k != "page"}
        check_page(api.page(kind, first), kind)
        check_page(api.page(kind, first | {"page": ["2025-11-29"]}), kind)


def test_a_provider_that_is_away_or_refuses_is_said_to(api: FakeAdminApi) -> None:
    with AdminApi(api.url, "wrong") as client, pytest.raises(Refused, match="refuses this key"):
        client.fetch("usage", MONTH)
    with AdminApi(api.url, KEY, sleep=lambda _: None) as client:
        api.failures += [(503, {})] * ATTEMPTS
        with pytest.raises(Unavailable, match="does not answer"):
            client.fetch("cost", MONTH)
        assert len(api.requests) == 1 + ATTEMPTS
        api.failures += [(302, {"location": "http://127.0.0.1:9/"})]
        with pytest.raises(Unavailable, match="302"):
            client.fetch("cost", MONTH)
        api.endless = True
        with pytest.raises(Corrupt, match="do not end"):
            client.fetch("cost", MONTH)


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://api.example.com", KEY),
        ("ftp://127.0.0.1", KEY),
        ("https://user:pass@api.example.com", KEY),
        ("api.example.com", KEY),
        ("https://api.example.com", ""),
    ],
)
def test_only_a_safe_address_and_a_key_are_used(url: str, key: str) -> None:
    with pytest.raises(BadInput):
        AdminApi(url, key)


def test_the_newest_report_of_a_day_rules(engine: Engine) -> None:
    store = BillingStore(engine)
    first = read_report(COST_CSV, "a.csv")
    assert [store.add(first, "ada"), store.add(first, "ada")] == [1, 1]
    newer = BillingReport("cost", "b.csv", (DAY,), (BilledLine(DAY, MODEL, "tokens", "", 0, "9"),))
    assert store.add(newer, "ada") == 2
    lines = store.lines(MONTH, "cost")
    assert {day: [line.usd for line in found] for day, found in lines.items()} == {
        DAY: ["9"],
        NEXT: ["1.5"],
    }
    assert store.lines(MONTH, "usage") == {}
    assert store.lines(Month.parse("2025-12"), "cost") == {}


def compared(
    folder: Path, turns: list[Turn], usage: list[BilledLine], cost: list[BilledLine]
) -> Reconciliation:
    engine = open_control_store(f"sqlite:///{folder / 'control.db'}")
    books, lake = PriceBookStore(engine, BOOK), Lake.open(str(folder / "lake"))

    class NoRepricing:
        def currently(self) -> Callable[[str], int]:
            return lambda day: 0

    lake.write_turns(Pricing(books, NoRepricing()).now().price(turns, {}), [], revision=1)
    by_day = [
        {day: [line for line in lines if line.day == day] for day in (DAY, NEXT)} if lines else {}
        for lines in (usage, cost)
    ]
    found = reconcile(lake, books, MONTH, *by_day)
    engine.dispose()
    return found


def used(number: int, tokens: int, **given_: Any) -> Turn:
    fields = {
        "cost_microusd": None,
        "usage": TokenUsage(tokens),
        "started_at_us": turn(0).started_at_us,
    }
    return turn(number, **(fields | given_))


def billed(day: str, tokens: int, usd: str, **given_: str) -> tuple[BilledLine, BilledLine]:
    fields = {"model": MODEL, "kind": "input_tokens", "service_tier": "standard"} | given_
    return (
        BilledLine(day, tokens=tokens, usd="0", **fields),
        BilledLine(day, tokens=0, usd=usd, **fields),
    )


@pytest.mark.parametrize(
    ("tokens", "lines", "reason", "residual"),
    [
        ([1_000_000], [(DAY, 1_000_000, "5")], None, 0),
        ([1_000_000], [(DAY, 1_000_000, "5.0004")], reasons.OTHER_PRICE, 400),
        ([1_000_000], [(DAY, 1_000_000, "4.00")], reasons.OTHER_PRICE, -1_000_000),
        ([1_000_100], [(DAY, 1_000_100, "5.00")], reasons.ROUNDING, -500),
        ([1_000_000], [(DAY, 1_200_000, "6")], reasons.MISSING, 1_000_000),
        ([], [(DAY, 1_000_000, "5")], reasons.NO_TELEMETRY, 5_000_000),
        ([1_000_000], [(DAY, 900_000, "4.5")], reasons.NOT_REPORTED, -500_000),
        (
            [1_000_000],
            [(DAY, 400_000, "2"), (NEXT, 600_000, "3")],
            reasons.OTHER_DAY,
            0,
        ),
    ],
)
def test_a_residual_has_its_reason(
    tmp_path: Path,
    tokens: list[int],
    lines: list[tuple[str, int, str]],
    reason: str | None,
    residual: int,
) -> None:
    pairs = [billed(*line) for line in lines]
    turns = [used(n, count) for n, count in enumerate(tokens)]
    found = compared(tmp_path, turns, [u for u, _ in pairs], [c for _, c in pairs])
    assert found.residual_microusd == residual
    assert sum(row["microusd"] for row in found.reasons()) == residual
    told = {why for row in found.rows for why in row["reasons"]}
    assert told == ({reason} if reason else set()) or reason in told
    if residual and reason:
        assert found.reasons()[0]["reason"] == reason
    assert found.exceeds(0.0) == (residual != 0)


def test_unpriced_priority_and_what_is_not_of_tokens(tmp_path: Path) -> None:
    strange = used(1, 1000, served_model="claude-new", requested_model="claude-new")
    usage = [
        billed(DAY, 1000, "0", model="claude-new")[0],
        billed(DAY, 50, "0", service_tier="priority")[0],
    ]
    cost = [
        billed(DAY, 0, "0.01", model="claude-new")[1],
        billed(DAY, 0, "0.75", model="", kind="code_execution")[1],
    ]
    found = compared(tmp_path, [strange, used(2, 50)], usage, cost)
    why = {(row["model"], row["class"]): row["reasons"] for row in found.rows}
    assert why["claude-new", "input_tokens"] == [reasons.UNPRICED]
    assert why["", "code_execution"] == [reasons.NOT_TOKENS]
    assert why[MODEL, "input_tokens"] == [reasons.PRIORITY]
    assert found.residual_microusd == 10_000 + 750_000 - 250
    assert sum(row["microusd"] for row in found.reasons()) == found.residual_microusd


def test_days_without_a_report_are_not_compared(tmp_path: Path) -> None:
    usage = [billed(DAY, 1000, "0")[0]]
    elsewhere = used(2, 5, started_at_us=turn(0).started_at_us - 5 * 86_400_000_000)
    found = compared(tmp_path, [used(1, 1000), elsewhere], usage, [])
    assert [row["day"] for row in found.rows] == [DAY]
    assert found.rows[0]["billed_microusd"] is None
    assert (found.residual_share, found.exceeds(0.0)) == (0.0, False)


def test_what_a_page_lacks_is_said() -> None:
    with pytest.raises(BadInput, match="no line"):
        read_pages([{"data": []}], "it")
    assert read_pages([{"data": []}], "it", "cost").days == ()
