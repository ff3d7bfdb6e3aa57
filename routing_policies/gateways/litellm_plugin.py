"""turnwise as a callback of the LiteLLM proxy: the policy chooses the model of each request.

Named in LiteLLM's configuration as ``routing_policies.gateways.litellm_plugin.callback`` and set
by environment variables (docs/gateways.md). One policy client a process, on threads of its own;
a request never waits for the service. What goes wrong here leaves the request as it came.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger

from loop.domain.errors import BadInput, TurnwiseError
from loop.domain.policies import Decision
from routing_policies.client import PolicyClient
from routing_policies.decision_reporter import DecisionReporter
from routing_policies.gateways.litellm_requests import (
    BudgetUsedUp,
    allowed_models,
    decision_id_of,
    response_headers,
    route_data,
    span_attributes,
    stamp,
)
from routing_policies.signing import TrustedKeys

log = logging.getLogger("turnwise.litellm")

MAX_PENDING = 10_000
PAYMENT_REQUIRED = 402
# What a body that nobody foresaw can raise: a request must not fail for that.
_UNFORESEEN = (TurnwiseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class TurnwiseCallback(CustomLogger):  # type: ignore[misc]  # not installed where mypy runs
    """Made once a process, by :data:`callback`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._connect()

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Routes an Anthropic Messages request; every other call is left alone."""
        if call_type != "anthropic_messages":
            return data
        if self._process != os.getpid():
            self._connect()  # a forked worker has none of its parent's threads
        try:
            decision = await route_data(
                data, self._client, lambda model: _may_use(user_api_key_dict, model)
            )
            if decision is None:
                return data
            stamp(data, decision)
        except BudgetUsedUp as used_up:
            self._reporter.report(replace(used_up.decision, upstream_status=PAYMENT_REQUIRED))
            raise HTTPException(PAYMENT_REQUIRED, f"turnwise: {used_up}") from used_up
        except _UNFORESEEN:
            log.exception("A request keeps its model")
            return data
        self._remember(decision)
        span = getattr(user_api_key_dict, "parent_otel_span", None)
        if span is not None:
            for name, value in span_attributes(decision).items():
                span.set_attribute(name, value)
        return data

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,
        response: Any,
        request_headers: dict[str, str] | None = None,
        litellm_call_info: dict[str, Any] | None = None,
    ) -> dict[str, str] | None:
        """The decision's id as ``request-id``, where Claude Code's telemetry takes it up."""
        if response is not None:
            self._report(decision_id_of(data), 200)
        return response_headers(data)

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        status = getattr(original_exception, "status_code", None)
        self._report(decision_id_of(request_data), status if isinstance(status, int) else None)

    def _connect(self) -> None:
        settings = self._environment
        url, keys = settings.get("TURNWISE_URL", ""), settings.get("TURNWISE_KEYS", "")
        if not url or not keys:
            raise BadInput(
                "The LiteLLM plugin needs TURNWISE_URL and TURNWISE_KEYS.",
                fix="docs/gateways.md shows the settings.",
            )
        try:
            trusted = TrustedKeys.from_document(json.loads(Path(keys).read_text()))
        except (OSError, ValueError) as error:
            raise BadInput(f"{keys} holds no trusted keys.", why=str(error)) from error
        state, token = settings.get("TURNWISE_STATE", ""), settings.get("TURNWISE_TOKEN", "")
        self._process = os.getpid()
        self._pending: OrderedDict[str, Decision] = OrderedDict()
        self._reporter = DecisionReporter(url, token=token)
        self._client = PolicyClient(
            url,
            trusted,
            channel=settings.get("TURNWISE_CHANNEL", "prod"),
            gateway="litellm",
            token=token,
            state_path=Path(state) if state else None,
            decided=self._reporter.decided,
        )
        self._reporter.start()
        self._client.start()

    def _remember(self, decision: Decision) -> None:
        """Keeps a decision until its answer has a status; what was broken off goes without."""
        with self._lock:
            self._pending[decision.decision_id] = decision
            oldest = (
                self._pending.popitem(last=False)[1] if len(self._pending) > MAX_PENDING else None
            )
        if oldest is not None:
            self._reporter.report(oldest)

    def _report(self, decision_id: str, status: int | None) -> None:
        with self._lock:
            decision = self._pending.pop(decision_id, None)
        if decision is not None:
            self._reporter.report(replace(decision, upstream_status=status))


async def _may_use(key: Any, model: str) -> bool:
    """LiteLLM's own answer, as its routers ask it: key, team, project and customer, with their
    access groups and aliases. Whatever it raises is a refusal."""
    try:
        from litellm.proxy.auth.auth_checks import can_key_call_resolved_model
        from litellm.proxy.proxy_server import llm_model_list, llm_router
    except ImportError:
        return allowed_models(key)(model)
    try:
        await can_key_call_resolved_model(
            model=model, llm_model_list=llm_model_list, valid_token=key, llm_router=llm_router
        )
    except Exception as refusal:  # noqa: BLE001
        log.info("A request keeps its model: %s", refusal)
        return False
    return True


callback = TurnwiseCallback(os.environ)
