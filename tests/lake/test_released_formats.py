"""What an earlier version stored must always read. The samples are never written again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from loop.domain.clusters import ClusterFeature, NamedShare, SessionCluster
from loop.domain.policies import Decision
from loop.domain.scores import EvidenceUsed, Finding, Score
from loop.domain.turns import Content, Event, TokenUsage, ToolCall, Turn
from loop.lake import Lake
from loop.ledger.chargeback import spend

RELEASED = Path(__file__).parent.parent / "released_formats"

# Literal, so that a change of today's test records can't change what the sample must say.
TURNS_1 = [
    Turn(
        turn_id="req_1",
        request_id="req_1",
        session_id="s1",
        started_at_us=1_763_942_399_999_999,
        ended_at_us=1_763_942_400_500_000,
        sequence=1,
        prompt_id="p1",
        query_source="sdk",
        developer="dana@example.com",
        org_path="engineering/payments/cc-4711",
        repository="shop",
        client_version="2.1.330",
        requested_model="claude-opus-4-7",
        served_model="claude-haiku-4-5",
        effort="xhigh",
        usage=TokenUsage(6, 35, 22074, 11169, 7),
        duration_ms=500,
        ttft_ms=120,
        attempts=2,
        error_status=529,
        stop_reason="tool_use",
        prompt_chars=48,
        starts_prompt=True,
        tool_calls=(
            ToolCall("toolu_1", "Read", True, "", "accept", 12, 1_763_942_400_600_000),
            ToolCall("", "", None, inferred=True),
        ),
        client_cost_microusd=152_459,
        cost_microusd=16_363,
        price_version="2026-11-23",
        sources=("otlp-log", "otlp-span"),
        policy_serial=3,
        policy_version=2,
        arm="canary",
        rule_id="small",
    ),
    Turn(
        turn_id="req_2",
        request_id="",
        session_id="s1",
        started_at_us=1_763_942_401_000_000,
        ended_at_us=1_763_942_402_000_000,
        sequence=2,
        agent_id="a1",
        agent_name="Explore",
        request_class="subagent",
        requested_model="unheard-of",
        status="error",
        unpriced_reason="unknown model unheard-of",
    ),
]
"""The third turn of the sample, ``req_3``, is removed by its second revision."""


def test_turns_of_version_1_read_as_they_were_written() -> None:
    lake = Lake.open(str(RELEASED / "turns-1"))
    assert lake.turns_of(["s1"]) == TURNS_1
    assert lake.max_revision() == 2
    assert lake.sessions_changed_since(1) == ["s1"]
    assert lake.turn_columns(["turn_id"])["turn_id"].tolist() == ["req_1", "req_2"]
    (total,) = spend(lake, [])
    assert (total["turns"], total["cost_microusd"], total["unpriced_turns"]) == (2, 16_363, 1)


def test_a_table_of_version_1_gains_the_later_columns_when_it_is_written(tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(RELEASED / "turns-1", store)
    later = replace(
        TURNS_1[0], turn_id="req_9", session_id="s9", message_id="msg_9", service_tier="batch"
    )
    lake = Lake.open(str(store))
    lake.write_turns([later], [], revision=3)
    for reader in (lake, Lake.open(str(store))):
        assert reader.turns_of(["s1"]) == TURNS_1
        assert reader.turns_of(["s9"]) == [later]
        tiers = reader.turn_columns(["turn_id", "service_tier"], where_sessions=["s1", "s9"])
        assert tiers["service_tier"].tolist() == [None, None, "batch"]
        rows = reader.query("SELECT count(*) AS n FROM turns WHERE cache_split_assumed IS NULL")
        assert rows == [{"n": 2}]
    (total,) = spend(lake, [])
    assert (total["turns"], total["cost_microusd"]) == (3, 2 * 16_363)


EVENTS_2 = [
    Event(
        event_id="0f" * 16,
        kind="log",
        name="claude_code.api_request",
        session_id="s1",
        at_us=1_763_942_400_500_000,
        sequence=1,
        attributes={"input_tokens": 6, "model": "claude-haiku-4-5", "request_id": "req_1"},
        resource={"service.name": "claude-code"},
        received_at_us=1_763_942_401_000_000,
        credential="token-1",
    ),
    Event(
        event_id="1e" * 16,
        kind="log",
        name="claude_code.api_request",
        session_id="s1",
        at_us=1_763_942_400_500_000,
        sequence=1,
        attributes={"input_tokens": 7, "model": "claude-haiku-4-5", "request_id": "req_1"},
        resource={"service.name": "claude-code"},
        received_at_us=1_763_942_402_000_000,
        credential="token-1",
        conflict="c" * 32,
    ),
]
TURNS_2 = [
    replace(
        TURNS_1[0],
        message_id="msg_1",
        speed="fast",
        service_tier="priority",
        inference_geo="us",
        usage_source="otlp-log",
        cache_split_assumed=True,
        web_search_requests=3,
        charge_version=1,
        device_id="device-1",
        org_node_id="cards",
        attributed_by="credential",
        asserted_org_path="somewhere/else",
    ),
    TURNS_1[1],
]
CHARGE_KEY_3 = "2025-11-23\x1fengineering/payments/cc-4711\x1fdana@example.com\x1fclaude-haiku-4-5"
CONTENTS_2 = [
    Content(
        session_id="s1",
        turn_id="req_1",
        prompt_id="p1",
        agent_id="",
        kind="assistant_text",
        tool_use_id="",
        tool_name="",
        at_us=1_763_942_400_500_000,
        sequence=1,
        text="All 14 tests pass.",
        state="present",
        chars=18,
        source="otlp-log",
    )
]
DECISIONS_2 = [
    Decision(
        decision_id="req_1",
        at_us=1_763_942_399_999_999,
        session_id="s1",
        agent_id="",
        serial=3,
        policy_version=2,
        policy_digest="sha256:" + "0" * 64,
        arm="canary",
        bucket=9_688,
        propensity=0.05,
        rule_id="small",
        requested_model="claude-opus-4-7",
        routed_model="claude-haiku-4-5",
        fixes=("thinking",),
        upstream_status=200,
        org_path="engineering/payments",
        repository="shop",
    )
]


def test_tables_of_version_2_read_as_they_were_written() -> None:
    lake = Lake.open(str(RELEASED / "lake-2"))
    assert lake.events_of(["s1"])["s1"] == EVENTS_2
    assert lake.turns_of(["s1"]) == TURNS_2
    assert lake.contents_of(["s1"]) == CONTENTS_2
    assert lake.decisions_of(["s1"]) == DECISIONS_2
    (total,) = spend(lake, [])
    assert (total["turns"], total["cost_microusd"], total["unpriced_turns"]) == (2, 16_363, 1)
    assert spend(lake, [], from_rollup=True) == [total]


def test_turns_of_version_3_read_as_they_were_written() -> None:
    """Settled but for the second turn, which is open and supersedes what was settled."""
    lake = Lake.open(str(RELEASED / "turns-3"))
    assert lake.turns_of(["s1"]) == TURNS_2
    settled = lake.query("SELECT charge_key FROM turns_rows WHERE charge_key IS NOT NULL")
    assert {"charge_key": CHARGE_KEY_3} in settled
    rows = spend(lake, ["developer", "org", "model", "day"])
    assert [(row["developer"], row["model"], row["cost_microusd"]) for row in rows] == [
        ("dana@example.com", "claude-haiku-4-5", 16_363),
        ("unattributed", "unheard-of", None),
    ]


CLUSTERS_1 = [
    SessionCluster(
        cluster_id="cluster-0123456789ab",
        label="claims contradicted: pass, tests",
        session_ids=("s1", "s2"),
        mean_score=0.25,
        cost_microusd=500,
        cost_share=0.1,
        features=(ClusterFeature("claims contradicted", 1.0, 0.125),),
        exemplars=("s2", "s1"),
        clustered_at_us=1_763_942_400_000_000,
    )
]


def test_clusters_of_version_1_read_and_gain_the_later_columns(tmp_path: Path) -> None:
    assert Lake.open(str(RELEASED / "clusters-1")).latest_clusters() == CLUSTERS_1
    store = tmp_path / "store"
    shutil.copytree(RELEASED / "clusters-1", store)
    lake = Lake.open(str(store))
    later = replace(
        CLUSTERS_1[0],
        clustered_at_us=1_763_942_400_000_001,
        state="split",
        parents=("cluster-0",),
        centre=(NamedShare("claims contradicted", 1.0),),
    )
    lake.write_clusters([later])
    assert lake.latest_clusters() == Lake.open(str(store)).latest_clusters() == [later]
    rows = lake.query("SELECT count(*) AS n FROM clusters_rows WHERE state IS NULL")
    assert rows == [{"n": 1}]


SCORES_2 = [
    Score(
        session_id="s1",
        evaluator="faithfulness",
        evaluator_version="2",
        value=0.5,
        coverage=0.75,
        findings=(Finding("contradicted", "All tests pass.", "It failed.", "req_1", ("toolu_1",)),),
        scored_at_us=1_763_942_400_500_000,
        input_digest="0" * 32,
        config_digest="a" * 12,
        evidence_used=(EvidenceUsed("tool results", 3, 1),),
        rows_digest="1" * 32,
    ),
    Score(
        session_id="s1",
        evaluator="judge_faithfulness",
        evaluator_version="1+claude-haiku-4-5+0123456789abcdef",
        value=None,
        unscored_reason="No judgement: the answer is not JSON.",
        scored_at_us=1_763_942_400_600_000,
        input_digest="0" * 32,
        config_digest="0123456789abcdef",
        cost_microusd=812,
        inclusion_probability=0.02,
    ),
]


def test_scores_of_version_2_read_as_they_were_written() -> None:
    assert Lake.open(str(RELEASED / "scores-2")).scores_of() == SCORES_2
