"""Envelopes, keys on disk, rotation, and everything that must not verify."""

from __future__ import annotations

import base64
import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.domain.errors import BadInput, Corrupt, Refused, TurnwiseError
from routing_policies.signing import (
    PAYLOAD_TYPE,
    Signer,
    TrustedKeys,
    key_id_of,
    open_signer,
    open_signers,
    pre_authentication_encoding,
    sign_envelope,
    verify,
)

# RFC 8032 section 7.1, test 1: the secret key and the public key that belongs to it.
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(SECRET))
TRUSTED = TrustedKeys.of([PUBLIC])
PAYLOAD = b'{"serial":7}'


def test_the_encoding_is_that_of_the_dsse_specification() -> None:
    """The example of the protocol's own document."""
    encoded = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_an_envelope_has_the_fields_of_dsse() -> None:
    envelope = json.loads(sign_envelope(PAYLOAD, [SIGNER]))
    assert base64.b64decode(envelope["payload"]) == PAYLOAD
    assert envelope["payloadType"] == PAYLOAD_TYPE
    (signature,) = envelope["signatures"]
    assert signature["keyid"] == key_id_of(PUBLIC)
    assert len(base64.b64decode(signature["sig"])) == 64


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_what_was_signed_verifies(payload: bytes) -> None:
    assert verify(sign_envelope(payload, [SIGNER]), TRUSTED) == payload


@settings(deadline=None)
@given(st.data())
def test_no_changed_byte_verifies_as_something_else(data: st.DataObject) -> None:
    envelope = bytearray(sign_envelope(PAYLOAD, [SIGNER]))
    at = data.draw(st.integers(0, len(envelope) - 1))
    envelope[at] ^= data.draw(st.integers(1, 255))
    try:
        assert verify(bytes(envelope), TRUSTED) == PAYLOAD  # a byte that carries nothing
    except (BadInput, Refused):
        return


@settings(deadline=None)
@given(st.integers(0, 400))
def test_a_truncated_envelope_is_bad_input(length: int) -> None:
    envelope = sign_envelope(PAYLOAD, [SIGNER])
    with pytest.raises(BadInput):
        verify(envelope[: min(length, len(envelope) - 1)], TRUSTED)


def test_an_unknown_key_is_refused() -> None:
    stranger = Signer(Ed25519PrivateKey.generate())
    with pytest.raises(Refused, match="trusted"):
        verify(sign_envelope(PAYLOAD, [stranger]), TRUSTED)
    with pytest.raises(Refused):
        verify(sign_envelope(PAYLOAD, [SIGNER]), TrustedKeys({}))


def test_a_key_id_alone_proves_nothing() -> None:
    stranger = Signer(Ed25519PrivateKey.generate())
    envelope = json.loads(sign_envelope(PAYLOAD, [stranger]))
    envelope["signatures"][0]["keyid"] = SIGNER.key_id
    with pytest.raises(Refused, match="altered"):
        verify(json.dumps(envelope).encode(), TRUSTED)


def test_the_type_is_part_of_what_is_signed() -> None:
    other_type = pre_authentication_encoding("text/plain", PAYLOAD)
    envelope = json.loads(sign_envelope(PAYLOAD, [SIGNER]))
    envelope["signatures"][0]["sig"] = base64.b64encode(SIGNER.sign(other_type)).decode()
    with pytest.raises(Refused):
        verify(json.dumps(envelope).encode(), TRUSTED)


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"payload": 1, "payloadType": "application/vnd.turnwise.publication+json"}',
        b'{"payload": "e30=", "payloadType": "application/vnd.turnwise.publication+json"}',
        b'{"payload": "e30=", "payloadType": "application/vnd.turnwise.publication+json",'
        b' "signatures": [1]}',
        b'{"payload": "?", "payloadType": "application/vnd.turnwise.publication+json"}',
        b'{"payload": "e30=", "payloadType": "text/plain", "signatures": [{}]}',
    ],
)
def test_what_is_no_envelope_is_bad_input(envelope: bytes) -> None:
    with pytest.raises(BadInput):
        verify(envelope, TRUSTED)


def test_two_signatures_serve_gateways_that_trust_either() -> None:
    new = Signer(Ed25519PrivateKey.generate())
    envelope = sign_envelope(PAYLOAD, [SIGNER, new])
    for trusted in (TRUSTED, TrustedKeys.of([new.public_key])):
        assert verify(envelope, trusted) == PAYLOAD


def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    (first,) = open_signers(folder)
    assert stat.S_IMODE((folder / "publication.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (again,) = open_signers(folder)
    assert again.public_key == first.public_key
    second = open_signer(folder, "publication-2027")
    assert {signer.key_id for signer in open_signers(folder)} == {first.key_id, second.key_id}
    assert sorted(path.name for path in folder.iterdir()) == [
        "publication-2027.pem",
        "publication.pem",
    ]


def test_services_that_start_at_once_share_the_key(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    ready = threading.Barrier(8)

    def start(_: int) -> str:
        ready.wait()
        return open_signer(folder).key_id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(8)))) == 1
    assert [path.name for path in folder.iterdir()] == ["publication.pem"]


@pytest.mark.parametrize("content", [b"", b"not a key", SECRET])
def test_a_file_that_holds_no_key_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "publication.pem").write_bytes(content)
    with pytest.raises(Corrupt):
        open_signer(tmp_path)


def test_keys_survive_their_document() -> None:
    document = json.loads(json.dumps(TRUSTED.to_document()))
    assert list(TrustedKeys.from_document(document).keys) == [key_id_of(PUBLIC)]


@pytest.mark.parametrize(
    "document", [None, {}, {"keys": [1]}, {"keys": [{}]}, {"keys": [{"public_key": "AAAA"}]}]
)
def test_what_is_no_list_of_keys_is_bad_input(document: object) -> None:
    with pytest.raises(TurnwiseError):
        TrustedKeys.from_document(document)
