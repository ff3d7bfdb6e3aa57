"""The gateways' decision log: in as JSON, out as decisions, joined to turns."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.decision_intake import accept_decisions, parse_decisions
from loop.domain.errors import BadInput
from loop.domain.policies import Decision
from tests.collectors.pipeline import pipeline
from tests.collectors.recordings import all_bodies, expected

TEXT = st.text(max_size=20)
TOKENS = st.integers(0, 10**9)
DECISIONS = st.builds(
    Decision,
    decision_id=st.text(min_size=1, max_size=20),
    at_us=st.integers(0, 2**53),
    session_id=TEXT,
    agent_id=TEXT,
    serial=TOKENS,
    policy_version=TOKENS,
    policy_digest=TEXT,
    arm=TEXT,
    bucket=st.integers(0, 9999),
    propensity=st.floats(0, 1),
    rule_id=TEXT,
    requested_model=TEXT,
    routed_model=TEXT,
    rollout_id=TEXT,
    total_input_tokens=TOKENS,
    fixes=st.lists(TEXT, max_size=2).map(tuple),
    upstream_status=st.none() | st.integers(100, 599),
)


def decision(**fields: object) -> dict[str, object]:
    base = Decision("req_1", 1, "s", "", 1, 1, "sha256:0", "stable", 5, 1.0, "r", "a", "b")
    return {**asdict(base), **fields}


@given(decisions=st.lists(DECISIONS, max_size=5))
def test_decisions_read_back(decisions: list[Decision]) -> None:
    assert parse_decisions(orjson.dumps([asdict(item) for item in decisions])) == decisions


BAD = {
    "no JSON": b"[",
    "no list": b"3",
    "no object": b"[1]",
    "a field is missing": orjson.dumps([{"decision_id": "x"}]),
    "a field of the wrong type": orjson.dumps([decision(serial="1")]),
    "a boolean for a number": orjson.dumps([decision(serial=True)]),
    "an empty id": orjson.dumps([decision(decision_id="")]),
    "a time beyond all calendars": orjson.dumps([decision(at_us=2**63)]),
    "an impossible propensity": orjson.dumps([decision(propensity=1.5)]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_decision_is_refused_and_nothing_kept(tmp_path: Path, case: str) -> None:
    with pipeline(tmp_path) as parts:
        with pytest.raises(BadInput):
            asyncio.run(accept_decisions(parts.journal, BAD[case]))
        assert parts.drainer.is_drained()


def test_decisions_reach_their_table_and_their_turns_once(tmp_path: Path) -> None:
    entry = expected()["a13_oauth_identity"]
    (request_id,) = entry["api"]["request_ids_ok"]
    session_id = entry["session_id"]
    sent = decision(
        decision_id=request_id,
        session_id=session_id,
        serial=4,
        arm="canary",
        requested_model="claude-opus-4-7",
        from_a_newer_gateway=1,
    )
    with pipeline(tmp_path) as parts:
        for _ in range(2):
            count = asyncio.run(accept_decisions(parts.journal, orjson.dumps([sent])))
            assert count == 1
        for body in all_bodies():
            if body.session == "a13_oauth_identity":
                parts.journal.append_sync(body.signal, body.content_type, body.content)
        parts.drainer.drain_once()
        (stored,) = parts.lake.decisions_of([session_id])
        (turn,) = parts.lake.turns_of([session_id])
    assert (stored.decision_id, stored.serial) == (request_id, 4)
    assert (turn.policy_serial, turn.arm, turn.requested_model) == (4, "canary", "claude-opus-4-7")
    assert turn.served_model == "claude-sonnet-4-6"
