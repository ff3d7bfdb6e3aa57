"""The door to the journal: no body passes it with a secret, or with more content than its sender's
business unit stores.

A body in which nothing may be found, of a sender whose texts are kept, passes byte for byte after
one scan. Any other is parsed, changed in place and encoded again. What can't be parsed is cleaned
as the bytes that it is; it is refused where content must not be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import orjson

from collectors import screened_protobuf
from collectors.content_modes import Treatment
from collectors.content_rules import ContentModes
from collectors.otlp_protobuf import parse
from collectors.redaction import doubtful_lines, may_hold_secrets, redact_bytes
from collectors.screened_json import screen_document, screen_otlp
from collectors.segments import ContentType, RecordKind
from loop.domain.errors import BadInput

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
    doubtful = doubtful_lines(body)
    if treatment.mode == "full":
        return _screen_some(body, doubtful, treatment)
    clean = treatment.without_search()
    begins = {begin for begin, _ in doubtful}
    lines, position = [], 0
    for line in body.split(b"\n"):
        lines.append(_screen_line(line, treatment if position in begins else clean))
        position += len(line) + 1
    return b"\n".join(lines)


def _screen_some(body: bytes, lines: Iterable[tuple[int, int]], treatment: Treatment) -> bytes:
    parts, position = [], 0
    for begin, end in lines:
        line = body[begin:end]
        screened = _screen_line(line, treatment, is_doubtful=True)
        if screened is not line:
            parts += [body[position:begin], screened]
            position = end
    return b"".join([*parts, body[position:]]) if parts else body


def _screen_line(line: bytes, treatment: Treatment, *, is_doubtful: bool = False) -> bytes:
    """The line itself where nothing is to be taken out of it."""
    document = orjson.loads(line)
    screened = screen_document(document, treatment, is_doubtful=is_doubtful)
    is_same = screened is document or screened == document
    return line if is_same else orjson.dumps(screened)


def _no_label(_name: str) -> str:
    return ""
