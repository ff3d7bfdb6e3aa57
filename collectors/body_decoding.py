"""One entry for every kind of journal record: bytes to events."""

from __future__ import annotations

from collectors import otlp_json, otlp_protobuf
from collectors.decision_intake import decode_decisions
from collectors.otlp_decoding import DecodedBody, EventFactory, collect
from collectors.redaction import may_hold_secrets
from collectors.segments import ContentType, Record
from collectors.transcript_lines import decode_transcript


def decode(record: Record) -> DecodedBody:
    """The events of one journal record, redacted.

    Raises:
        BadInput: the body can't be decoded as what it claims to be.
    """
    factory = EventFactory(
        record.received_at_us, record.credential, redacts=may_hold_secrets(record.body)
    )
    if record.kind == "transcript":
        return decode_transcript(record, factory)
    if record.kind == "decisions":
        return decode_decisions(record, factory)
    walk = otlp_protobuf.iterate if record.content_type == "protobuf" else otlp_json.iterate
    return collect(walk(record.kind, record.body, factory), factory)


def validate(signal: str, content_type: ContentType, body: bytes) -> None:
    """Raises BadInput unless the body decodes: what is acknowledged must be readable later."""
    if content_type == "protobuf":
        otlp_protobuf.parse(signal, body)
    else:
        factory = EventFactory(0, "", redacts=False)
        for _ in otlp_json.iterate(signal, body, factory):
            pass
