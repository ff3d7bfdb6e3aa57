"""Conformance cases as JSON, and what our own implementation answers to each.

``docs/gateways.md`` describes the file. A case is its question beside the expected answer; the
functions named ``answer_*`` take a case and give the answer as the file writes it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loop.domain.errors import Refused, TurnwiseError
from loop.domain.policies import (
    Arm,
    Estimator,
    Publication,
    Route,
    RouteRequest,
    RoutingPolicy,
    bucket_of,
    choose_arm,
    decide,
    unit_key,
)
from loop.domain.policy_documents import parse_policy
from routing_policies.acceptance import accept_publication
from routing_policies.repair import repair
from routing_policies.request_features import read_features
from routing_policies.signing import TrustedKeys

VECTORS_SCHEMA = "turnwise.conformance/1"
VECTORS_PATH = Path(__file__).parent / "vectors.json"
SECTIONS = ("buckets", "arms", "decisions", "features", "envelopes", "repairs")
Case = dict[str, Any]


def load_vectors() -> dict[str, Any]:
    """The shipped file."""
    vectors: dict[str, Any] = json.loads(VECTORS_PATH.read_text())
    return vectors


def answer(section: str, case: Mapping[str, Any], policies: Mapping[str, Any]) -> Any:
    """What this implementation says to a case; equal to ``case["expected"]`` where it conforms."""
    if section == "buckets":
        return bucket_of(case["salt"], case["key"])
    if section == "arms":
        return answer_arm(case)
    if section == "decisions":
        return answer_decision(case, parse_policy(policies[case["policy"]]))
    if section == "features":
        estimator = Estimator("chars", *case["estimator"])
        return asdict(read_features(case["body"], case["headers"], estimator))
    if section == "envelopes":
        return answer_envelope(case)
    return answer_repair(case)


def answer_arm(case: Mapping[str, Any]) -> Case:
    policy = RoutingPolicy(name="any", rules=())
    arms = tuple(Arm(name, weight, 1, policy) for name, weight in case["arms"])
    arm, bucket = choose_arm(Publication(1, "prod", arms, case["salt"], 0, 1), case["key"])
    return {"arm": arm.name, "bucket": bucket}


def answer_decision(case: Mapping[str, Any], policy: RoutingPolicy) -> Case:
    request = RouteRequest(**case["request"])
    previous = Route(**case["previous"]) if case["previous"] else None
    return {
        "route": asdict(decide(policy, request, previous)),
        "unit_key": list(unit_key(policy, request)),
    }


def answer_envelope(case: Mapping[str, Any]) -> Case:
    trusted = TrustedKeys.of(base64.b64decode(key) for key in case["trusted_keys"])
    try:
        publication = accept_publication(
            case["envelope"].encode(),
            trusted,
            channel=case["channel"],
            lowest_serial=case["lowest_serial"],
            now_us=case["now_us"],
        )
    except TurnwiseError as error:
        return {"outcome": type(error).__name__}
    return {"outcome": "accepted", "serial": publication.serial}


def answer_repair(case: Mapping[str, Any]) -> Case:
    try:
        fitted = repair(case["body"], case["betas"], case["model"], case["effort"])
    except Refused:
        return {"outcome": "Refused"}
    return {"outcome": "repaired", **asdict(fitted), "fixes": list(fitted.fixes)}
