"""Texts of public sets: what has no source stays unscored, whatever it claims."""

from __future__ import annotations

import pytest

from bench.public_texts import JudgedText, measure_texts, number_overlap, to_trace, word_overlap
from evaluators.faithfulness import Faithfulness


def made(number: int, *, source: str | None, is_good: bool = True) -> JudgedText:
    text = f"All {number} tests pass, and revenue grew by {number} %."
    return JudgedText(f"t{number}", source, text, is_good, f"g{number}", "part")


@pytest.mark.parametrize("source", [None, "Revenue grew by 3 %."])
def test_a_claim_of_a_run_that_nobody_made_is_not_scored_from_a_text(source: str | None) -> None:
    score = Faithfulness().evaluate(to_trace(made(3, source=None)))
    assert score.value is None
    found = measure_texts([made(number, source=source) for number in range(4)], draws=10)
    assert found["texts"] == found["good"] == 4
    if source is None:
        assert found["scored"] == 0
        assert sum(row["runs"] for row in found["unscored"]) == 4
        assert [row["predictor"] for row in found["rows"]] == ["faithfulness", "shorter text"]
    else:
        assert [row["predictor"] for row in found["rows"]][1:3] == [
            "word overlap",
            "number overlap",
        ]


def test_the_floors_are_shares_of_what_the_text_says() -> None:
    item = JudgedText("t", "Grew 20.9% in May to 3,515.", "Grew 20.9% in June to 3,515", True, "g")
    assert word_overlap(item) == pytest.approx(3 / 4)
    assert number_overlap(item) == 1.0
    assert number_overlap(JudgedText("t", "1", "none", True, "g")) == 1.0


def test_floors_tell_apart_what_differs_in_a_number() -> None:
    source = "It had 7 wheels."
    items = [
        JudgedText(f"t{n}", source, f"It had {7 if n % 2 else 8} wheels.", n % 2 == 1, f"g{n}")
        for n in range(40)
    ]
    rows = {row["predictor"]: row for row in measure_texts(items, draws=20)["rows"]}
    assert rows["number overlap"]["estimate"] == 1.0
    assert rows["word overlap"]["estimate"] == 0.5
