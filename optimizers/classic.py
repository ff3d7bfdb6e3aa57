"""The policy that everyone starts from: short requests to the small model."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

from loop.domain.policies import Measure, RoutingPolicy
from loop.domain.policy_documents import parse_policy


def classic_policy(measure: Measure = "total_input_tokens") -> RoutingPolicy:
    """The shipped document ``classic_policy.json``, with input size read as ``measure``."""
    text = files("optimizers").joinpath("classic_policy.json").read_text(encoding="utf-8")
    return replace(parse_policy(json.loads(text)), measure=measure)
