"""The form of an API token: ``tw_live_<id>_<secret>``.

The id is public and names the credential; the secret is 256 random bits and six digits of a
checksum over all before it, so a mistyped or cut token is told from an unknown one without asking
any store, and scanners for leaked secrets can look for :data:`TOKEN_PATTERN`. Only the SHA-256 of
the secret is kept: 256 random bits need no slow hash.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib
from typing import NamedTuple

PREFIX = "tw_live_"
TOKEN_PATTERN = r"tw_live_[a-z2-7]{12}_[0-9A-Za-z]{49}"  # noqa: S105 - a form, no token
ID_LENGTH = 12
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH = 43  # 62^43 > 2^256
_CHECK_LENGTH = 6


class TokenParts(NamedTuple):
    """A token that has the form and whose checksum is right."""

    token_id: str
    secret: str


def new_token() -> tuple[str, TokenParts]:
    """A new token as it is given out, and its parts."""
    token_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(ID_LENGTH))
    secret = _digits(int.from_bytes(secrets.token_bytes(32)), _SECRET_LENGTH)
    body = f"{PREFIX}{token_id}_{secret}"
    return f"{body}{_checksum(body)}", TokenParts(token_id, secret)


def read_token(text: str) -> TokenParts | None:
    """The parts of a token; ``None`` for what has not its form or a wrong checksum."""
    head, _, tail = text.removeprefix(PREFIX).partition("_")
    if not text.startswith(PREFIX) or len(head) != ID_LENGTH or not tail.isascii():
        return None
    secret, check = tail[:_SECRET_LENGTH], tail[_SECRET_LENGTH:]
    if len(tail) != _SECRET_LENGTH + _CHECK_LENGTH:
        return None
    return TokenParts(head, secret) if check == _checksum(text[:-_CHECK_LENGTH]) else None


def hash_secret(secret: str) -> str:
    """SHA-256 in hex: what is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(text: str) -> str:
    return _digits(zlib.crc32(text.encode()), _CHECK_LENGTH)


def _digits(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_LETTERS))
        digits.append(_LETTERS[digit])
    return "".join(reversed(digits))
