"""The logged turns as a frame for reach, replay and search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from loop.access.view import ALL_ROWS, View
from loop.domain.errors import BadInput, Conflict
from loop.domain.policies import RoutingPolicy
from loop.domain.turns import METRIC_SOURCE
from loop.service.assemble import Parts
from loop.service.rollout_stage import read_publications
from optimizers.assignment_log import with_set_efforts
from optimizers.calibration import calibrate, describe_calibration
from optimizers.length_uses import describe_lengths
from optimizers.output_lengths import fit_output_lengths
from optimizers.reach import describe_reach, rule_reach
from optimizers.replay import Replayer
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
    words: list[str] = []
    try:
        reach = rule_reach(policy, frame, parts.price_book)
    except BadInput as error:  # a model without a price: what it matches is known all the same
        reach, words = rule_reach(policy, frame), [f"Its cost is not known: {error.what}"]
    return [asdict(row) for row in reach], [*describe_reach(policy, reach), *words]


def replay_policy(
    parts: Parts, policy: RoutingPolicy, incumbent: RoutingPolicy | None, view: View = ALL_ROWS
) -> dict[str, Any]:
    """What the policy would have cost on the view's turns, beside the bill and the incumbent
    (``None``: what was served).

    Raises :class:`BadInput` for a model without a price and :class:`Conflict` where no turn has a
    price on all sides: there is no number then.
    """
    from optimizers.policy_estimates import estimate_with  # it loads scipy, which few readings need

    publications = read_publications(parts)
    frame = with_set_efforts(load_frame(parts, view), publications)
    lengths = fit_output_lengths(frame, publications)
    replayer = Replayer(frame, parts.price_book, lengths=lengths)
    result = replayer.replay(policy)
    estimate = estimate_with(policy, replayer, incumbent, None)
    if estimate.incumbent_cost_microusd == 0:
        why = "There are no turns." if len(frame) == 0 else (
            f"{estimate.unpriced_turns:,} of {len(frame):,} turns have no price on every side."
        )  # fmt: skip
        raise Conflict("There is nothing to replay the policy on.", why=why)
    reach = describe_reach(policy, estimate.reach)
    answer = asdict(estimate)
    del answer["quality"]  # a replay says nothing of it
    return answer | {
        "saving_share": estimate.saving_share,
        "naive_saving_share": 1 - estimate.naive_cost_microusd / estimate.incumbent_cost_microusd,
        "too_long_turns": result.too_long_turns,
        "altered_turns": int(result.is_altered.sum()),
        "calibration_residual": estimate.calibration_residual,
        "reach_words": list(reach),
        "length_words": describe_lengths(estimate.output_lengths),
    }


def calibration_of(parts: Parts, view: View = ALL_ROWS) -> dict[str, Any]:
    """The replay held against the view's log: the models as served give back the bill, and the
    cache model, which prices what a policy changes, is so far off by model and request class."""
    frame = load_frame(parts, view)
    if len(frame) == 0:
        return {"rows": [], "next": None, "as_served": None, "words": ["There are no turns yet."]}
    replayer = Replayer(frame, parts.price_book)
    as_served = replayer.replay_as_served()
    groups = calibrate(replayer)
    return {
        "rows": [asdict(group) | {"residual": group.residual} for group in groups],
        "next": None,
        "as_served": {
            "billed_cost_microusd": as_served.logged_cost_microusd,
            "replayed_cost_microusd": as_served.candidate_cost_microusd,
        },
        "words": list(describe_calibration(groups)),
    }
