"""What every evaluator is: a pure function from a session's trace to a score.

An evaluator never raises for an odd trace. Where evidence lacks it answers *unscored* and says
why; it never guesses a middle value. The contract test class (``evaluators.testing``) holds each
implementation to this. ``docs/scores.md`` says how to add one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Protocol

from loop.domain.scores import EvidenceUsed, Finding, JudgementIdentity, Score
from loop.domain.turns import EvidenceState, SessionTrace

ENTRY_POINTS = "turnwise.evaluators"
"""The entry-point group that names evaluators: each entry is a class that takes no arguments."""

HIDDEN_CALLS = "The texts of the tool calls are redacted."
CHARGED_TO = frozenset(("developer", "org_path"))
"""Attributes that say who is charged. No evaluator reads them: they may change without the work
having changed, and a score must not depend on whose work it is."""


class Evaluator(Protocol):
    """One way to judge a session.

    ``name``, ``version`` and ``config_digest`` identify the judgement: scores of different
    identities are never mixed in one comparison. ``evaluate`` is deterministic (a judge's answer
    counts as given once it is stored), reads nothing but its argument, of which not the charges
    and not :data:`CHARGED_TO`, and returns a score in [0, 1] or an unscored reason; every id in a
    finding's ``evidence`` and ``turn_id`` exists in the trace.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def config_digest(self) -> str: ...

    def evaluate(self, trace: SessionTrace) -> Score: ...


def identity_of(evaluator: Evaluator) -> JudgementIdentity:
    return JudgementIdentity(evaluator.name, evaluator.version, evaluator.config_digest)


def digest_config(*settings: object) -> str:
    """12 hex digits over settings that JSON can hold: for an evaluator's ``config_digest``."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


_read: tuple[SessionTrace | None, str, tuple[EvidenceUsed, ...]] = (None, "", ())


def digest_trace(trace: SessionTrace) -> str:
    """Digest of everything an evaluator may read: same digest, same score.

    32 hex digits of BLAKE2b over the turns, texts, tool calls, prompts, tool list and expected
    calls in their order; what the turns cost and whom they are charged to are no part of it.
    Remembers the last trace, which several evaluators ask for.
    """
    return _read_once(trace)[0]


def count_evidence(trace: SessionTrace) -> tuple[EvidenceUsed, ...]:
    """How much of each kind of evidence the trace holds; kinds of which it has none are left out.

    Prompts, answers and the two sides of tool calls, in this order.
    """
    return _read_once(trace)[1]


def _read_once(trace: SessionTrace) -> tuple[str, tuple[EvidenceUsed, ...]]:
    global _read
    remembered, digest, evidence = _read
    if remembered is trace:
        return digest, evidence
    parts = list(_parts(trace))
    lengths = ",".join([str(len(part)) for part in parts])  # so that no two lists join alike
    joined = "\n".join((lengths, *parts)).encode("utf-8", "replace")
    digest = hashlib.blake2b(joined, digest_size=16).hexdigest()
    evidence = _count(trace)
    _read = (trace, digest, evidence)
    return digest, evidence


def _count(trace: SessionTrace) -> tuple[EvidenceUsed, ...]:
    tools = [tool for traced in trace.turns for tool in traced.tools]
    answers: list[EvidenceState] = [
        traced.text_state for traced in trace.turns if traced.text_state != "missing"
    ]
    kinds: tuple[tuple[str, list[EvidenceState]], ...] = (
        ("prompts", [prompt.state for prompt in trace.prompts]),
        ("answers", answers),
        ("tool inputs", [tool.input_state for tool in tools]),
        ("tool results", [tool.output_state for tool in tools]),
    )
    used = []
    for kind, states in kinds:
        if states:
            seen = states.count("present") + states.count("truncated")
            used.append(EvidenceUsed(kind, seen, len(states) - seen))
    return tuple(used)


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
        if name not in CHARGED_TO:
            yield f"{name}={trace.attributes[name]}"
    for definition in trace.tools:
        yield definition.name
        yield definition.input_schema
    if trace.expected_calls is not None:
        yield repr([(call.name, sorted(call.arguments.items())) for call in trace.expected_calls])


def scored(
    evaluator: Evaluator,
    trace: SessionTrace,
    value: float,
    *,
    coverage: float,
    findings: Iterable[Finding] = (),
    cost_microusd: int | None = 0,
) -> Score:
    """A score with a value, rounded to 6 decimals so that it prints the same everywhere."""
    return _score(
        evaluator,
        trace,
        value=round(min(1.0, max(0.0, value)), 6),
        coverage=round(min(1.0, max(0.0, coverage)), 6),
        findings=findings,
        cost_microusd=cost_microusd,
    )


def unscored(
    evaluator: Evaluator,
    trace: SessionTrace,
    reason: str,
    *,
    findings: Iterable[Finding] = (),
    cost_microusd: int | None = 0,
) -> Score:
    """A score without a value; ``reason`` is one sentence for people."""
    return _score(evaluator, trace, reason=reason, findings=findings, cost_microusd=cost_microusd)


def _score(
    evaluator: Evaluator,
    trace: SessionTrace,
    *,
    value: float | None = None,
    reason: str = "",
    coverage: float = 0.0,
    findings: Iterable[Finding],
    cost_microusd: int | None,
) -> Score:
    digest, evidence = _read_once(trace)
    return Score(
        session_id=trace.session_id,
        evaluator=evaluator.name,
        evaluator_version=evaluator.version,
        value=value,
        unscored_reason=reason,
        coverage=coverage,
        findings=tuple(findings),
        input_digest=digest,
        config_digest=evaluator.config_digest,
        evidence_used=evidence,
        cost_microusd=cost_microusd,
    )
