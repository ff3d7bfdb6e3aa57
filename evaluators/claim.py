"""One checkable assertion of an assistant's text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ClaimKind = Literal[
    "tests", "lint", "types", "build", "all_checks", "file", "commit", "push", "pr",
    "failure", "literal", "line", "quote", "exists", "version",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claim:
    """One assertion.

    ``total``: it speaks of all tests; ``count``: the number it names; ``qualified``: it speaks of
    some kind of test only, which the words or paths in ``scope`` name if any do. ``subject`` is the
    file, commit, name or expression, "hooks" for a check that commit hooks ran; ``value`` a
    literal: a number, a line, code.
    """

    kind: ClaimKind
    words: str
    total: bool = False
    count: int | None = None
    qualified: bool = False
    subject: str = ""
    value: str = ""
    scope: tuple[str, ...] = ()
