"""Records to store, and Hypothesis strategies for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from loop.domain.clusters import (
    ClusterFeature,
    ClusterLift,
    NamedShare,
    PolicyCheck,
    SessionCluster,
)
from loop.domain.estimates import (
    Interval,
    OutcomeEstimate,
    PolicyEstimate,
    RuleReach,
    SliceEstimate,
)
from loop.domain.policies import Decision
from loop.domain.scores import EvidenceUsed, Finding, Score
from loop.domain.turns import Content, Event, TokenUsage, ToolCall, Turn

NOON_US = 1_763_899_200_000_000  # 2025-11-23T12:00:00Z
HOUR_US = 3_600_000_000


def event(number: int, session_id: str = "s1", **given: Any) -> Event:
    fields: dict[str, Any] = {
        "event_id": f"event-{session_id}-{number}",
        "kind": "log",
        "name": "claude_code.api_request",
        "session_id": session_id,
        "at_us": NOON_US + number,
        "sequence": number,
        "attributes": {"input_tokens": number, "model": "m", "nested": [1, 2.5, None, True]},
        "resource": {"service.name": "claude-code"},
        "received_at_us": NOON_US + 10,
    }
    return Event(**(fields | given))


def turn(number: int, session_id: str = "s1", **given: Any) -> Turn:
    fields: dict[str, Any] = {
        "turn_id": f"req_{session_id}_{number}",
        "request_id": f"req_{session_id}_{number}",
        "session_id": session_id,
        "started_at_us": NOON_US + number * HOUR_US,
        "ended_at_us": NOON_US + number * HOUR_US + 5,
        "sequence": number,
        "prompt_id": "p1",
        "developer": "dana@example.com",
        "org_path": "engineering/payments",
        "requested_model": "claude-opus-4-7",
        "served_model": "claude-opus-4-7",
        "usage": TokenUsage(1, 2, 3, 4, 5),
        "cost_microusd": 100 + number,
        "tool_calls": (
            ToolCall("toolu_1", "Read", True, duration_ms=5, at_us=NOON_US),
            ToolCall("", "", None, inferred=True),
        ),
        "sources": ("otlp-log", "otlp-span"),
    }
    return Turn(**(fields | given))


def content(number: int, session_id: str = "s1", **given: Any) -> Content:
    fields: dict[str, Any] = {
        "session_id": session_id,
        "turn_id": f"req_{session_id}_{number}",
        "prompt_id": "p1",
        "agent_id": "",
        "kind": "assistant_text",
        "tool_use_id": "",
        "tool_name": "",
        "at_us": NOON_US + number,
        "sequence": number,
        "text": f"text {number}",
        "state": "present",
        "chars": 6,
        "source": "otlp-log",
    }
    return Content(**(fields | given))


def score(session_id: str = "s1", **given: Any) -> Score:
    fields: dict[str, Any] = {
        "session_id": session_id,
        "evaluator": "faithfulness",
        "evaluator_version": "1",
        "value": 0.5,
        "coverage": 0.25,
        "findings": (Finding("contradicted", "tests pass", "they failed", "t", ("toolu_1",)),),
        "scored_at_us": NOON_US,
        "input_digest": "abc",
        "config_digest": "c0",
        "evidence_used": (EvidenceUsed("answers", 2, 1),),
        "cost_microusd": None,
        "rows_digest": "77",
    }
    return Score(**(fields | given))


def cluster(name: str, at_us: int) -> SessionCluster:
    features = (ClusterFeature("retries", 2.0, 0.5),)
    return SessionCluster(
        name,
        "loops",
        ("s1", "s2"),
        0.2,
        500,
        0.1,
        features,
        ("s1",),
        at_us,
        lost_cost_microusd=400,
        stability=0.9,
        state="merged",
        parents=("old",),
        terms=("again",),
        contrast="unlike “lies”: more loops",
        lifts=(ClusterLift("repository", "shop", 0.5, 0.1, 5.0, 2.0, 9.5),),
        policy_check=PolicyCheck("explained", "so it is", 2, True, 4.0, 2.0, 8.0, 0.75),
        centre=(NamedShare("retries", 2.0),),
        name="Going in circles",
        named_by="model-1/prompt-1",
    )


def decision(number: int, session_id: str = "s1", **given: Any) -> Decision:
    fields: dict[str, Any] = {
        "decision_id": f"req_{session_id}_{number}",
        "at_us": NOON_US + number,
        "session_id": session_id,
        "agent_id": "",
        "serial": 3,
        "policy_version": 2,
        "policy_digest": "sha256:00",
        "arm": "canary",
        "bucket": 17,
        "propensity": 0.05,
        "rule_id": "small",
        "requested_model": "claude-opus-4-7",
        "routed_model": "claude-haiku-4-5",
        "rollout_id": "r1",
        "fixes": ("effort removed",),
        "upstream_status": 200,
    }
    return Decision(**(fields | given))


def estimate(digest: str = "sha256:01", *, answerable: bool = True) -> PolicyEstimate:
    interval = Interval(0.7, 0.6, 0.8) if answerable else None
    refusals = () if answerable else ("no randomised sessions",)
    quality = OutcomeEstimate(interval, interval, 0.7, 40, 22.5, 0.98, refusals)
    reach = (
        RuleReach("small", "new_tokens", 12, 0.4, 0.2, 0.3, 0.1, -5),
        RuleReach("small", "total_input_tokens", 1, 0.1, 0.0),
    )
    modelled = 9 if answerable else None
    others: dict[str, Any] = {}
    if answerable:
        others = {
            "session_cost_usd": replace(quality, direct_method=0.6, largest_weight=4.0),
            "session_wait_seconds": OutcomeEstimate(None, None, None, 3, 0.0, 0.0, ("too few",)),
            "slices": (
                SliceEstimate("language", "Go", 9, 7, 5.5, 0.25, interval, 0.2, 0.4),
                SliceEstimate("language", "Rust", 1, 0, 0.0, None, None),
            ),
        }
    return PolicyEstimate(digest, 40, 400, 10, 11, 8, 7, 12, reach, quality, 1, modelled, **others)


sessions = st.sampled_from(["s1", "s2", "s3"])
small = st.integers(0, 2**40)
words = st.text(max_size=8)


@st.composite
def events(draw: st.DrawFn) -> Event:
    number = draw(st.integers(0, 15))
    session_id = draw(sessions)
    # What identifies an event decides all of it, as a digest does.
    return event(number, session_id, attributes={"text": f"{number}", "n": number**5})


@st.composite
def turns(draw: st.DrawFn, session_id: str = "s1") -> Turn:
    models = st.sampled_from(["claude-opus-4-7", "claude-haiku-4-5", "unheard-of", ""])
    return turn(
        draw(st.integers(0, 30)),
        session_id,
        started_at_us=NOON_US + draw(st.integers(-2, 2)) * 13 * HOUR_US,
        usage=TokenUsage(*(draw(small) for _ in range(5))),
        cost_microusd=draw(st.none() | small),
        served_model=draw(models),
        requested_model=draw(models),
        developer=draw(st.sampled_from(["dana", "lee", "unattributed"])),
        repository=draw(st.sampled_from(["shop", "unattributed"])),
        org_path="/".join(draw(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4))),
        status=draw(st.sampled_from(["ok", "error", "refused"])),
    )


@st.composite
def whole_sessions(draw: st.DrawFn) -> list[Turn]:
    """All turns of some sessions, each turn once."""
    found: list[Turn] = []
    for session_id in draw(st.sets(sessions, max_size=3)):
        drawn = draw(st.lists(turns(session_id), max_size=6, unique_by=lambda t: t.turn_id))
        found += drawn
    return found
