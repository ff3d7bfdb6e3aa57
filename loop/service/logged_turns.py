"""The logged turns as a frame for reach, replay and search."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from loop.domain.policies import RoutingPolicy
from loop.service.assemble import Parts
from optimizers.reach import describe_reach, rule_reach
from optimizers.turn_frame import COLUMNS, TurnFrame


def load_frame(parts: Parts) -> TurnFrame:
    """Every served turn with the gateway's decision about it, where there was one."""
    columns = parts.lake.turn_columns(COLUMNS)
    return TurnFrame.from_columns(columns, parts.lake.decisions_of())


def reach_rows(parts: Parts, policy: RoutingPolicy) -> list[dict[str, Any]]:
    """The reach of each rule under each measure of input size; no rows without turns."""
    frame = load_frame(parts)
    if len(frame) == 0:
        return []
    return [asdict(reach) for reach in rule_reach(policy, frame, parts.price_book)]


def reach_words(parts: Parts, policy: RoutingPolicy) -> list[str]:
    """The same in sentences: dead and losing rules are named."""
    frame = load_frame(parts)
    if len(frame) == 0:
        return ["There are no turns yet to measure its reach on."]
    return list(describe_reach(policy, rule_reach(policy, frame, parts.price_book)))
