"""What the edge proxy writes of a decision into the headers of requests and answers."""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from loop.domain.policies import Decision
from routing_policies.edge_answers import Headers

# `rewrite`: the model and its parameters are set in the body. `stamp`: the body stays, and headers
# tell a gateway behind what was decided. `rewrite_and_stamp`: both.
EdgeMode = Literal["rewrite", "stamp", "rewrite_and_stamp"]


def answer_stamps(decision: Decision) -> Headers:
    """``request-id`` is what Claude Code copies into its telemetry: the join key."""
    return [
        (b"request-id", decision.decision_id.encode()),
        (b"x-turnwise-policy", str(decision.policy_version).encode()),
        (b"x-turnwise-arm", quote(decision.arm).encode()),
    ]


def request_stamps(decision: Decision) -> Headers:
    """The decision and its features, for a gateway that routes by headers.

    Texts are percent-encoded but for ``/``; a client's own headers of these names never pass.
    """
    texts = {
        "decision": decision.decision_id,
        "arm": decision.arm,
        "rule": decision.rule_id,
        "requested-model": decision.requested_model,
        "model": decision.routed_model,
        "request-class": decision.request_class,
        "agent": decision.agent_name,
        "org": decision.org_path,
        "repo": decision.repository,
    }
    numbers = {
        "policy": decision.policy_version,
        "total-input-tokens": decision.total_input_tokens,
        "uncached-input-tokens": decision.uncached_input_tokens,
        "new-tokens": decision.new_tokens,
        "prompt-tokens": decision.prompt_tokens,
    }
    values = {name: quote(text, safe="/:") for name, text in texts.items() if text}
    values |= {name: str(number) for name, number in numbers.items()}
    return [(f"x-tw-{name}".encode(), value.encode()) for name, value in values.items()]
