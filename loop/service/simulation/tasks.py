"""What simulated developers ask for, and the source files that it is about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from loop.service.simulation.draws import between, digest, draw, pick
from loop.service.simulation.parameters import FleetParameters

TaskKind = Literal["lookup", "fix", "change"]

PACKAGES = ("billing", "catalog", "ingest", "accounts", "search", "reports")
MODULES = ("rounding", "limits", "windows", "quotas", "ranking", "retries", "batches", "pages")
TEST_COMMAND = "python -m pytest -q"
SUBAGENT_REQUEST = "Use a subagent to find every caller first."


@dataclass(frozen=True, slots=True)
class Defect:
    """A line with a bug, the line that mends it and a plausible line that doesn't."""

    faulty: str
    right: str
    wrong: str
    summary: str  # what the right line does


DEFECTS = (
    Defect(
        "    return [value for value in values if value < LIMIT]",
        "    return [value for value in values if value <= LIMIT]",
        "    return [value for value in values if value < LIMIT - 1]",
        "keeps values that equal the limit",
    ),
    Defect(
        "    return values[start : start + LIMIT - 1]",
        "    return values[start : start + LIMIT]",
        "    return values[start + 1 : start + LIMIT]",
        "no longer drops the last value of the window",
    ),
    Defect(
        "    return sum(values) + len(values) * LIMIT",
        "    return sum(values) - len(values) * LIMIT",
        "    return sum(values) - LIMIT",
        "subtracts the limit per value instead of adding it",
    ),
)

_SMALL_FIXES = (
    "Fix {function}() in {path}.",
    "{function}() in {path} is off, please fix it.",
    "The test of {function}() in {path} fails. Fix it.",
    "{function}() in {path} gives wrong results since Monday; fix.",
)
_LOOKUPS = (
    "What is LIMIT set to in {path}?",
    "Which value does LIMIT have in {path} right now?",
    "Look up LIMIT in {path}: what is it?",
)
_OPENING = (
    "We need {function}() in {path} to behave as the specification says, and today it doesn't: "
    "the totals that it feeds are wrong for some customers."
)
_DETAILS = (
    "The nightly report shows a difference for every batch that touches the limit exactly.",
    "Keep the public signature as it is, three services import this function by name.",
    "The values arrive unsorted and may hold duplicates; neither may be lost on the way.",
    "Do not change how the limit itself is configured, operations own that constant.",
    "An empty input must give an empty result and must not raise anything.",
    "Please look at the callers as well, one of them compensates for the fault by hand.",
    "The old behaviour is pinned in two tests that encode the mistake; correct those tests.",
    "Large inputs are common, so stay linear in the number of values and do not copy them twice.",
    "When you are done, run the whole test suite and tell me what it says.",
    "Mention in your summary which customers were affected, by what singles them out.",
    "The previous attempt changed the constant, which broke the importer; it was reverted.",
    "Write the change so that the reviewer sees the rule in one line, without helper classes.",
)
_PATH = re.compile(r"\b[a-z_]+/[a-z_]+\.py\b")


@dataclass(frozen=True, slots=True)
class Task:
    """One human prompt and what it is about."""

    kind: TaskKind
    text: str
    path: str  # inside the repository
    uses_subagent: bool = False

    @property
    def function(self) -> str:
        return function_of(self.path)


def make_task(parameters: FleetParameters, *names: object) -> Task:
    """The task that these names stand for. Every prompt is unique to its names."""
    path = f"{pick(PACKAGES, 'package', *names)}/{pick(MODULES, 'module', *names)}.py"
    facts = {"path": path, "function": function_of(path)}
    if draw("change", *names) < parameters.change_share:
        uses_subagent = draw("subagent", *names) < parameters.subagent_share
        target = int(between(*parameters.change_prompt_chars, "length", *names))
        text = _OPENING.format(**facts) + (f" {SUBAGENT_REQUEST}" if uses_subagent else "")
        for position in range(len(_DETAILS) * 4):
            if len(text) >= target:
                break
            text += " " + pick(_DETAILS, "detail", position, *names)
        return Task("change", _ticket(text, target, names), path, uses_subagent)
    is_lookup = draw("lookup", *names) < parameters.lookup_share
    template = pick(_LOOKUPS if is_lookup else _SMALL_FIXES, "template", *names)
    text = template.format(**facts)
    target = int(between(*parameters.small_prompt_chars, "length", *names))
    return Task("lookup" if is_lookup else "fix", _ticket(text, target, names), path)


def kind_of(text: str) -> TaskKind:
    """What a prompt asks for, as a reader would tell."""
    if "LIMIT" in text and "?" in text:
        return "lookup"
    return "change" if text.startswith("We need") else "fix"


def path_in(text: str) -> str:
    """The first source path that a prompt names, or ``""``."""
    found = _PATH.search(text)
    return found.group() if found else ""


def function_of(path: str) -> str:
    package, module = path.removesuffix(".py").split("/")[-2:]
    return f"{module}_of_{package}"


def defect_of(repository: str, path: str) -> Defect:
    return pick(DEFECTS, "defect", repository, path)


def limit_of(repository: str, path: str) -> int:
    return 10 + int(draw("limit", repository, path) * 90)


@lru_cache(maxsize=4096)
def source_of(repository: str, path: str, file_chars: tuple[int, int]) -> str:
    """The file as it is before anyone edits it."""
    lines = [
        f'"""{path.removesuffix(".py")}: rules of {repository} (simulated source)."""',
        "",
        f"LIMIT = {limit_of(repository, path)}",
        "",
        "",
        f"def {function_of(path)}(values, start=0):",
        '    """Apply the limit to the values."""',
        defect_of(repository, path).faulty,
        "",
    ]
    target = between(*file_chars, "file", repository, path)
    size = sum(len(line) + 1 for line in lines)
    number = 0
    while size < target:
        number += 1
        name = f"step_{number}_{digest(6, repository, path, number)}"
        filler = [
            "",
            f"def {name}(record):",
            f'    """Step {number} of the pipeline."""',
            f'    return record.get("{name}", {number})',
            "",
        ]
        lines += filler
        size += sum(len(line) + 1 for line in filler)
    return "\n".join(lines)


def test_file_of(path: str) -> str:
    """``billing/pages.py`` is tested by ``tests/test_billing_pages.py``."""
    return f"tests/test_{path.replace('/', '_')}"


def test_source_of(repository: str, path: str) -> str:
    function = function_of(path)
    cases = "".join(
        f"\n\ndef test_{function}_{number}():\n"
        f"    assert {function}({[number, number + 1, limit_of(repository, path)]}) is not None\n"
        for number in range(3 + int(draw("cases", repository, path) * 12))
    )
    return f"from {path.removesuffix('.py').replace('/', '.')} import {function}\n{cases}"


def _ticket(text: str, target: int, names: tuple[object, ...]) -> str:
    """Ends the prompt with a ticket number, which makes it unique, and trims or pads it."""
    ticket = f" (SIM-{digest(6, 'ticket', *names)})"
    room = max(target - len(ticket), 0)
    if len(text) > room and text.startswith("We need"):
        text = text[:room].rstrip()
    elif len(text) < room:
        text = (text + " Thanks, and keep the change as small as it can be, please.")[
            :room
        ].rstrip()
    return text + ticket
