"""One entry for every kind of journal record: bytes to events."""

from __future__ import annotations

import time
from collections import Counter

from collectors import otlp_json, otlp_protobuf
from collectors.decision_intake import decode_decisions
from collectors.otlp_decoding import DecodedBody, EventFactory, collect
from collectors.record_limits import AHEAD, MAX_AHEAD_US
from collectors.segments import ContentType, Record
from collectors.transcript_lines import decode_transcript


def decode(record: Record, judged_at_us: int | None = None) -> DecodedBody:
    """The events of one journal record, but for those beyond the limits of a record and
    those more than 24 hours ahead of the moment that the record was received (or of another one
    given); these are counted.

    Raises:
        BadInput: the body can't be decoded as what it claims to be.
    """
    decoded = _decode_all(record)
    latest_us = (judged_at_us or record.received_at_us) + MAX_AHEAD_US
    events = [event for event in decoded.events if event.at_us <= latest_us]
    ahead = len(decoded.events) - len(events)
    if not ahead:
        return decoded
    rejected = {**decoded.rejected, AHEAD: ahead}
    return DecodedBody(events, decoded.without_session, rejected, decoded.written)


def _decode_all(record: Record) -> DecodedBody:
    factory = EventFactory(record.received_at_us, record.credential)
    if record.kind == "transcript":
        return decode_transcript(record, factory)
    if record.kind == "decisions":
        return decode_decisions(record, factory)
    walk = otlp_protobuf.iterate if record.content_type == "protobuf" else otlp_json.iterate
    return collect(walk(record.kind, record.body, factory), factory)


def validate(signal: str, content_type: ContentType, body: bytes) -> Counter[str]:
    """Proves a body readable, for what is acknowledged must be readable later.

    Returns how many of its records will be set aside, by reason. (Of protobuf, one that is nested
    too deeply or has too large an attribute is only found when it is decoded.)

    Raises:
        BadInput: it does not decode.
    """
    latest_us = time.time_ns() // 1000 + MAX_AHEAD_US
    if content_type == "protobuf":
        return otlp_protobuf.count_rejected(signal, otlp_protobuf.parse(signal, body), latest_us)
    factory = EventFactory(0, "")
    for event in otlp_json.iterate(signal, body, factory):
        if event.at_us > latest_us:
            factory.reject(AHEAD)
    return factory.rejected
