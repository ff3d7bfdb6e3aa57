"""The tokens of one request and the terms it was served on, from the best source that tells them.

The order of trust (``docs/client-telemetry.md`` has the reasons):

1. ``api_request``: the client's own count, with cache writes split since 2.1.330,
2. the raw response body: the API's own count,
3. the transcript, once the answer was complete,
4. the ``llm_request`` span: the same count without the split,
5. the transcript's first line of an answer that older clients never completed: its
   ``output_tokens`` is a placeholder of the stream's beginning.

A count without a split takes the split of any other source that agrees on the sum; failing that,
all cache writes count as 5-minute ones, and the turn says that this is assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from collectors.api_usage import TERM_NAMES, UNSTATED, ServiceTerms, terms_of
from collectors.event_fields import integer
from collectors.session_facts import RequestFacts
from loop.domain.quick_records import quickly_made
from loop.domain.turns import Event, TokenUsage

LOG, RAW_BODY, TRANSCRIPT, SPAN = "otlp-log", "raw-body", "transcript", "otlp-span"
PARTIAL_TRANSCRIPT = "transcript-partial"
USAGE_ORDER = (LOG, RAW_BODY, TRANSCRIPT, SPAN, PARTIAL_TRANSCRIPT)


@quickly_made
@dataclass(frozen=True, slots=True)
class StatedUsage:
    """Tokens as one source tells them. Without ``has_split`` all cache writes stand as 5-minute."""

    source: str
    tokens: TokenUsage
    has_split: bool


def request_usage(request: RequestFacts) -> StatedUsage | None:
    """The tokens of a request by the order above; ``None`` when nothing counted them."""
    stated = _stated(request)
    best = next(stated, None)
    if best is None or best.has_split:
        return best
    for other in stated:
        if other.has_split and _creation(other.tokens) == _creation(best.tokens):
            split = replace(
                best.tokens,
                cache_creation_5m_tokens=other.tokens.cache_creation_5m_tokens,
                cache_creation_1h_tokens=other.tokens.cache_creation_1h_tokens,
            )
            return StatedUsage(best.source, split, has_split=True)
    return best


def request_terms(request: RequestFacts) -> ServiceTerms:
    """Speed, service tier and region: the API's word before the client's."""
    terms = request.raw.terms if request.raw else UNSTATED
    if request.lines:
        terms = terms.or_else(request.lines.terms)
    for event in request.records():
        attributes = event.attributes
        if any(map(attributes.__contains__, TERM_NAMES)):
            stated = terms_of(attributes)
            terms = stated if terms is UNSTATED else terms.or_else(stated)
    return terms


def _stated(request: RequestFacts) -> Iterator[StatedUsage]:
    """What each source tells, the most trusted first."""
    done = request.outcomes.get("claude_code.api_request")
    if done is not None and (usage := _of_record(done, LOG)):
        yield usage
    raw, lines = request.raw, request.lines
    if raw is not None and raw.usage is not None:
        yield StatedUsage(RAW_BODY, raw.usage, raw.has_split)
    is_whole = lines is not None and bool(lines.stop_reason)
    if lines is not None and lines.usage is not None and is_whole:
        yield StatedUsage(TRANSCRIPT, lines.usage, lines.has_split)
    if request.span is not None and (usage := _of_record(request.span, SPAN)):
        yield usage
    if lines is not None and lines.usage is not None and not is_whole:
        yield StatedUsage(PARTIAL_TRANSCRIPT, lines.usage, lines.has_split)


def usage_of_record(event: Event) -> TokenUsage | None:
    """Tokens that an ``api_request`` or an ``llm_request`` span states, or ``None``."""
    stated = _of_record(event, "")
    return stated.tokens if stated else None


def _of_record(event: Event, source: str) -> StatedUsage | None:
    """Tokens of an ``api_request`` or an ``llm_request`` span."""
    given, made = integer(event, "input_tokens"), integer(event, "output_tokens")
    if given is None and made is None:
        return None
    creation = integer(event, "cache_creation_tokens")
    one_hour = integer(event, "cache_creation_1h_tokens")
    five_minutes = integer(event, "cache_creation_5m_tokens")
    has_split = one_hour is not None or five_minutes is not None or not creation
    if five_minutes is None:
        five_minutes = max(0, (creation or 0) - (one_hour or 0))
    tokens = TokenUsage(
        input_tokens=given or 0,
        output_tokens=made or 0,
        cache_read_tokens=integer(event, "cache_read_tokens") or 0,
        cache_creation_5m_tokens=five_minutes,
        cache_creation_1h_tokens=one_hour or 0,
    )
    return StatedUsage(source, tokens, has_split)


def _creation(usage: TokenUsage) -> int:
    return usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens


def client_cost(event: Event) -> int | None:
    """The client's own figure on an ``api_request``, micro-dollars."""
    micros = integer(event, "cost_usd_micros")
    if micros is not None:
        return micros
    dollars = event.attributes.get("cost_usd")
    if isinstance(dollars, int | float) and not isinstance(dollars, bool) and abs(dollars) < 1e12:
        return round(dollars * 1_000_000)
    return None
