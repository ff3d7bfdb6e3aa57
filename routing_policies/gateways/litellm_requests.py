"""What turnwise does to a LiteLLM request, as plain functions over its ``data`` dictionary.

Nothing here imports LiteLLM; :mod:`routing_policies.gateways.litellm_plugin` is its callback.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote

from loop.domain.errors import Refused
from loop.domain.policies import Decision
from routing_policies.client import PolicyClient
from routing_policies.repair import repair

# LiteLLM names the model that the client asked for in the answer, not the one that served, unless
# this stands in the request's metadata. A private name of LiteLLM's: `make test-litellm` holds it.
RAW_MODEL_NAME = "_complexity_router_return_raw_model_name"
_ALL_MODELS = ("all-proxy-models", "all-team-models")  # the latter: as the team's list says
# What the Anthropic API itself knows: LiteLLM keeps its own things beside it in `data`.
BODY_FIELDS = (
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "max_tokens",
    "metadata",
    "thinking",
    "output_config",
    "context_management",
    "temperature",
    "top_p",
    "top_k",
    "stream",
    "stop_sequences",
)


class BudgetUsedUp(Exception):
    """The request must not be served; ``decision`` says so for the log."""

    def __init__(self, decision: Decision, message: str) -> None:
        super().__init__(message)
        self.decision = decision


async def route_data(
    data: MutableMapping[str, Any],
    client: PolicyClient,
    is_allowed: Callable[[str], Awaitable[bool]],
) -> Decision | None:
    """Chooses the model of an Anthropic Messages request and fits the request to it, in place.

    ``is_allowed``: whether the caller may use a model. LiteLLM has asked that of the requested
    model only. ``None`` for a request that names no model. Raises :class:`BudgetUsedUp` for one
    that a budget pauses.
    """
    if not isinstance(data.get("model"), str):
        return None
    headers = headers_of(data)
    body = {name: data[name] for name in BODY_FIELDS if name in data}
    choice = client.route_body(body, headers)
    decision = choice.decision
    if choice.pause is not None:
        raise BudgetUsedUp(decision, choice.pause.message)
    if decision.routed_model == decision.requested_model and not choice.effort:
        return decision
    changes_model = decision.routed_model != decision.requested_model
    if changes_model and not await is_allowed(decision.routed_model):
        return _kept(decision, "guard:not_allowed")
    betas = headers.get("anthropic-beta", "")
    try:
        fitted = repair(body, betas, decision.routed_model, choice.effort)
    except Refused:
        return _kept(decision, "guard:untranslatable")
    for name in BODY_FIELDS:
        if name in fitted.body:
            data[name] = fitted.body[name]
        else:
            data.pop(name, None)
    if fitted.betas != betas:
        _set_betas(data, fitted.betas)
    return replace(decision, fixes=fitted.fixes)


def stamp(data: MutableMapping[str, Any], decision: Decision) -> None:
    """Writes the decision into LiteLLM's metadata: spend logs, tags, and for the later hooks."""
    metadata = data.get("litellm_metadata")
    if not isinstance(metadata, dict):
        metadata = data["litellm_metadata"] = {}
    metadata[RAW_MODEL_NAME] = True
    attributes = span_attributes(decision)
    logs = metadata.get("spend_logs_metadata")
    metadata["spend_logs_metadata"] = {**(logs if isinstance(logs, dict) else {}), **attributes}
    tags = metadata.get("tags")
    metadata["tags"] = [
        *(tags if isinstance(tags, list) else []),
        f"policy:{decision.policy_version}",
        f"arm:{decision.arm}",
    ]


def span_attributes(decision: Decision) -> dict[str, str | int]:
    return {
        "turnwise.decision.id": decision.decision_id,
        "turnwise.policy.serial": decision.serial,
        "turnwise.policy.version": decision.policy_version,
        "turnwise.policy.arm": decision.arm,
        "turnwise.policy.rule": decision.rule_id,
        "turnwise.model.requested": decision.requested_model,
        "turnwise.model.routed": decision.routed_model,
    }


def headers_of(data: Mapping[str, Any]) -> dict[str, str]:
    """The client's headers with lower-case names."""
    request = data.get("proxy_server_request")
    headers = request.get("headers") if isinstance(request, dict) else None
    found = headers.items() if isinstance(headers, Mapping) else ()
    return {str(name).lower(): str(value) for name, value in found}


def allowed_models(key: Any) -> Callable[[str], bool]:
    """Whether LiteLLM's lists for a key and its team both name a model; an empty list allows all.

    For releases of LiteLLM that can't be asked themselves. Only names and ``*`` patterns count: a
    model that is allowed in a roundabout way (an access group, an alias) stays unused rather than
    being given to someone who may not have it.
    """
    lists = [list(getattr(key, name, None) or ()) for name in ("models", "team_models")]

    def is_allowed(model: str) -> bool:
        return all(
            not names or any(name in _ALL_MODELS or fnmatchcase(model, name) for name in names)
            for names in lists
        )

    return is_allowed


def decision_id_of(data: Mapping[str, Any]) -> str:
    """The id of the decision that :func:`stamp` wrote; "" where there is none."""
    return str(_stamped(data).get("turnwise.decision.id", ""))


def response_headers(data: Mapping[str, Any]) -> dict[str, str] | None:
    """What goes onto the response of a stamped request."""
    stamped = _stamped(data)
    if not stamped:
        return None
    return {
        "request-id": str(stamped["turnwise.decision.id"]),
        "x-turnwise-policy": str(stamped["turnwise.policy.version"]),
        "x-turnwise-arm": quote(str(stamped["turnwise.policy.arm"])),
    }


def _stamped(data: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = data.get("litellm_metadata")
    logs = metadata.get("spend_logs_metadata") if isinstance(metadata, dict) else None
    return logs if isinstance(logs, dict) and "turnwise.decision.id" in logs else {}


def _set_betas(data: MutableMapping[str, Any], betas: str) -> None:
    """LiteLLM has copied the client's header to where it takes the upstream's from."""
    scoped = data.get("provider_specific_header")
    entries = scoped if isinstance(scoped, list) else [scoped]
    places = [entry.get("extra_headers") for entry in entries if isinstance(entry, dict)]
    places += [data.get("headers"), data.get("extra_headers")]
    found = False
    for headers in [place for place in places if isinstance(place, dict)]:
        for name in [name for name in headers if str(name).lower() == "anthropic-beta"]:
            found = True
            if betas:
                headers[name] = betas
            else:
                del headers[name]
    if betas and not found:
        data["extra_headers"] = {**_object(data.get("extra_headers")), "anthropic-beta": betas}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _kept(decision: Decision, rule_id: str) -> Decision:
    return replace(decision, routed_model=decision.requested_model, rule_id=rule_id)
