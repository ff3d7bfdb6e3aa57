"""Personal data that a pattern can tell: e-mail and IP addresses, phone numbers, names of homes.

Names of people in prose are not found. ``git@host`` is an address of a repository, ``noreply@`` of
no person, and loopback addresses are nobody's.
"""

from __future__ import annotations

import re

from collectors.pattern_scan import Scan

_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PATTERN = re.compile(
    r"(?P<email>(?<![\w.%+-])(?!git@|noreply@)[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@"
    r"(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}(?![\w@]))"
    r"|(?P<home>(?:(?<=/home/)|(?<=/Users/)|(?<=\\Users\\)|(?<=\\\\Users\\\\))"
    r"[^/\\\s\"'`:\[\]<>$]+)"
    r"|(?P<phone>(?<![\w.+-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){2,4}"
    r"|\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4})(?![\w-]))"
    rf"|(?P<ip>(?<![\w.])(?!127\.|0\.0\.0\.0|255\.)(?:{_BYTE}\.){{3}}{_BYTE}(?![\w.]*\w)"
    r"|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?![\w:])"
    r"|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){3,6}(?::[0-9A-Fa-f]{1,4}){1,4}(?![\w:]))"
)
# What one of these is in every text that the pattern matches: looked for in one fast pass.
_MAY_MATCH = Scan(
    [
        r"[A-Za-z0-9]@[A-Za-z0-9-]{1,63}\.",
        r"/home/",
        r"[/\\]Users[/\\]",
        r"\+\d",
        r"\(\d{3}\)",
        r"\d{3}-\d{3}-\d{4}",
        r"(?:\d{1,3}\.){3}\d",
        r"(?:[0-9A-Fa-f]{1,4}:){3}",
    ],
    starts=False,
)
_NAMES = {"email": "email", "home": "user-name", "phone": "phone", "ip": "ip-address"}
PERSONAL_KINDS = tuple(_NAMES.values())


def find_personal(text: str) -> list[str]:
    """The kind of each such datum, in order."""
    return [_NAMES[match.lastgroup or ""] for match in _PATTERN.finditer(text)]


def redact_personal(text: str) -> str:
    """The text with each such datum replaced by ``[REDACTED:kind]``. Again changes nothing."""
    if not _MAY_MATCH.any_in(text.encode(errors="surrogatepass")):
        return text
    return _PATTERN.sub(lambda match: f"[REDACTED:{_NAMES[match.lastgroup or '']}]", text)
