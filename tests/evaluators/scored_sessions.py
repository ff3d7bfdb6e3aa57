"""A made-up fleet with known ways to go wrong, for the cluster tests. All of it is invented."""

from __future__ import annotations

import dataclasses
import random

from evaluators import default_evaluators
from evaluators.session_clusters import ProfiledSession
from evaluators.session_features import profile_session
from evaluators.session_quality import quality_of
from loop.domain.turns import SessionTrace
from tests.evaluators.traces import prompt, session, tool, trace, turn

MODES = ("unfaithful", "looping", "corrected", "rejected")
_ASKED = {
    "unfaithful": "Run the payment provider suite and report whether the invoices reconcile.",
    "looping": "Search the translation catalogue for missing locale keys and list them.",
    "corrected": "Refactor the database migration so that the rollback keeps the schema.",
    "rejected": "Write the release announcement into the website folder and publish.",
    "good": "Rename the helper in the parser module and check that everything works.",
}


def make_session(mode: str, number: int, generator: random.Random) -> ProfiledSession:
    """One session of ``mode``; its evaluators' real scores; a cost that grows with its number."""
    built = make_trace(mode, number, generator)
    scores = tuple(evaluator.evaluate(built) for evaluator in default_evaluators())
    profile = profile_session(built, scores)
    return ProfiledSession(profile, quality_of(scores), cost_microusd=10_000 + 100 * number)


def make_trace(mode: str, number: int, generator: random.Random) -> SessionTrace:
    """One session of ``mode``, ``good`` among them, not yet scored."""
    key = f"{mode}-{number:05d}"
    extra = " ".join(generator.sample(_ASKED[generator.choice(list(_ASKED))].split(), 2))
    built = _TRACES[mode](key, f"{_ASKED[mode]} {extra}")
    return dataclasses.replace(built, session_id=key)


def make_fleet(per_mode: int, *, good: int, seed: int = 0) -> list[ProfiledSession]:
    generator = random.Random(seed)
    fleet = [make_session(mode, n, generator) for mode in MODES for n in range(per_mode)]
    return fleet + [make_session("good", n, generator) for n in range(good)]


def _unfaithful(key: str, asked: str) -> SessionTrace:
    return session(
        tool(f"{key}-a", "Edit", "/srv/shop/a.py"),
        tool(f"{key}-b", "Bash", "pytest", False),
        claim="All tests pass.",
        asked=asked,
    )


def _looping(key: str, asked: str) -> SessionTrace:
    again = [tool(f"{key}-{n}", "Grep", f"locale {key}", True, "no matches") for n in range(9)]
    return session(*again, claim="I looked for the keys.", asked=asked)


def _corrected(key: str, asked: str) -> SessionTrace:
    return trace(
        turn(1, tool(f"{key}-a", "Edit", "/srv/shop/m.py")),
        turn(2, tool(f"{key}-b", "Bash", "git checkout -- m.py")),
        turn(3, text="I changed the migration."),
        prompts=[prompt(1, asked), prompt(4, "No, that's wrong, undo that.")],
    )


def _rejected(key: str, asked: str) -> SessionTrace:
    refused = [tool(f"{key}-{n}", "Write", f"/srv/w/{n}.md", "reject") for n in range(4)]
    return session(*refused, claim="Let me know how to go on.", asked=asked)


def _good(key: str, asked: str) -> SessionTrace:
    return session(
        tool(f"{key}-r", "Read", "/srv/shop/p.py", True, "def old(): ..."),
        tool(f"{key}-a", "Edit", "/srv/shop/p.py"),
        tool(f"{key}-b", "Bash", "pytest", True, "=== 5 passed in 0.1s ==="),
        claim="Renamed. All tests pass.",
        asked=asked,
    )


_TRACES = {
    "unfaithful": _unfaithful,
    "looping": _looping,
    "corrected": _corrected,
    "rejected": _rejected,
    "good": _good,
}
