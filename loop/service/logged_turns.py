"""The logged turns as a frame for reach, replay and search."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from loop.domain.policies import RoutingPolicy
from loop.domain.turns import METRIC_SOURCE
from loop.service.assemble import Parts
from optimizers.reach import describe_reach, rule_reach
from optimizers.turn_frame import COLUMNS, TurnFrame


def load_frame(parts: Parts) -> TurnFrame:
    """Every served turn with the gateway's decision about it, where there was one.

    Turns from metrics alone are left out: each stands for any number of requests.
    """
    columns = parts.lake.turn_columns([*COLUMNS, "usage_source"])
    is_request = columns.pop("usage_source") != METRIC_SOURCE
    if not is_request.all():
        columns = {name: values[is_request] for name, values in columns.items()}
    return TurnFrame.from_columns(columns, parts.lake.decisions_of())


def reach_of(parts: Parts, policy: RoutingPolicy) -> tuple[list[dict[str, Any]], list[str]]:
    """The reach of each rule under each measure of input size, as rows and in sentences that name
    dead and losing rules; no rows without turns."""
    frame = load_frame(parts)
    if len(frame) == 0:
        return [], ["There are no turns yet to measure its reach on."]
    reach = rule_reach(policy, frame, parts.price_book)
    return [asdict(row) for row in reach], list(describe_reach(policy, reach))
