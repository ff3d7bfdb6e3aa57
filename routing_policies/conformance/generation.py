"""Writes ``vectors.json``: the cases written by hand, and a fixed sample beside them.

Run it only to add cases (``python -m routing_policies.conformance.generation``): an answer that
changes is a gateway that routes differently than the one beside it.
"""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from loop.domain.policies import canonical_json
from loop.domain.policy_documents import parse_policy
from routing_policies.conformance import named_cases, sampled_cases
from routing_policies.conformance.cases import (
    SECTIONS,
    VECTORS_PATH,
    VECTORS_SCHEMA,
    Case,
    answer,
)
from routing_policies.signing import Signer, sign_envelope

SEED = 20261123
_NOW_US = 1_790_000_000_000_000
# Made of a repeated byte, so that nobody takes them for secrets.
_FIRST, _SECOND, _STRANGER = (
    Signer(Ed25519PrivateKey.from_private_bytes(bytes([byte]) * 32)) for byte in (1, 2, 3)
)


def build_vectors() -> dict[str, Any]:
    """The whole file, the same at every call."""
    sample = sampled_vectors(SEED, buckets=40, arms=20, decisions=200, features=50, repairs=90)
    named = {
        "buckets": named_cases.BUCKETS,
        "arms": named_cases.ARMS,
        "decisions": named_cases.DECISIONS,
        "envelopes": envelope_cases(),
        "repairs": named_cases.REPAIRS,
    }
    return {
        "schema": VECTORS_SCHEMA,
        "policies": {**named_cases.POLICIES, **sample["policies"]},
        **{section: [*named.get(section, []), *sample[section]] for section in SECTIONS},
    }


def sampled_vectors(
    seed: int, *, buckets: int, arms: int, decisions: int, features: int, repairs: int
) -> dict[str, Any]:
    """That many cases of each section, answered by this implementation; ten requests a policy."""
    random = Random(seed)  # noqa: S311
    policies = {
        f"sampled-{number}": sampled_cases.sampled_policy(random)
        for number in range((decisions + 9) // 10)
    }
    sections: dict[str, list[Case]] = {
        "buckets": [sampled_cases.sampled_bucket(random) for _ in range(buckets)],
        "arms": [sampled_cases.sampled_arms(random) for _ in range(arms)],
        "decisions": [
            sampled_cases.sampled_decision(random, f"sampled-{number // 10}")
            for number in range(decisions)
        ],
        "features": [sampled_cases.sampled_features(random) for _ in range(features)],
        "envelopes": [],
        "repairs": [sampled_cases.sampled_repair(random) for _ in range(repairs)],
    }
    sampled_cases.add_runs(Random(seed + 1), policies, sections["decisions"])  # noqa: S311
    for section, cases in sections.items():
        for case in cases:
            case["expected"] = answer(section, case, policies)
    return {"schema": VECTORS_SCHEMA, "policies": policies, **sections}


def envelope_cases() -> list[Case]:
    """Envelopes that hold and envelopes that don't, each with the class of its refusal."""
    good = _payload()
    signed = sign_envelope(good, [_FIRST])
    document = json.loads(signed)
    other_payload = base64.b64encode(_payload(salt="s2")).decode()
    alien_type = canonical_json({**document, "payloadType": "application/json"})
    accepted = {"outcome": "accepted", "serial": 7}
    refused = {"outcome": "Refused"}
    unreadable = {"outcome": "BadInput"}
    unknown_key = _payload(policy={**named_cases.policy(), "also": 1})
    two_arms = _payload(arm_weights=(5_000, 5_000))
    return [
        _case("valid", signed, accepted),
        _case("two signatures, one trusted", sign_envelope(good, [_STRANGER, _FIRST]), accepted),
        _case("two trusted keys", sign_envelope(good, [_SECOND]), accepted, [_FIRST, _SECOND]),
        _case("the serial seen last", signed, accepted, lowest_serial=7),
        _case("the last moment", signed, accepted, now_us=_NOW_US + 3_599_999_999),
        _case("kill switch", sign_envelope(_payload(kill=True), [_FIRST]), accepted),
        _case("tampered payload", canonical_json({**document, "payload": other_payload}), refused),
        _case("unknown key", sign_envelope(good, [_STRANGER]), refused),
        _case("no trusted key", signed, refused, []),
        _case("expired", signed, refused, now_us=_NOW_US + 3_600_000_000),
        _case("another channel", signed, refused, channel="test"),
        _case("older serial", signed, {"outcome": "Conflict"}, lowest_serial=8),
        _case("cut off", signed[:-20], unreadable),
        _case("another type", alien_type, unreadable),
        _case("no signatures", canonical_json({**document, "signatures": []}), unreadable),
        _case("not base64", canonical_json({**document, "payload": "%"}), unreadable),
        _case("payload is no object", sign_envelope(b"[]", [_FIRST]), unreadable),
        _case("unknown key in a policy", sign_envelope(unknown_key, [_FIRST]), unreadable),
        _case("two arms of one name", sign_envelope(two_arms, [_FIRST]), unreadable),
        _case(
            "weights below 10,000",
            sign_envelope(_payload(arm_weights=(9_999,)), [_FIRST]),
            unreadable,
        ),
    ]


def _payload(
    *,
    salt: str = "s1",
    kill: bool = False,
    policy: Case | None = None,
    arm_weights: tuple[int, ...] = (10_000,),
) -> bytes:
    document = policy or named_cases.POLICIES["short"]
    digest = parse_policy(named_cases.POLICIES["short"]).digest
    arms = [
        {
            "name": "stable",
            "weight": weight,
            "policy_version": 3,
            "policy_digest": digest,
            "policy": document,
        }
        for weight in arm_weights
    ]
    publication = {
        "schema": "turnwise.publication/1",
        "serial": 7,
        "channel": "prod",
        "rollout_id": "",
        "salt": salt,
        "issued_at_us": _NOW_US,
        "not_after_us": _NOW_US + 3_600_000_000,
        "kill": kill,
        "arms": arms,
    }
    return canonical_json(publication).encode()


def _case(
    name: str,
    envelope: bytes | str,
    expected: Case,
    trusted: list[Signer] | None = None,
    *,
    channel: str = "prod",
    lowest_serial: int = 0,
    now_us: int = _NOW_US,
) -> Case:
    keys = [_FIRST] if trusted is None else trusted
    return {
        "name": name,
        "envelope": envelope.decode() if isinstance(envelope, bytes) else envelope,
        "trusted_keys": [base64.b64encode(signer.public_key).decode() for signer in keys],
        "channel": channel,
        "lowest_serial": lowest_serial,
        "now_us": now_us,
        "expected": expected,
    }


def write_vectors() -> None:
    """Replaces the shipped file; one case a line, so that a change is seen where it is."""
    vectors = build_vectors()
    lines = [f'"schema": {json.dumps(vectors["schema"])}', _block("policies", vectors["policies"])]
    lines += [_block(section, vectors[section]) for section in SECTIONS]
    VECTORS_PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _block(name: str, entries: dict[str, Any] | list[Any]) -> str:
    if isinstance(entries, dict):
        rows = [f"{json.dumps(key)}: {canonical_json(value)}" for key, value in entries.items()]
        return f'"{name}": {{\n' + ",\n".join(rows) + "\n}"
    return f'"{name}": [\n' + ",\n".join(canonical_json(entry) for entry in entries) + "\n]"


if __name__ == "__main__":
    write_vectors()
