"""What every evaluator promises. A plug-in's tests subclass this and give ``evaluator``."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from evaluators.contract import CHARGED_TO, Evaluator
from evaluators.testing.trace_strategies import traces
from loop.domain.turns import SessionTrace, Turn

# Each subclass runs the inherited tests on an evaluator of its own, which keeps no state: neither
# the fixture nor the several classes make an example mean two things.
CHECKED = settings(
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
    ],
)


def _charge_anew(turn: Turn) -> Turn:
    return replace(
        turn,
        cost_microusd=7,
        price_version="later",
        charge_version=3,
        developer="another",
        org_path="elsewhere",
    )


class EvaluatorContract:
    """Total, deterministic, without memory of other traces, and honest about its evidence."""

    @pytest.fixture
    def evaluator(self) -> Evaluator:
        raise NotImplementedError

    @settings(CHECKED, max_examples=150)
    @given(trace=traces())
    def test_any_trace_gets_a_sound_score(self, evaluator: Evaluator, trace: SessionTrace) -> None:
        score = evaluator.evaluate(trace)
        assert score.session_id == trace.session_id
        assert (score.evaluator, score.evaluator_version) == (evaluator.name, evaluator.version)
        assert score.config_digest == evaluator.config_digest
        assert score.input_digest
        assert all(used.kind and used.seen >= 0 <= used.missing for used in score.evidence_used)
        assert (score.value is None) == bool(score.unscored_reason)
        assert score.value is None or 0.0 <= score.value <= 1.0
        assert 0.0 <= score.coverage <= 1.0
        known = {traced.turn.turn_id for traced in trace.turns}
        pointers = known | {prompt.prompt_id for prompt in trace.prompts}
        pointers |= {t.call.tool_use_id for traced in trace.turns for t in traced.tools}
        for finding in score.findings:
            assert finding.turn_id in known | {""}
            assert set(finding.evidence) <= pointers
            assert (finding.claim + finding.reason).isprintable()

    @settings(CHECKED, max_examples=60)
    @given(trace=traces(), other=traces())
    def test_the_same_trace_gets_the_same_score(
        self, evaluator: Evaluator, trace: SessionTrace, other: SessionTrace
    ) -> None:
        first = evaluator.evaluate(trace)
        evaluator.evaluate(other)
        assert evaluator.evaluate(copy.deepcopy(trace)) == first

    @settings(CHECKED, max_examples=60)
    @given(trace=traces())
    def test_the_trace_is_left_as_it_was(self, evaluator: Evaluator, trace: SessionTrace) -> None:
        before = copy.deepcopy(trace)
        evaluator.evaluate(trace)
        assert trace == before

    @settings(CHECKED, max_examples=40)
    @given(trace=traces())
    def test_neither_the_price_nor_who_is_charged_makes_a_difference(
        self, evaluator: Evaluator, trace: SessionTrace
    ) -> None:
        turns = [replace(traced, turn=_charge_anew(traced.turn)) for traced in trace.turns]
        attributes = {**trace.attributes, **dict.fromkeys(CHARGED_TO, "another")}
        charged = replace(trace, turns=tuple(turns), attributes=attributes)
        assert evaluator.evaluate(charged) == evaluator.evaluate(trace)

    def test_the_identity_is_plain_and_stays(self, evaluator: Evaluator) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9_.-]{0,60}", evaluator.name)
        assert evaluator.version
        assert evaluator.config_digest == evaluator.config_digest

    def test_nothing_at_all_is_unscored(self, evaluator: Evaluator) -> None:
        score = evaluator.evaluate(SessionTrace("empty", ()))
        assert score.value is None
        assert score.unscored_reason.endswith(".")
