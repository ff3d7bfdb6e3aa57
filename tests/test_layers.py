"""The storeys of the house (docs/decisions/0001): who may import whom."""

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports


def test_imports_go_down_only() -> None:
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS
