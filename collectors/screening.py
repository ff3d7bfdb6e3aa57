"""The door to the journal: no body passes it with a secret, or with more content than its sender's
business unit stores.

A body in which nothing may be found, of a sender whose texts are kept, passes byte for byte after
one scan. Any other is parsed, changed in place and encoded again. What can't be parsed is cleaned
as the bytes that it is; it is refused where content must not be stored.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

from collectors import screened_protobuf
from collectors.content_rules import ContentModes
from collectors.otlp_protobuf import parse
from collectors.redaction import may_hold_secrets, redact_bytes
from collectors.screened_json import screen_document, screen_otlp
from collectors.segments import ContentType, RecordKind
from loop.domain.errors import BadInput

_LINES_AT_ONCE = 16
_KEEP_TEXTS = ContentModes()


def _keep_texts() -> ContentModes:
    return _KEEP_TEXTS


class Screen:
    """Screens bodies under the content modes in force, which ``modes`` gives. Thread-safe."""

    def __init__(self, modes: Callable[[], ContentModes] | None = None) -> None:
        self.modes = modes or _keep_texts

    def screen(
        self, kind: RecordKind, content_type: ContentType, body: bytes, credential: str = ""
    ) -> bytes:
        """The body as it may be stored.

        Raises:
            BadInput: it can't be read, and content of its sender must not be stored.
            Unavailable: it can't be told yet what may be stored.
        """
        if kind in ("refusals", "reassembly"):
            return body  # the service's own counts and session ids, no sender's texts
        modes = self.modes()
        keeps_texts = kind == "decisions" or modes.is_always_full()
        # Lines are looked into one by one, so a look at all of them first would be one too many.
        is_clean = kind != "transcript" and not may_hold_secrets(body)
        if keeps_texts and is_clean:
            return body
        try:
            if content_type == "protobuf":
                return _screen_protobuf(kind, body, modes, credential, is_clean)
            if kind == "transcript":
                return _screen_lines(body, modes, credential)
            return _screen_json(kind, body, modes, credential, is_clean)
        except (BadInput, orjson.JSONDecodeError, RecursionError):
            if not keeps_texts:
                raise BadInput(
                    "The body can't be read, so its texts can't be taken out of it.",
                    why="The content mode of its sender asks for that.",
                ) from None
            return redact_bytes(body)


def _screen_protobuf(
    signal: str, body: bytes, modes: ContentModes, credential: str, is_clean: bool
) -> bytes:
    request = parse(signal, body)
    changed = screened_protobuf.screen_request(
        signal, request, modes, credential, is_clean=is_clean
    )
    # What this version has no name for can't be looked into: such fields are not kept.
    request.DiscardUnknownFields()
    if not changed and request.ByteSize() == len(body):
        return body
    screened: bytes = request.SerializeToString()
    return screened


def _screen_json(
    kind: str, body: bytes, modes: ContentModes, credential: str, is_clean: bool
) -> bytes:
    document = orjson.loads(body)
    if kind == "decisions":
        screened = screen_document(document, _KEEP_TEXTS.treatment("", _no_label))
    else:
        screened = screen_otlp(kind, document, modes, credential, is_clean=is_clean)
    return body if screened == document else orjson.dumps(screened)


def _screen_lines(body: bytes, modes: ContentModes, credential: str) -> bytes:
    """Each line of the body is a document of its own (a body may also be a single one)."""
    treatment = modes.treatment(credential, _no_label)
    lines: list[bytes] = []
    given = body.split(b"\n")
    is_clean = False
    for number, line in enumerate(given):
        # Most lines are clean, and a look at several costs little more than at one.
        if number % _LINES_AT_ONCE == 0:
            is_clean = not may_hold_secrets(b"\n".join(given[number : number + _LINES_AT_ONCE]))
        is_line_clean = is_clean or not may_hold_secrets(line)
        if is_line_clean and treatment.mode == "full":
            lines.append(line)
            continue
        document = orjson.loads(line)
        by = treatment.without_search() if is_line_clean else treatment
        screened = screen_document(document, by)
        is_same = screened is document or screened == document
        lines.append(line if is_same else orjson.dumps(screened))
    return b"\n".join(lines)


def _no_label(_name: str) -> str:
    return ""
