"""Tokens: their form, their life, and that a revocation works in every process."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.pool import StaticPool

from loop.access.callers import CallerCheck
from loop.access.token_form import TOKEN_PATTERN, hash_secret, new_token, read_token
from loop.access.verbs import Verb
from loop.control.store import metadata
from loop.domain.errors import BadInput, Conflict, Corrupt, NotFound, Refused
from tests.access.organization_rows import ADA, MICROSECONDS, Access


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[Engine]:
    """An empty database in memory."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    metadata.create_all(engine)
    yield engine
    engine.dispose()


def check_of(access: Access, installation_token: str = "") -> CallerCheck:
    return CallerCheck(
        installation_token, access.directories, access.credentials, lambda: access.now_us
    )


def test_a_token_has_its_form_and_tells_its_parts() -> None:
    token, parts = new_token()
    assert re.fullmatch(TOKEN_PATTERN, token)
    assert read_token(token) == parts
    assert new_token()[0] != token


@given(st.data())
def test_a_token_with_one_character_changed_is_no_token(data: st.DataObject) -> None:
    token, _ = new_token()
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda letter: letter != token[place]))
    assert read_token(token[:place] + other + token[place + 1 :]) is None


@given(st.text())
def test_no_text_makes_the_reader_fail(text: str) -> None:
    assert read_token(text) is None
    assert read_token(f"tw_live_{text}") is None


def test_only_a_digest_of_the_secret_is_stored(access: Access) -> None:
    token, credential = access.credentials.create("ci", ["ingest"], ADA)
    parts = read_token(token)
    assert parts is not None
    assert parts.token_id == credential.token_id
    with access.engine.connect() as connection:
        for table in ("credentials", "access_records"):
            rows = repr(connection.execute(text(f"SELECT * FROM {table}")).all())
            assert parts.secret not in rows
        stored = connection.scalar(text("SELECT secret_hash FROM credentials"))
    assert stored == hash_secret(parts.secret)
    assert "secret" not in repr(sorted(credential.to_document(access.now_us)))


def test_a_credential_has_the_verbs_it_was_given(access: Access) -> None:
    token, made = access.credentials.create("ci", ["ingest", "read"], ADA, node_id="bu-1")
    caller = check_of(access)(token)
    assert caller is not None
    assert (caller.credential, caller.node_id) == (made.token_id, "bu-1")
    caller.require(Verb.INGEST)
    with pytest.raises(Refused, match="may not publish"):
        caller.require(Verb.PUBLISH)
    with pytest.raises(Refused, match="whole installation"):
        caller.require_installation()
    for verbs in ([], ["everything"]):
        with pytest.raises(BadInput):
            access.credentials.create("ci", verbs, ADA)


def test_the_installation_token_and_the_open_machine(access: Access) -> None:
    guarded, opened = check_of(access, "a-long-secret"), check_of(access)
    token, _ = access.credentials.create("ci", ["read"], ADA)
    assert guarded("a-long-secret") is not None
    assert guarded("a-long-secreT") is None
    assert guarded("") is None
    assert opened("") is not None
    assert opened("anything else") is not None
    for check in (guarded, opened):
        found = check(token)
        assert found is not None
        assert found.name == "ci"
        assert check(new_token()[0]) is None  # a well-formed one that nobody made


@settings(max_examples=40)
@given(overlap=st.integers(0, 30 * 86_400), steps=st.lists(st.integers(0, 40 * 86_400), max_size=6))
def test_the_old_token_works_until_the_overlap_ends(
    shared_engine: Engine, overlap: int, steps: list[int]
) -> None:
    access = Access(shared_engine)
    old_token, old = access.credentials.create("ci", ["ingest"], ADA)
    new, _ = access.credentials.rotate(old.token_id, ADA, overlap_seconds=overlap)
    check = check_of(access)
    elapsed = 0
    for step in [0, *steps]:
        access.later(step)
        elapsed += step
        assert (check(old_token) is not None) == (elapsed < overlap)
        assert check(new) is not None


def test_rotation_keeps_the_scope_and_the_length_of_life(access: Access) -> None:
    year = 365 * 86_400 * MICROSECONDS
    _, old = access.credentials.create(
        "ci", ["ingest"], ADA, node_id="n", developer="d", expires_at_us=access.now_us + year
    )
    access.later(86_400)
    _, new = access.credentials.rotate(old.token_id, ADA)
    assert (new.node_id, new.developer, new.verbs) == ("n", "d", old.verbs)
    assert new.rotated_from == old.token_id
    assert new.expires_at_us == access.now_us + year
    again = access.credentials.get(old.token_id)
    assert again.expires_at_us == access.now_us + 7 * 86_400 * MICROSECONDS


def test_a_revoked_or_expired_token_is_refused(access: Access) -> None:
    check = check_of(access)
    revoked, first = access.credentials.create("a", ["read"], ADA)
    expiring, second = access.credentials.create(
        "b", ["read"], ADA, expires_at_us=access.now_us + 10 * MICROSECONDS
    )
    assert check(revoked) is not None
    access.credentials.revoke(first.token_id, ADA)
    assert check(revoked) is None  # at once in the process that revoked
    assert check(expiring) is not None
    access.later(10)
    assert check(expiring) is None
    for token_id in (first.token_id, second.token_id):
        with pytest.raises(Conflict):
            access.credentials.rotate(token_id, ADA)
    with pytest.raises(Conflict):
        access.credentials.revoke(first.token_id, ADA)
    with pytest.raises(NotFound):
        access.credentials.revoke("nobody", ADA)


def test_another_process_hears_of_a_revocation_within_seconds(access: Access) -> None:
    other = Access(access.engine, refresh_seconds=0.05)  # its own objects, as another process has
    token, made = access.credentials.create("ci", ["ingest"], ADA)
    check = CallerCheck(
        "", other.directories, other.credentials, lambda: other.now_us, refresh_seconds=0.05
    )
    check.start()
    try:
        assert check(token) is not None
        access.credentials.revoke(made.token_id, ADA)
        deadline = time.monotonic() + 10
        while check(token) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        check.close()


def test_a_check_asks_no_store_and_writes_the_last_use_once(access: Access) -> None:
    token, made = access.credentials.create("ci", ["ingest"], ADA)
    check = check_of(access)
    check.start()
    statements = []
    event.listen(access.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    for _ in range(1000):
        access.later(0.001)
        assert check(token) is not None
    asked = [text for text in statements if "credentials" in text]
    assert asked == []
    check.close()
    assert access.credentials.get(made.token_id).last_used_at_us == access.now_us
    assert len([text for text in statements if "UPDATE" in text]) == 1


def test_changes_are_recorded_in_a_chain_that_shows_tampering(access: Access) -> None:
    _, first = access.credentials.create("ci", ["ingest"], ADA)
    access.credentials.rotate(first.token_id, ADA)
    access.credentials.revoke(first.token_id, ADA)
    assert access.log.verify() == 3
    verbs = [(record.verb, record.actor) for record in access.log.records()]
    assert verbs == [("token.create", "ada"), ("token.rotate", "ada"), ("token.revoke", "ada")]
    with access.engine.begin() as connection:
        connection.execute(text("UPDATE access_records SET actor = 'eve' WHERE sequence = 2"))
    with pytest.raises(Corrupt, match="number 2"):
        access.log.verify()
