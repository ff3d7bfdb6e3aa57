"""The schemas say what the records say."""

from __future__ import annotations

from dataclasses import fields

import pyarrow as pa
import pytest

from loop.domain.clusters import (
    ClusterFeature,
    ClusterLift,
    NamedShare,
    PolicyCheck,
    SessionCluster,
    SessionProfile,
)
from loop.domain.estimates import OutcomeEstimate, PolicyEstimate, RuleReach, SliceEstimate
from loop.domain.policies import Decision
from loop.domain.scores import Score
from loop.domain.turns import Content, Event, TokenUsage, ToolCall, Turn
from loop.lake import schemas
from loop.lake.rows import day_of, day_start_us
from loop.lake.schemas import TABLES, TableSchema

OWN = {
    "day",
    "revision",
    "commit",
    "removed",
    "digest",
    "supersedes_from_day",
    "supersedes_to_day",
}


@pytest.mark.parametrize(
    ("schema", "record"),
    [
        (schemas.EVENTS, Event),
        (schemas.CONTENTS, Content),
        (schemas.SCORES, Score),
        (schemas.PROFILES, SessionProfile),
        (schemas.CLUSTERS, SessionCluster),
        (schemas.DECISIONS, Decision),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_table_has_the_fields_of_its_record(schema: TableSchema, record: type) -> None:
    assert set(schema.record_names()) - OWN == {field.name for field in fields(record)}


def test_turns_have_the_fields_of_a_turn_with_its_usage_laid_open() -> None:
    names = {field.name for field in fields(Turn)} | {field.name for field in fields(TokenUsage)}
    assert set(schemas.TURNS.record_names()) - OWN == names - {"usage"}
    assert [field.name for field in schemas.TOOL_CALL] == [field.name for field in fields(ToolCall)]


def test_estimates_have_the_fields_of_an_estimate_with_its_quality_laid_open() -> None:
    """Lengths stand in the run's record alone."""
    quality = {f"quality_{field.name}" for field in fields(OutcomeEstimate)}
    names = {field.name for field in fields(PolicyEstimate)} - {
        "quality",
        "output_lengths",
    } | quality
    assert set(schemas.ESTIMATES.record_names()) - OWN - {"run_id", "estimated_at_us"} == names
    reach = [field.name for field in schemas.RULE_REACH]
    assert [*reach, "session_share", "token_share"] == [f.name for f in fields(RuleReach)]
    assert [field.name for field in schemas.SLICE] == [f.name for f in fields(SliceEstimate)]
    assert [field.name for field in schemas.OUTCOME] == [f.name for f in fields(OutcomeEstimate)]


@pytest.mark.parametrize(
    ("part", "record"),
    [
        (schemas.FEATURE, ClusterFeature),
        (schemas.LIFT, ClusterLift),
        (schemas.SHARE, NamedShare),
        (schemas.POLICY_CHECK, PolicyCheck),
    ],
    ids=["feature", "lift", "share", "policy_check"],
)
def test_the_parts_of_clusters_have_the_fields_of_their_records(
    part: pa.StructType, record: type
) -> None:
    assert [field.name for field in part] == [field.name for field in fields(record)]


@pytest.mark.parametrize("schema", TABLES, ids=lambda schema: schema.name)
def test_each_column_is_described_in_the_stored_schema(schema: TableSchema) -> None:
    for field in schema.arrow():
        assert field.metadata[b"description"].decode().endswith(".")
    assert schema.columns[0].name == "day"
    integers = [c for c in schema.columns if c.name.endswith(("_tokens", "_microusd", "_ms"))]
    assert {column.type for column in integers} <= {pa.int64()}


@pytest.mark.parametrize(
    ("at_us", "day"),
    [
        (0, "1970-01-01"),
        (-1, "1969-12-31"),
        (1_763_942_399_999_999, "2025-11-23"),
        (1_763_942_400_000_000, "2025-11-24"),
        (2**63 - 1, "9999-12-30"),
        (-(2**63), "0001-01-02"),
    ],
)
def test_a_day_is_that_of_utc(at_us: int, day: str) -> None:
    assert day_of(at_us) == day


def test_a_day_begins_at_its_midnight() -> None:
    assert day_start_us("2025-11-24") == 1_763_942_400_000_000
    assert day_of(day_start_us("2024-02-29")) == "2024-02-29"
