from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.service.printing import Column, plain, print_json, print_rows, show


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("bell\x07 and\x00nul", "bell andnul"),
        ("tabs\tand\nnewlines stay", "tabs\tand\nnewlines stay"),
        ("\x9b31mc1", "31mc1"),
    ],
)
def test_terminal_escapes_are_removed(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text())
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    left = plain(text)
    assert not any(ord(char) < 32 and char not in "\t\n" for char in left)
    assert "\x7f" not in left
    assert not any(0x80 <= ord(char) <= 0x9F for char in left)


def test_unknown_is_not_zero() -> None:
    assert show(None, "money") == "–"
    assert show(0, "money") == "$0.0000"
    assert show(1_234_567, "money") == "$1.2346"
    assert show(1_234_567, "count") == "1,234,567"
    assert show(0.5, "share") == "50.00 %"
    assert show(0, "time") == "1970-01-01 00:00:00"
    assert show(["a", "b"]) == "a, b"


def test_numbers_of_a_table_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"name": "n" * 300, "count": 123_456_789_012}
    columns = [Column("name", "name"), Column("count", "count", "count")]
    print_rows([row], columns, "nothing")
    assert "123,456,789,012" in capsys.readouterr().out


def test_an_empty_table_says_so_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], [Column("name", "name")], "Nothing yet.")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Nothing yet." in captured.err


def test_json_goes_to_stdout_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"rows": [{"name": "ü"}], "next": None})
    assert json.loads(capsys.readouterr().out) == {"rows": [{"name": "ü"}], "next": None}
