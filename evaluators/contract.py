"""What every evaluator is: a pure function from a session's trace to a score.

An evaluator never raises for an odd trace. Where evidence lacks it answers *unscored* and says
why; it never guesses a middle value. The contract test class (``tests/contracts/evaluator.py``)
holds each implementation to this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

from loop.domain.scores import Finding, Score
from loop.domain.turns import SessionTrace


class Evaluator(Protocol):
    """One way to judge a session.

    ``name`` and ``version`` identify the judgement: scores of different versions are never
    mixed in one comparison. ``evaluate`` is deterministic, reads nothing but its argument and
    returns a score in [0, 1] or an unscored reason; every id in a finding's ``evidence`` and
    ``turn_id`` exists in the trace.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def evaluate(self, trace: SessionTrace) -> Score: ...


_digested: tuple[SessionTrace | None, str] = (None, "")

HIDDEN_CALLS = "The texts of the tool calls are redacted."


def digest_trace(trace: SessionTrace) -> str:
    """Digest of everything an evaluator may read: same digest, same score.

    32 hex digits of BLAKE2b over the turns, texts, tool calls and prompts in their order.
    Remembers the last trace, which several evaluators ask for.
    """
    global _digested
    remembered, digest = _digested
    if remembered is trace:
        return digest
    parts = list(_parts(trace))
    lengths = ",".join([str(len(part)) for part in parts])  # so that no two lists join alike
    joined = "\n".join((lengths, *parts)).encode("utf-8", "replace")
    digest = hashlib.blake2b(joined, digest_size=16).hexdigest()
    _digested = (trace, digest)
    return digest


def _parts(trace: SessionTrace) -> Iterable[str]:
    yield trace.session_id
    for traced in trace.turns:
        turn, usage = traced.turn, traced.turn.usage
        yield (
            f"{turn.turn_id}|{turn.started_at_us}|{turn.ended_at_us}|{turn.agent_id}|{turn.status}"
            f"|{turn.attempts}|{turn.stop_reason}|{turn.model}|{turn.request_class}"
            f"|{traced.text_state}|{usage.new_tokens}|{usage.cache_read_tokens}"
            f"|{usage.output_tokens}"
        )
        yield from traced.texts
        for tool in traced.tools:
            call = tool.call
            yield (
                f"{call.tool_use_id}|{call.name}|{call.success}|{call.error_type}|{call.decision}"
                f"|{call.inferred}|{tool.input_state}|{tool.output_state}"
            )
            yield tool.input_text
            yield tool.output_text
    for prompt in trace.prompts:
        yield f"{prompt.prompt_id}|{prompt.at_us}|{prompt.state}|{prompt.from_human}"
        yield prompt.text
    for name in sorted(trace.attributes):
        yield f"{name}={trace.attributes[name]}"


def scored(
    evaluator: Evaluator,
    trace: SessionTrace,
    value: float,
    *,
    coverage: float,
    findings: Iterable[Finding] = (),
) -> Score:
    """A score with a value, rounded to 6 decimals so that it prints the same everywhere."""
    return Score(
        session_id=trace.session_id,
        evaluator=evaluator.name,
        evaluator_version=evaluator.version,
        value=round(min(1.0, max(0.0, value)), 6),
        coverage=round(min(1.0, max(0.0, coverage)), 6),
        findings=tuple(findings),
        input_digest=digest_trace(trace),
    )


def unscored(
    evaluator: Evaluator,
    trace: SessionTrace,
    reason: str,
    *,
    findings: Iterable[Finding] = (),
) -> Score:
    """A score without a value; ``reason`` is one sentence for people."""
    return Score(
        session_id=trace.session_id,
        evaluator=evaluator.name,
        evaluator_version=evaluator.version,
        value=None,
        unscored_reason=reason,
        findings=tuple(findings),
        input_digest=digest_trace(trace),
    )
