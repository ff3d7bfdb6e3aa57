"""Token counts of the conventions, brought into the classes that are priced apart.

The conventions differ in what they call input tokens: with what was read from and written to the
prompt cache (OTel GenAI, OpenInference, OpenLLMetry, LiteLLM, MLflow) or without (Langfuse,
traceAI's Anthropic instrumentation). ``docs/conventions.md`` gives each one's source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collectors.api_usage import has_split, usage_of
from collectors.conventions.convention import CallUsage
from collectors.event_fields import integer
from loop.domain.turns import TokenUsage

CACHE_UNTOLD = "its telemetry does not tell cached input tokens from others"
CONTRADICTION = "its telemetry tells more cached input tokens than input tokens"


def call_usage(
    *,
    input_tokens: int | None,
    output_tokens: int | None,
    cache_read: int | None = None,
    cache_creation: int | None = None,
    one_hour: int | None = None,
    includes_cache: bool,
    tells_cache: bool = False,
) -> CallUsage | None:
    """The usage of one call; ``None`` where nothing was counted.

    ``includes_cache``: the input tokens include what was read from and written to the cache.
    ``tells_cache``: where no cached tokens are told there were none. Otherwise a call without a
    word on them has no price: cached tokens cost a tenth of others, or more than they do.
    ``one_hour``: the part of the cache writes that is kept for an hour; ``None`` is not told.
    """
    counts = (input_tokens, output_tokens, cache_read, cache_creation)
    if all(count is None for count in counts[:2]) or not all(map(_is_count, counts)):
        return None
    read, creation = cache_read or 0, cache_creation or 0
    total, output = input_tokens or 0, output_tokens or 0
    uncached = total - read - creation if includes_cache else total
    if uncached < 0:
        return CallUsage(TokenUsage(total, output), unpriced_reason=CONTRADICTION)
    hour = min(max(one_hour or 0, 0), creation)
    tokens = TokenUsage(uncached, output, read, creation - hour, hour)
    untold = cache_read is None and cache_creation is None and not tells_cache and total > 0
    return CallUsage(
        tokens,
        split_assumed=creation > 0 and one_hour is None,
        unpriced_reason=CACHE_UNTOLD if untold else "",
    )


def api_usage(message: Any) -> CallUsage | None:
    """The usage in an answer of Anthropic's API, where a convention carries it whole."""
    if not isinstance(message, Mapping) or message.get("type") != "message":
        return None
    usage = message.get("usage")
    if not isinstance(usage, Mapping):
        return None
    return anthropic_usage(usage)


def anthropic_usage(usage: Mapping[str, Any]) -> CallUsage | None:
    """Anthropic's ``usage`` object: exact, with cache writes split where the API splits them."""
    names = (
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    )
    counts = [integer(usage, name) for name in names]
    tokens = usage_of(usage)
    if counts[0] is None or counts[1] is None or not all(map(_is_count, counts)):
        return None
    if tokens.cache_creation_1h_tokens < 0:
        return None
    told = counts[2] is not None or counts[3] is not None
    return CallUsage(
        tokens,
        split_assumed=not has_split(usage),
        unpriced_reason="" if told else CACHE_UNTOLD,
    )


def _is_count(count: int | None) -> bool:
    """Whether a count can be one: more tokens than this no request has."""
    return count is None or 0 <= count < 2**40
