"""The gateways' decision log: a JSON list of decisions becomes journal records, then events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

import orjson

from collectors.journal import Journal
from collectors.otlp_decoding import DecodedBody, EventFactory, digest
from collectors.segments import Record
from loop.domain.errors import BadInput
from loop.domain.policies import Decision
from loop.domain.turns import Event

_YEAR_10000_US = 253_402_300_800_000_000
DECISION_EVENT = "turnwise.decision"
_FIELDS = {field.name: field for field in fields(Decision)}
_READERS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, int),
    "int | None": lambda value: value is None or isinstance(value, int),
    "float": lambda value: isinstance(value, int | float),
    "str": lambda value: isinstance(value, str),
    "tuple[str, ...]": lambda value: (
        isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    ),
}


def parse_decisions(body: bytes) -> list[Decision]:
    """The decisions of a JSON list (or of an object with the list under ``decisions``).

    Unknown keys are ignored, so a newer gateway may say more than this version reads.

    Raises:
        BadInput: it is no such list; the position and the field are named.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadInput(
            "The decisions are no JSON.", why=str(error), fix="Send a JSON list of decisions."
        ) from error
    if isinstance(document, dict):
        document = document.get("decisions")
    if not isinstance(document, list):
        raise BadInput("The decisions are no list.", fix="Send a JSON list of decisions.")
    return [_decision(item, position) for position, item in enumerate(document)]


async def accept_decisions(journal: Journal, body: bytes, *, credential: str = "") -> int:
    """Validates a body and makes it durable; returns how many decisions it holds.

    Raises:
        BadInput: see :func:`parse_decisions`; nothing was kept.
        Unavailable: the journal can't take it now.
    """
    decisions = parse_decisions(body)
    if decisions:
        await journal.append("decisions", "json", body, credential=credential)
    return len(decisions)


def decode_decisions(record: Record, factory: EventFactory) -> DecodedBody:
    """One ``turnwise.decision`` event per decision, with its fields as attributes."""
    events = []
    for decision in parse_decisions(record.body):
        stated = asdict(decision)
        event = Event(
            digest("decision", stated),
            "decision",
            DECISION_EVENT,
            decision.session_id,
            decision.at_us,
            0,
            stated,
            {},
            record.received_at_us,
            record.credential,
        )
        events.append(event)
    return DecodedBody(events, sum(not event.session_id for event in events))


def decision_of(event: Event) -> Decision:
    """The decision that a ``turnwise.decision`` event carries."""
    return _decision(event.attributes, 0)


def _decision(item: Any, position: int) -> Decision:
    if not isinstance(item, Mapping):
        raise BadInput(f"Decision {position} is no object.", fix="Send decision documents.")
    known = {name: item[name] for name in _FIELDS if name in item}
    for name, field in _FIELDS.items():
        if name not in known:
            if field.default is MISSING and field.default_factory is MISSING:
                raise BadInput(f"Decision {position} lacks {name}.", fix=f"Add {name}.")
            continue
        value = known[name]
        if isinstance(value, bool) or not _READERS[str(field.type)](value):
            raise BadInput(
                f"Decision {position}: {name} should be {field.type}, not {value!r}.",
                fix=f"Send {name} as {field.type}.",
            )
        if isinstance(value, list):
            known[name] = tuple(value)
    decision = Decision(**known)
    if not decision.decision_id:
        raise BadInput(f"Decision {position} has an empty decision_id.", fix="Name the request.")
    numbers = [value for value in known.values() if isinstance(value, int)]
    if not 0 <= decision.at_us < _YEAR_10000_US or any(abs(number) >= 2**63 for number in numbers):
        raise BadInput(
            f"Decision {position}: a time or a number is out of range.",
            fix="Send microseconds since 1970 and numbers of 64 bits.",
        )
    if not 0.0 <= decision.propensity <= 1.0:
        raise BadInput(
            f"Decision {position}: propensity {decision.propensity} is no probability.",
            fix="Send the probability of the chosen arm.",
        )
    return decision
