"""Ed25519 signatures over publications, in DSSE envelopes.

The signature covers the pre-authentication encoding of the payload's type and its exact bytes
(DSSE 1.0.2, https://github.com/secure-systems-lab/dsse), so no reader has to re-serialise
anything before it has checked who wrote it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from loop.domain.errors import BadInput, Corrupt, Refused
from loop.domain.policies import canonical_json

PAYLOAD_TYPE = "application/vnd.turnwise.publication+json"


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """The bytes that DSSE signs: ``DSSEv1 LEN(type) type LEN(payload) payload``."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id_of(public_key: bytes) -> str:
    """The name of a raw 32-byte public key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The public keys that a reader accepts, by key id. Several while a key is being rotated."""

    keys: Mapping[str, Ed25519PublicKey]

    @classmethod
    def of(cls, raw_keys: Iterable[bytes]) -> TrustedKeys:
        """From raw 32-byte public keys."""
        try:
            return cls(
                {key_id_of(raw): Ed25519PublicKey.from_public_bytes(raw) for raw in raw_keys}
            )
        except ValueError as error:
            raise BadInput("A public key has 32 bytes.", why=str(error)) from error

    @classmethod
    def from_document(cls, document: object) -> TrustedKeys:
        """Reads what ``GET /v1/gateway/keys`` answers; raises :class:`BadInput`."""
        rows = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(rows, list):
            raise BadInput("The list of keys is not an object with keys.")
        raw = []
        for row in rows:
            text = row.get("public_key") if isinstance(row, dict) else None
            if not isinstance(text, str):
                raise BadInput("A key has no public_key.")
            raw.append(_decode(text, "public_key"))
        return cls.of(raw)

    def to_document(self) -> dict[str, Any]:
        return {
            "keys": [
                {
                    "keyid": key_id,
                    "algorithm": "ed25519",
                    "public_key": base64.b64encode(key.public_bytes_raw()).decode(),
                }
                for key_id, key in sorted(self.keys.items())
            ]
        }


class Signer:
    """Holds one private key. Made by :func:`open_signer`."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.public_key = private_key.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public_key)

    def sign(self, signed: bytes) -> bytes:
        """The 64-byte signature of exactly these bytes."""
        return self._private_key.sign(signed)


def sign_envelope(payload: bytes, signers: Sequence[Signer]) -> bytes:
    """The DSSE envelope over ``payload``, as the bytes that are served."""
    signed = pre_authentication_encoding(PAYLOAD_TYPE, payload)
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": signer.key_id, "sig": base64.b64encode(signer.sign(signed)).decode()}
            for signer in signers
        ],
    }
    return canonical_json(envelope).encode()


def open_signers(folder: Path) -> tuple[Signer, ...]:
    """Every key in ``folder`` (``*.pem``, by name); the first one is made where there is none.

    To rotate: put a second file beside it, let the gateways learn its public key, then remove
    the first. Raises :class:`Corrupt` for a file that holds no Ed25519 key.
    """
    if not any(folder.glob("*.pem")):
        open_signer(folder)
    return tuple(open_signer(folder, path.stem) for path in sorted(folder.glob("*.pem")))


def open_signer(folder: Path, name: str = "publication") -> Signer:
    """Reads ``folder/name.pem``; makes it (mode 0600, folder 0700) on first use.

    Two processes that start at once end with the same key. Raises :class:`Corrupt` for a file
    that holds no Ed25519 key.
    """
    path = folder / f"{name}.pem"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_new_key(path)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise Corrupt(f"{path} holds no private key.", why=str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Corrupt(f"{path} holds another kind of key than Ed25519.")
    return Signer(key)


def verify(envelope: bytes, trusted: TrustedKeys) -> bytes:
    """The payload bytes of an envelope that a trusted key has signed.

    Raises :class:`BadInput` when it is no envelope (truncated, another type),
    :class:`Refused` when no trusted key has signed exactly these bytes.
    """
    try:
        document = json.loads(envelope)
    except (ValueError, RecursionError) as error:
        raise BadInput("The envelope is not JSON.", why=str(error)) from error
    if not isinstance(document, dict):
        raise BadInput("The envelope is not an object.")
    if document.get("payloadType") != PAYLOAD_TYPE:
        raise BadInput(f"The envelope's type is {document.get('payloadType')!r}.")
    payload = _decode(document.get("payload"), "payload")
    signatures = document.get("signatures")
    if not isinstance(signatures, list) or not signatures:
        raise BadInput("The envelope has no signatures.")
    signed = pre_authentication_encoding(PAYLOAD_TYPE, payload)
    known = False
    for row in signatures:
        if not isinstance(row, dict):
            raise BadInput("A signature is not an object.")
        key = trusted.keys.get(str(row.get("keyid")))
        if key is None:
            continue
        known = True
        with contextlib.suppress(InvalidSignature):
            key.verify(_decode(row.get("sig"), "sig"), signed)
            return payload
    if known:
        raise Refused("The signature does not fit the payload.", why="It was altered on its way.")
    raise Refused("No key that signed this is trusted.", fix="Give the gateway the new public key.")


def _write_new_key(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: whoever comes second keeps the first one's key.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _decode(text: object, what: str) -> bytes:
    if not isinstance(text, str):
        raise BadInput(f"{what} is not a text.")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadInput(f"{what} is not base64.", why=str(error)) from error
