"""Whether what stands beside a name like ``password`` is a secret, and not code that handles one.

Traces are full of ``token = await get_token()``, ``"type": "password"`` and ``secret: ${NAME}``.
A value counts when it is a literal and looks chosen or drawn: its characters, its length and its
entropy decide. The thresholds are those at which the generated corpus of ``bench_redaction`` loses
no secret that a person would call one.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from functools import lru_cache

MIN_TOKEN_CHARS = 12
MIN_TOKEN_BITS = 3.0  # Shannon entropy per character
MIN_HEX_BITS = 2.6
MIN_LETTERS_BITS = 4.0
MIN_LETTERS_CHARS = 20
_PASSWORD = re.compile(r"(?:pass(?:word|wd|phrase|code)|pwd)\Z", re.IGNORECASE)
NAMES_OF_SECRETS = (
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|token|credentials?|"
    r"(?:api|access|secret|private|auth|account|encryption|signing|master|shared)[_.-]?key)"
)
_SECRET_NAME = re.compile(NAMES_OF_SECRETS + r"\Z", re.IGNORECASE)
# Tokens of texts and of pages of results, which are no credentials.
_NO_SECRET_NAME = re.compile(
    r"(?:page|next|prev|previous|continuation|cursor|sync|pad|eos|bos|unk|mask|sep|cls|stop|max|"
    r"min|start|end|special|current|first|last|per|output|input|cache|prompt|public)"
    r"[_.-]?(?:page[_.-]?)?(?:token|key)\Z",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(
    r"(?:(?:req|toolu|srvtoolu|msg|msgbatch|batch|call|chatcmpl|resp|run|sess|session|org|user|"
    r"file|wrkspc|evt|pi|cus|sub|in|ch|prod|price)_[A-Za-z0-9_-]+"
    r"|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
    r"|sha\d+[:-][A-Za-z0-9+/=]+|\d{4}-\d\d-\d\d.*|v?\d+(?:\.\d+)+\S*)\Z",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"(?:(.)\1*|.*(?:your|insert|enter|replace|change|example|placeholder|dummy|redact|masked|"
    r"hidden|\.\.\.|xxxx|<|>|\*\*\*|here\b).*|none|null|true|false|undefined|string|str|secret|"
    r"password|passwd|token|required|optional|changeme)\Z",
    re.IGNORECASE | re.DOTALL,
)
_WORDS = re.compile(r"(?:[A-Za-z]+\d{0,2})(?:[_.:/\-]+[A-Za-z]+\d{0,2})*\Z")
_HASHED_PASSWORD = re.compile(r"\$(?:2[abxy]|argon2\w*|pbkdf2\S*|[156y])\$")
_SHORT_NAME = 64
_SYMBOLS = frozenset("!@#$%^&*?~+")
_CODE_STARTS = ("/", "./", "../", "~/", "$", "%", "{", "[", "<", "*")
_BARE_CODE_STARTS = ("@", "#", "-", "!", "&")


def entropy_bits(text: str) -> float:
    """Shannon entropy per character over the text's own frequencies."""
    size = len(text)
    return -sum(count / size * math.log2(count / size) for count in Counter(text).values())


def names_a_secret(name: str) -> bool:
    """Whether a value under this name (a key, a variable, a flag) would be a secret."""
    return _short_names(name) if len(name) <= _SHORT_NAME else _looks_secret(name)


def _looks_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None and _NO_SECRET_NAME.search(name) is None


_short_names = lru_cache(maxsize=4096)(_looks_secret)
"""The same few names stand in every document."""


def is_secret_value(name: str, value: str, *, is_literal: bool) -> bool:
    """``is_literal``: it was quoted, or assigned without the spaces of code."""
    if not names_a_secret(name) or not _may_be_secret(value):
        return False
    if not is_literal and value.startswith(_BARE_CODE_STARTS):
        return False
    is_setting = is_literal and name.isupper() and len(name) > 3  # as in a .env file
    if _PASSWORD.search(name) or is_setting:
        return is_literal and _is_password(value, is_setting=is_setting)
    return is_token_value(value) or (
        is_literal and len(value) >= 8 and _mixes_symbols(value) and entropy_bits(value) >= 2.5
    )


def is_token_value(value: str) -> bool:
    """Whether a text looks drawn at random: long, of several kinds of characters, of no words."""
    if len(value) < MIN_TOKEN_CHARS or not _may_be_secret(value) or _IDENTIFIER.match(value):
        return False
    has_digit = any(char.isdigit() for char in value)
    has_letter = any(char.isalpha() for char in value)
    if has_digit and has_letter:
        is_hex = all(char in "0123456789abcdefABCDEF" for char in value)
        limit = MIN_HEX_BITS if is_hex else MIN_TOKEN_BITS
        return entropy_bits(value) >= limit and _WORDS.match(value) is None
    return (
        has_letter
        and len(value) >= MIN_LETTERS_CHARS
        and entropy_bits(value) >= MIN_LETTERS_BITS
        and value != value.lower()
        and value.isalpha()
        and _case_changes(value) * 4 > len(value)
    )


def _may_be_secret(value: str) -> bool:
    if _HASHED_PASSWORD.match(value):
        return True
    return not (
        value.startswith("[REDACTED:")
        or value.startswith(_CODE_STARTS)
        or "://" in value
        or _PLACEHOLDER.match(value)
    )


def _is_password(value: str, *, is_setting: bool) -> bool:
    if len(value) < 6 or _IDENTIFIER.match(value):
        return False
    if value.isdigit():
        return True
    if _mixes_symbols(value) or (
        any(char.isdigit() for char in value) and any(char.isalpha() for char in value)
    ):
        return True
    return is_setting and value.isalpha() and len(value) >= 8


def _mixes_symbols(value: str) -> bool:
    return any(char in _SYMBOLS for char in value) and any(char.isalnum() for char in value)


def _case_changes(value: str) -> int:
    return sum(before.islower() != after.islower() for before, after in itertools.pairwise(value))
