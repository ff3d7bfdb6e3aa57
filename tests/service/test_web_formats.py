"""Numbers, money and times as people read them, with the exact value kept."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.service.web import formats
from loop.service.web.responses import path_of, query_of


@given(st.integers(min_value=-(10**15), max_value=10**15), st.integers(0, 5))
def test_money_keeps_every_micro_dollar_in_its_title(microusd: int, unpriced: int) -> None:
    shown = str(formats.money(microusd, unpriced))
    exact = re.search(r'title="([-0-9,]+) micro-dollars"', shown)
    assert exact is not None
    assert int(exact.group(1).replace(",", "")) == microusd
    assert ("unpriced" in shown) == (unpriced > 0)


def test_no_price_is_never_no_cost() -> None:
    assert "$" not in formats.money(None)
    assert "unpriced" in formats.money(None)


@pytest.mark.parametrize(
    ("microusd", "words"),
    [
        (0, "$0.00"),
        (1, "<$0.0001"),
        (1_234, "$0.0012"),
        (1_234_567, "$1.23"),
        (-2_500_000, "−$2.50"),
        (12_345_678_901, "$12,345.68"),
    ],
)
def test_dollars(microusd: int, words: str) -> None:
    assert formats.dollars(microusd) == words


@given(st.text() | st.text(st.characters(categories=["Cs", "Cf", "Cc", "Ll"])))
def test_untrusted_text_is_left_with_nothing_hidden(text: str) -> None:
    shown = formats.visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]", shown)
    assert formats.visible(shown) == shown
    shown.encode()  # raises on what could not be sent


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (0.2308, "23.1 %"),
        (0.00025, "0.025 %"),
        (0.0011, "0.11 %"),
        (0.9997, "99.970 %"),
        (1.0, "100 %"),
        (0, "0 %"),
    ],
)
def test_shares(part: float, words: str) -> None:
    assert f">{words}<" in formats.share(part)


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (999, "999"), (1_234, "1.23 k"), (90_500, "90.5 k"), (123_456_789, "123 M")],
)
def test_brief_numbers_have_three_digits(number: int, words: str) -> None:
    shown = str(formats.brief(number))
    assert words in shown
    assert number < 1_000 or f'title="{number:,}"' in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "now"), (14, "14 s ago"), (3_600, "1 h ago"), (200_000, "2 d ago"), (-30, "30 s ahead")],
)
def test_times_in_lists_are_relative(seconds: int, words: str) -> None:
    now_us = 1_763_900_000_000_000
    assert f">{words}<" in formats.ago(now_us - seconds * 1_000_000, now_us)
    assert formats.ago(None, now_us) == "never"


def test_a_difference_has_its_sign() -> None:
    assert formats.points(-0.003) == "−0.3 pt"
    assert formats.points(0.02) == "+2.0 pt"
    assert formats.points(-0.0) == formats.points(-0.0004) == "0.0 pt"
    assert formats.points(None) == formats.UNKNOWN


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(12, "12 ms"), (2_345, "2.3 s"), (125_000, "2 min 5 s"), (None, formats.UNKNOWN)],
)
def test_durations(milliseconds: int | None, words: str) -> None:
    assert formats.duration(milliseconds) == words


def test_a_long_text_says_how_long_it_was() -> None:
    shown = formats.cut("x" * 10_000, 100)
    assert shown.startswith("x" * 100 + "\n")
    assert "100 of 10,000" in shown
    assert formats.cut("short") == "short"


def test_a_repository_is_named_by_its_owner_and_name() -> None:
    assert ">acme/shop<" in formats.repository("https://git.example/acme/shop/")
    assert 'title="https://git.example/acme/shop"' in formats.repository(
        "https://git.example/acme/shop"
    )
    assert formats.repository("unattributed") == "unattributed"
    assert "<b>" not in formats.repository("https://x/<b>/y")


def test_addresses_quote_what_an_identifier_holds() -> None:
    assert path_of("sessions", "a/../b?c#d") == "/sessions/a%2F..%2Fb%3Fc%23d"
    assert query_of({"a": "x&y", "b": None, "c": ""}) == "?a=x%26y"
    assert query_of({"a": None}) == ""
