"""The same tokens told three times: by log event, by metric and by span. Do they agree?

Per model and class of tokens, and for the client's own cost, the sums of the three are compared;
requests are compared with the gateway's decisions too. A source that a session does not send is not
compared. What differs is shown with the reasons that are known to make it differ: nothing here
changes what is charged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from collectors.event_fields import text
from collectors.event_identity import ruling_events
from collectors.request_usage import client_cost, usage_of_record
from collectors.session_facts import DECISION, LLM_REQUEST
from collectors.token_metrics import MeteredUsage, read_metered
from loop.domain.turns import Event, TokenUsage, Turn

TOKEN_MEASURES = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
REQUESTS, COST = "requests", "cost_microusd"
MEASURES = (REQUESTS, *TOKEN_MEASURES, COST)
EVENT, METRIC, SPAN, GATEWAY = "event", "metric", "span", "gateway"
SOURCES = (EVENT, METRIC, SPAN, GATEWAY)
_REQUEST_EVENT = "claude_code.api_request"

_TELLS = {
    EVENT: MEASURES,
    METRIC: (*TOKEN_MEASURES, COST),
    SPAN: (REQUESTS, *TOKEN_MEASURES),
    GATEWAY: (REQUESTS,),  # a decision names the model as the gateway calls it: only all compare
}

REASONS: dict[str, str] = {
    "model_rewritten": "The gateway rewrote the model: log events name the model that served, "
    "metrics and spans the one that was asked for. Over all models the sums agree.",
    "metrics_behind": "Requests ended after the last export of metrics: the client was killed "
    "before it, or has not reached it yet.",
    "logs_behind": "Metrics count more than log events: log records were lost, or logging began "
    "after the session did. Intervals without any log are charged from metrics.",
    "spans_behind": "Spans count less than log events: a killed client loses its last ones.",
    "retries": "The gateway saw more requests than the client counts: the client reports a request "
    "once, however often it tried.",
    "past_the_gateway": "The client counts requests that the gateway did not report.",
    "unknown": "None of the known reasons explains the difference.",
}


@dataclass(frozen=True, slots=True)
class CheckedSum:
    """One measure of one model as each source tells it; ``None`` where the source is not sent.

    ``model`` "" is all models together. ``charged`` is what the turns hold.
    """

    model: str
    measure: str
    by_event: int | None
    by_metric: int | None
    by_span: int | None
    by_gateway: int | None
    charged: int

    @property
    def difference(self) -> int:
        """The largest minus the smallest of what is told."""
        told = [n for n in (self.by_event, self.by_metric, self.by_span, self.by_gateway)
                if n is not None]  # fmt: skip
        return max(told) - min(told) if told else 0


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """``sources`` are those compared; ``reasons`` are keys of :data:`REASONS`, none where all
    agree."""

    sources: tuple[str, ...]
    sums: tuple[CheckedSum, ...]
    reasons: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        return {
            "agrees": self.agrees,
            "sources": list(self.sources),
            "sums": [asdict(item) | {"difference": item.difference} for item in self.sums],
            "reasons": [{"reason": name, "text": REASONS[name]} for name in self.reasons],
        }


Sums = Counter[tuple[str, str]]  # by model and measure


def cross_check(events: Iterable[Event], turns: Iterable[Turn]) -> CrossCheck:
    """Compares a session's sources. Order and duplicates of the events make no difference."""
    ruling = ruling_events(events)
    metered = read_metered(ruling)
    told = {
        EVENT: _of_events(ruling),
        METRIC: _of_metrics(metered),
        SPAN: _of_spans(ruling),
        GATEWAY: Counter({("", REQUESTS): sum(event.name == DECISION for event in ruling)}),
    }
    told = {source: +sums for source, sums in told.items() if sums.total()}
    charged = _of_turns(turns)
    keys = {key for sums in told.values() for key in sums}
    sums = tuple(
        CheckedSum(
            model,
            measure,
            _said(told.get(EVENT), EVENT, model, measure),
            _said(told.get(METRIC), METRIC, model, measure),
            _said(told.get(SPAN), SPAN, model, measure),
            _said(told.get(GATEWAY), GATEWAY, model, measure),
            charged[model, measure] if model else _total(charged, measure),
        )
        for measure in MEASURES
        for model in sorted({model for model, named in keys if named == measure})
    )
    reasons = _reasons(told, sums, ruling, metered)
    return CrossCheck(tuple(source for source in SOURCES if source in told), sums, reasons)


def _said(sums: Sums | None, source: str, model: str, measure: str) -> int | None:
    """What a source says of a measure of a model, or of all models for ""."""
    if sums is None or measure not in _TELLS[source] or (source == GATEWAY and model):
        return None
    return sums[model, measure] if model else _total(sums, measure)


def _reasons(
    told: Mapping[str, Sums],
    sums: Iterable[CheckedSum],
    events: list[Event],
    metered: list[MeteredUsage],
) -> tuple[str, ...]:
    totals = {
        source: {measure: _total(found, measure) for measure in MEASURES}
        for source, found in told.items()
    }
    requests = totals[EVENT][REQUESTS] if EVENT in totals else 0
    # Each request's cost was rounded once.
    differing = [
        item for item in sums if item.difference > (requests if item.measure == COST else 0)
    ]
    if not differing:
        return ()
    found = []

    def behind(less: str, more: str, *measures: str) -> bool:
        return any(
            totals[less][measure] < totals[more][measure]
            for measure in measures
            if less in totals and more in totals
        )

    tokens = TOKEN_MEASURES
    if behind(METRIC, EVENT, *tokens) or behind(METRIC, SPAN, *tokens):
        covered = max((usage.ended_at_us for usage in metered), default=0)
        if any(event.at_us > covered for event in events if event.kind in ("log", "span")):
            found.append("metrics_behind")
    if behind(EVENT, METRIC, *tokens) or behind(EVENT, SPAN, *tokens):
        found.append("logs_behind")
    if behind(SPAN, EVENT, REQUESTS, *tokens):
        found.append("spans_behind")
    if behind(EVENT, GATEWAY, REQUESTS) or behind(SPAN, GATEWAY, REQUESTS):
        found.append("retries")
    if behind(GATEWAY, EVENT, REQUESTS):
        found.append("past_the_gateway")
    if _is_rewritten(differing, totals):
        found.append("model_rewritten")
    return tuple(found) or ("unknown",)


def _is_rewritten(differing: list[CheckedSum], totals: Mapping[str, Mapping[str, int]]) -> bool:
    """Whether something differs by model that agrees over all models."""
    compared = [source for source in (EVENT, METRIC, SPAN) if source in totals]
    return any(
        len({totals[source][item.measure] for source in compared}) == 1
        for item in differing
        if item.measure in TOKEN_MEASURES
    )


def _total(sums: Sums, measure: str) -> int:
    return sum(count for (_, named), count in sums.items() if named == measure)


def _of_events(events: Iterable[Event]) -> Sums:
    sums: Sums = Counter()
    for event in events:
        if event.name == _REQUEST_EVENT and (usage := usage_of_record(event)):
            model = text(event, "model")
            _add(sums, model, usage)
            sums[model, REQUESTS] += 1
            sums[model, COST] += client_cost(event) or 0
    return sums


def _of_spans(events: Iterable[Event]) -> Sums:
    sums: Sums = Counter()
    for event in events:
        if event.name == LLM_REQUEST and (usage := usage_of_record(event)):
            model = text(event, "gen_ai.request.model", "model")
            _add(sums, model, usage)
            sums[model, REQUESTS] += 1
    return sums


def _of_metrics(metered: Iterable[MeteredUsage]) -> Sums:
    sums: Sums = Counter()
    for usage in metered:
        _add(sums, usage.model, usage.tokens)
        sums[usage.model, COST] += usage.cost_microusd or 0
    return sums


def _of_turns(turns: Iterable[Turn]) -> Sums:
    sums: Sums = Counter()
    for turn in turns:
        if turn.status != "error":
            _add(sums, turn.model, turn.usage)
            sums[turn.model, REQUESTS] += 1
            sums[turn.model, COST] += turn.cost_microusd or 0
    return sums


def _add(sums: Sums, model: str, usage: TokenUsage) -> None:
    sums[model, "input_tokens"] += usage.input_tokens
    sums[model, "output_tokens"] += usage.output_tokens
    sums[model, "cache_read_tokens"] += usage.cache_read_tokens
    sums[model, "cache_creation_tokens"] += (
        usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens
    )
