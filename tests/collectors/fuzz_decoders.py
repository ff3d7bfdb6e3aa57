"""Anything as a body: what is taken at the door must be readable later, and nothing else happens.

The first byte of an input chooses the decoder, the rest is the body. Refusing is by ``BadInput``
alone; any other exception, a hang or memory beyond its limit is a finding.

``tests.collectors.fuzz_search`` searches for findings; what was found lies in ``fuzz_corpus``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import orjson

from collectors.body_decoding import decode, validate
from collectors.claude_code_turns import assemble
from collectors.event_identity import conflicts_among
from collectors.segments import ContentType, Record, RecordKind
from collectors.transcript_lines import encode_batch
from loop.domain.errors import BadInput
from loop.domain.policies import Decision
from loop.domain.turns import Event

CORPUS = Path(__file__).with_name("fuzz_corpus")
RECEIVED_AT_US = 1_800_000_000_000_000
ENTRIES: tuple[tuple[RecordKind, ContentType], ...] = (
    ("logs", "protobuf"),
    ("logs", "json"),
    ("metrics", "protobuf"),
    ("metrics", "json"),
    ("traces", "protobuf"),
    ("traces", "json"),
    ("transcript", "json"),
    ("decisions", "json"),
)


def check(data: bytes) -> None:
    """Decodes one input and everything that follows from it.

    Raises:
        AssertionError: a body that the door takes can't be decoded.
    """
    if not data:
        return
    kind, content_type = ENTRIES[data[0] % len(ENTRIES)]
    body = data[1:]
    is_taken = True
    if kind in ("logs", "metrics", "traces"):
        try:
            validate(kind, content_type, body)
        except BadInput:
            is_taken = False
    try:
        decoded = decode(Record(kind, content_type, body, RECEIVED_AT_US))
    except BadInput:
        assert not is_taken or kind in ("transcript", "decisions"), "taken, but not readable"
        return
    sessions: dict[str, list[Event]] = {}
    for event in {event.event_id: event for event in decoded.events}.values():
        sessions.setdefault(event.session_id, []).append(event)
    for events in sessions.values():
        conflicts_among(events)
        # The drainer sets aside a session for which this raises; it must not hang or end.
        with suppress(ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
            assemble(events)


def entry_byte(kind: RecordKind, content_type: ContentType) -> bytes:
    return bytes([ENTRIES.index((kind, content_type))])


def seeds() -> Iterator[bytes]:
    """Small recorded bodies of each kind, and what was found before."""
    from tests.collectors.recordings import all_bodies, transcript_files

    smallest: dict[tuple[str, str], bytes] = {}
    for body in all_bodies():
        for content_type, content in (("json", body.as_json()), ("protobuf", body.as_protobuf())):
            key = (body.signal, content_type)
            if key not in smallest or len(content) < len(smallest[key]):
                smallest[key] = content
    for (kind, content_type), content in smallest.items():
        yield entry_byte(kind, content_type) + content  # type: ignore[arg-type]
    for path in transcript_files("a01_read_answer")[:1]:
        lines = path.read_bytes().splitlines()[:12]
        batch = encode_batch(path.stem, "", list(range(1, len(lines) + 1)), lines)
        yield entry_byte("transcript", "json") + batch
    decision = Decision("req_1", 1, "s", "", 1, 1, "sha256:0", "stable", 5, 1.0, "r", "a", "b")
    yield entry_byte("decisions", "json") + orjson.dumps([asdict(decision)])
    for path in sorted(CORPUS.iterdir()):
        yield path.read_bytes()
