"""Anthropic's ``usage`` object: tokens by class, and the terms that a request was served on.

It stands in transcripts, in raw response bodies and in what gateways log of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collectors.event_fields import integer, text
from loop.domain.quick_records import quickly_made
from loop.domain.turns import TokenUsage

_SPEEDS = {"normal": "standard"}  # telemetry's word for what the API calls standard
_NOWHERE = ("not_available", "none")


@quickly_made
@dataclass(frozen=True, slots=True)
class ServiceTerms:
    """What the price depends on besides model and tokens; "" where nothing states it."""

    speed: str = ""  # standard | fast
    service_tier: str = ""  # standard | priority | batch
    inference_geo: str = ""  # global, us, ...
    web_search_requests: int = 0

    def or_else(self, other: ServiceTerms) -> ServiceTerms:
        """These terms, with what they leave open taken from others."""
        return ServiceTerms(
            self.speed or other.speed,
            self.service_tier or other.service_tier,
            self.inference_geo or other.inference_geo,
            self.web_search_requests or other.web_search_requests,
        )


UNSTATED = ServiceTerms()
TERM_NAMES = ("speed", "service_tier", "inference_geo", "server_tool_use")
"""What :func:`terms_of` reads: without any of these nothing is stated."""


def usage_of(usage: Mapping[str, Any]) -> TokenUsage:
    """The tokens; cache writes without a split count as 5-minute ones."""
    creation = integer(usage, "cache_creation_input_tokens") or 0
    split = usage.get("cache_creation")
    split = split if isinstance(split, Mapping) else {}
    one_hour = min(creation, integer(split, "ephemeral_1h_input_tokens") or 0)
    return TokenUsage(
        input_tokens=integer(usage, "input_tokens") or 0,
        output_tokens=integer(usage, "output_tokens") or 0,
        cache_read_tokens=integer(usage, "cache_read_input_tokens") or 0,
        cache_creation_5m_tokens=creation - one_hour,
        cache_creation_1h_tokens=one_hour,
    )


def has_split(usage: Mapping[str, Any]) -> bool:
    """Whether the object says how its cache writes divide, or has none to divide."""
    return isinstance(usage.get("cache_creation"), Mapping) or not integer(
        usage, "cache_creation_input_tokens"
    )


def terms_of(stated: Mapping[str, Any]) -> ServiceTerms:
    """The terms in a ``usage`` object or in the attributes of a record."""
    speed, geo = text(stated, "speed"), text(stated, "inference_geo")
    tools = stated.get("server_tool_use")
    searches = integer(tools, "web_search_requests") if isinstance(tools, Mapping) else 0
    return ServiceTerms(
        _SPEEDS.get(speed, speed),
        text(stated, "service_tier"),
        "" if geo in _NOWHERE else geo,
        max(0, searches or 0),
    )
