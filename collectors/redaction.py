"""Secrets never reach a disk: keys, tokens and passwords in texts become ``[REDACTED:kind]``.

:func:`may_hold_secrets` looks at a whole body in one pass, at about a gigabyte per second; only
bodies that it stops at are looked into text by text. :func:`redact` sees through what texts are
wrapped in: ``\\uXXXX`` and ``\\/`` escapes of JSON, however often escaped, and the base64 of a
longer text. ``docs/redaction.md`` says what is found and what is not.

Redacting a second time changes nothing.
"""

from __future__ import annotations

import base64
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from collectors.pattern_scan import Scan
from collectors.secret_detectors import DETECTORS, SHAPED, base64_triggers
from collectors.secret_values import NAMES_OF_SECRETS, is_secret_value, names_a_secret

MIN_SECRET_CHARS = 8
_ESCAPED_ASCII = r"\\u00[2-7]"
_ESCAPE = re.compile(rb"\\+(?:u(?P<code>[0-9A-Fa-f]{4})|(?P<slash>/))")
_MAX_ESCAPES = 3  # an escaped escape of an escape
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_BASE64_BEFORE = re.compile(rb"[A-Za-z0-9+/_-]*\Z")
_BASE64 = tuple(base64_triggers(DETECTORS))
TEXT_SCAN = Scan([*(detector.trigger for detector in DETECTORS), *_BASE64], starts=True)
BODY_SCAN = Scan(
    [
        *(detector.trigger for detector in DETECTORS),
        *_BASE64,
        *(re.escape(prefix.decode()) for item in DETECTORS for prefix in item.prefixes),
        _ESCAPED_ASCII,
        rf"(?i){NAMES_OF_SECRETS}\x12.{{1,4}}\x0a",  # an attribute of that name, in protobuf
        rf"(?i){NAMES_OF_SECRETS}\"\s{{0,4}},\s{{0,4}}\"value\"",  # and in OTLP/JSON
    ],
    starts=False,
)


@dataclass(frozen=True, slots=True)
class Span:
    """A secret found in a text, in bytes of its UTF-8."""

    start: int
    end: int
    kind: str
    is_shaped: bool = True


def prepare() -> None:
    """Compiles all that is scanned for, on several processors where there are: a fifth to two
    fifths of a second of one."""
    threads = [threading.Thread(target=scan.prepare) for scan in (BODY_SCAN, TEXT_SCAN)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def may_hold_secrets(body: bytes) -> bool:
    """Whether a raw body must be looked into. Errs on the side of yes."""
    return BODY_SCAN.any_in(body)


def doubtful_lines(body: bytes) -> list[tuple[int, int]]:
    """Begin and end of each line of a body that must be looked into: those of which
    :func:`may_hold_secrets` says so, found by one pass over all."""
    lines: list[tuple[int, int]] = []
    passed = 0
    for end in sorted(BODY_SCAN.ends(body)):
        if end <= passed:
            continue
        first = body.rfind(b"\n", passed, end - 1) + 1 or passed
        last = body.find(b"\n", end - 1)
        passed = last = len(body) if last < 0 else last
        if may_hold_secrets(body[first:last]):  # what matched may have begun on an earlier line
            lines.append((first, last))
    return lines


def redact(text: str) -> str:
    """The text with each secret replaced; without one it is returned as it is."""
    if len(text) < MIN_SECRET_CHARS:
        return text
    data = text.encode(errors="surrogatepass")
    redacted = redact_bytes(data)
    return text if redacted is data else redacted.decode(errors="surrogatepass")


def redact_bytes(data: bytes) -> bytes:
    """:func:`redact` for UTF-8, or for bytes that hold it in parts."""
    spans = find_secrets(data)
    return _replace(data, spans) if spans else data


def redact_named(name: str, text: str) -> str:
    """:func:`redact` for the value of an attribute or a key, whose name may tell what it is."""
    if (
        len(text) >= MIN_SECRET_CHARS - 2
        and names_a_secret(name)
        and is_secret_value(name, text, is_literal=True)
    ):
        return "[REDACTED:assigned-secret]"
    return redact(text)


def redact_split(texts: Sequence[str], *, are_redacted: bool = False) -> list[str]:
    """Texts that follow each other, such as chunks of a stream, with the secrets cut in two by a
    boundary replaced: the mark stands where the secret began, its rest is taken away.

    Only secrets of a shape of their own are looked for. Each text is redacted by itself too, unless
    ``are_redacted`` says that this was done.
    """
    parts = [text.encode(errors="surrogatepass") for text in texts]
    ends = list(accumulate(len(part) for part in parts))
    starts = [0, *ends[:-1]]
    crossing = [
        span
        for span in find_secrets(b"".join(parts))
        if span.is_shaped and bisect_right(ends, span.start) != bisect_left(ends, span.end)
    ]
    if are_redacted and not crossing:
        return list(texts)
    for span in reversed(crossing):
        first = bisect_right(ends, span.start)
        last = bisect_left(ends, span.end)
        parts[last] = parts[last][span.end - starts[last] :]
        kept = parts[first][: span.start - starts[first]]
        parts[first] = kept + f"[REDACTED:{span.kind}]".encode()
        for number in range(first + 1, last):
            parts[number] = b""
    return [redact(part.decode(errors="replace")) for part in parts]


def find_secrets(data: bytes) -> list[Span]:
    """Every secret of a text, in order, none overlapping another."""
    layers = [data]
    while len(layers) <= _MAX_ESCAPES and _has_escapes(layers[-1]):
        unescaped = _ESCAPE.sub(_character, layers[-1])
        if unescaped == layers[-1]:
            break
        layers.append(unescaped)
    found: list[Span] = []
    for depth, layer in enumerate(layers):
        # Whatever begins a secret is among what bodies are scanned for, faster.
        spans = _find_plain(layer) if may_hold_secrets(layer) else []
        if depth and spans:
            offsets = _offsets(layers[:depth])
            spans = [
                Span(offsets[span.start], offsets[span.end], span.kind, span.is_shaped)
                for span in spans
            ]
        found += spans
    return _merge(found)


def _has_escapes(data: bytes) -> bool:
    return b"\\" in data and (b"\\u" in data or b"\\/" in data)


def _find_plain(data: bytes) -> list[Span]:
    hits = TEXT_SCAN.hits(data)
    if not hits:
        return []
    found: list[Span] = []
    covered: dict[int, int] = {}
    for start, number in sorted(hits):
        if start < covered.get(number, 0):
            continue
        if number >= len(DETECTORS):
            span = _find_encoded(data, start)
            if span is not None:
                covered.update(dict.fromkeys(range(len(DETECTORS), _TRIGGERS), span.end))
                found.append(span)
            continue
        place = DETECTORS[number].find(data, start)
        if place is not None:
            covered[number] = place[1]
            found.append(
                Span(place[0], place[1], DETECTORS[number].kind, DETECTORS[number].is_shaped)
            )
    return found


_TRIGGERS = len(DETECTORS) + len(_BASE64)


def _find_encoded(data: bytes, at: int) -> Span | None:
    """The run of base64 around a place, if a shaped secret is in it."""
    before = _BASE64_BEFORE.search(data, max(0, at - 65_536), at)
    start = before.start() if before else at
    run = _BASE64_RUN.match(data, start)
    if run is None:
        return None
    for skip in range(4):
        encoded = run[0][skip:].rstrip(b"=").translate(_STANDARD)
        decoded = base64.b64decode(encoded[: len(encoded) // 4 * 4] + _padded(encoded))
        for place, number in sorted(TEXT_SCAN.hits(decoded)):
            if number in _SHAPED:
                detector = DETECTORS[number]
                if detector.find(decoded, place) is not None:
                    return Span(run.start(), run.end(), detector.kind)
    return None


_SHAPED = frozenset(SHAPED)
_STANDARD = bytes.maketrans(b"-_", b"+/")


def _padded(encoded: bytes) -> bytes:
    rest = encoded[len(encoded) // 4 * 4 :]
    return rest + b"=" * (4 - len(rest)) if len(rest) > 1 else b""


def _character(escape: re.Match[bytes]) -> bytes:
    """What an escape stands for."""
    code = int(escape["code"], 16) if escape["code"] else 0x2F
    if code < 0x20:
        return escape[0]  # it stays what it is: a boundary
    # Only ASCII can be of a secret; any other character ends one.
    return bytes([code]) if code < 0x7F else b"\x7f"


def _offsets(layers: Sequence[bytes]) -> list[int]:
    """For each byte of what the last layer reads without its escapes, and for its end, the offset
    in the first layer where it stood."""
    offsets: list[int] | None = None
    for layer in layers:
        inner: list[int] = []
        position = 0
        for escape in _ESCAPE.finditer(layer):
            if _character(escape) == escape[0]:
                continue
            inner += range(position, escape.start() + 1)
            position = escape.end()
        inner += range(position, len(layer) + 1)
        offsets = inner if offsets is None else [offsets[offset] for offset in inner]
    assert offsets is not None
    return offsets


def _merge(spans: Iterable[Span]) -> list[Span]:
    """Overlapping spans become one, of the kind that knows the secret by its shape."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        last = merged[-1] if merged else None
        if last is None or span.start >= last.end:
            merged.append(span)
            continue
        better = last if last.is_shaped or not span.is_shaped else span
        merged[-1] = Span(
            last.start, max(last.end, span.end), better.kind, last.is_shaped or span.is_shaped
        )
    return merged


def _replace(data: bytes, spans: Sequence[Span]) -> bytes:
    parts: list[bytes] = []
    position = 0
    for span in spans:
        parts += [data[position : span.start], f"[REDACTED:{span.kind}]".encode()]
        position = span.end
    parts.append(data[position:])
    return b"".join(parts)
