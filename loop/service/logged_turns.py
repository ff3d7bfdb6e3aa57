"""The logged turns as a frame for reach, replay and search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from loop.access.view import ALL_ROWS, View
from loop.domain.policies import RoutingPolicy
from loop.domain.turns import METRIC_SOURCE
from loop.service.assemble import Parts
from optimizers.reach import describe_reach, rule_reach
from optimizers.turn_frame import COLUMNS, TurnFrame


def load_frame(
    parts: Parts, view: View = ALL_ROWS, *, versions: Mapping[str, int] | None = None
) -> TurnFrame:
    """Every served turn of the view with the gateway's decision about it, where there was one; as
    of those versions of the tables, or now.

    Turns from metrics alone are left out: each stands for any number of requests.
    """
    lake = parts.lake if versions is None else parts.lake.at(versions)
    columns = lake.turn_columns([*dict.fromkeys((*COLUMNS, "usage_source", "org_path", "day"))])
    wanted = columns["usage_source"] != METRIC_SOURCE
    if not view.sees_all:
        places = zip(columns["org_path"].tolist(), columns["day"].tolist(), strict=True)
        wanted &= np.fromiter((view.admits(*place) for place in places), dtype=bool)
    if not wanted.all():
        columns = {name: values[wanted] for name, values in columns.items()}
    return TurnFrame.from_columns(columns, lake.decisions_of())


def reach_of(
    parts: Parts, policy: RoutingPolicy, view: View = ALL_ROWS
) -> tuple[list[dict[str, Any]], list[str]]:
    """The reach of each rule over the view's turns under each measure of input size, as rows and
    in sentences that name dead and losing rules; no rows without turns."""
    frame = load_frame(parts, view)
    if len(frame) == 0:
        return [], ["There are no turns yet to measure its reach on."]
    reach = rule_reach(policy, frame, parts.price_book)
    return [asdict(row) for row in reach], list(describe_reach(policy, reach))
