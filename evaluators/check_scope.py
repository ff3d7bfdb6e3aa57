"""Which run does a claim mean? "Unit tests", "the parser tests", "ruff", "`npm run build`"."""

from __future__ import annotations

import re

from evaluators.claim import Claim
from evaluators.edit_reach import language_of
from evaluators.evidence import Check

_PLACE = re.compile(r"(?:^|[\s;&(])(?:cd|-C|--prefix|--filter|--dir|--cwd|-w)[ =](\S+)")
_FORMATTERS = re.compile(r"prettier|^black|format|gofmt|^isort|[:-]fmt")
_OTHER_SUITES = re.compile(r"(?i)e2e|integration|playwright|cypress|functional|acceptance|smoke")
_LANGUAGE_WORDS = {
    "python": "python", "pytest": "python", "unittest": "python", "go": "go", "golang": "go",
    "rust": "rust", "cargo": "rust", "javascript": "web", "typescript": "web", "js": "web",
    "ts": "web", "node": "web", "jest": "web", "vitest": "web", "mocha": "web", "frontend": "web",
    "react": "web", "java": "jvm", "kotlin": "jvm", "gradle": "jvm", "maven": "jvm", "ruby": "ruby",
    "rspec": "ruby", "php": "php", "elixir": "elixir", "swift": "swift",
}  # fmt: skip
_BROWSER = frozenset(("e2e", "end-to-end", "browser", "ui", "acceptance"))
_TOOLS = frozenset((
    "eslint", "ruff", "golangci-lint", "clippy", "credo", "biome", "flake8", "pylint", "rubocop",
    "tsc", "mypy", "pyright", "pytest", "jest", "vitest", "unittest", "playwright", "cypress",
))  # fmt: skip


def is_formatter(runner: str) -> bool:
    return _FORMATTERS.search(runner) is not None


def fits(check: Check, claim: Claim) -> bool | None:
    """Is ``check`` what the words of the claim's scope name? ``None``: it may be, among others."""
    if not claim.scope or claim.scope == ("existing",):
        return True
    answers = [_fits_word(check, word) for word in claim.scope if word != "existing"]
    if False in answers:
        return False
    return True if all(answers) else None


def place_of(check: Check) -> tuple[str, ...]:
    """The folder or package that the command line names for its run, empty for none."""
    return tuple(
        name.strip("'\"").rstrip("/").rsplit("/", 1)[-1]
        for name in _PLACE.findall(check.step.command or "")
        if name.strip("'\"").rstrip("/.") and not name.startswith(("/", "~", "$", "-"))
    )


def _fits_word(check: Check, word: str) -> bool | None:
    command = (check.step.command or "").lower()
    lowered = word.lower()
    if lowered == "formatting":
        return is_formatter(check.runner)
    if lowered in _BROWSER and check.runner in ("playwright", "cypress"):
        return True
    if " " in lowered:  # a command line
        if re.search(re.escape(lowered) + r"(?![\w:-])", " ".join(command.split())):
            return True
        first = lowered.split()[0]
        return None if first in command or check.runner.startswith(first) else False
    if lowered in _TOOLS and lowered in check.runner:
        return True
    language = _LANGUAGE_WORDS.get(lowered)
    runs = language_of(check.runner)
    if language is not None and runs is not None:
        return language == runs if lowered not in _TOOLS else (None if language == runs else False)
    if lowered in _TOOLS and runs is not None:
        return False
    if lowered == "unit":
        return not _OTHER_SUITES.search(command)
    name = lowered.rstrip("/").rsplit("/", 1)[-1] if "/" in lowered else lowered
    name = re.sub(r"\.\w{1,5}$", "", name)
    if len(name) > 1:
        named = rf"(?<![a-z0-9]){re.escape(name)}(?![a-z])"
        if re.search(named, command):
            return True
        if check.outcome == "failed" and re.search(
            rf"(?im)^[^\n]{{0,300}}(?:fail|error|✗|✘|✕|✖|●|not ok)[^\n]{{0,300}}?{named}",
            check.output[-8_000:],
        ):
            return True
    if check.subset:
        return False if _names_one_file(command) else None
    return None


def _names_one_file(command: str) -> bool:
    return (
        re.search(
            r"\btests?[\w/-]*/[\w/-]+\.\w{1,4}\b|[\w-]+[._]test\.\w{2,3}\b|\btest_\w+\.py\b",
            command,
        )
        is not None
    )
