"""API credentials: who may call, for which part of the organization, and what. The one writer.

A credential is a token with a scope (a node of the organization tree, or the whole installation)
and verbs. Rotating makes a second token of the same scope and ends the first after an overlap, so
that a fleet can change over without a gap. Nothing is deleted: records name the credential that
they arrived with for as long as they are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, String, Table, insert, select, update

from loop.access.records import AccessLog, Author
from loop.access.token_form import hash_secret, new_token
from loop.access.verbs import Verb, parse_verbs
from loop.control.store import metadata
from loop.domain.errors import BadInput, Conflict, NotFound

DEFAULT_OVERLAP_SECONDS = 7 * 24 * 3600
MAX_NAME = 100

credentials = Table(
    "credentials",
    metadata,
    Column("token_id", String(16), primary_key=True),
    Column("name", String(MAX_NAME), nullable=False),
    Column("node_id", String(64), nullable=False),
    Column("developer", String(255), nullable=False),
    Column("verbs", String(255), nullable=False),
    Column("secret_hash", String(64), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("created_by", String(255), nullable=False),
    Column("rotated_from", String(16), nullable=False),
    Column("expires_at_us", BigInteger),
    Column("revoked_at_us", BigInteger),
    Column("last_used_at_us", BigInteger),
)


@dataclass(frozen=True, slots=True)
class Credential:
    """One token's scope and life; never its secret, of which only ``secret_hash`` is known.

    ``node_id`` "" is the whole installation; ``developer`` "" leaves open who sent a record.
    """

    token_id: str
    name: str
    node_id: str
    developer: str
    verbs: frozenset[Verb]
    secret_hash: str
    created_at_us: int
    created_by: str
    rotated_from: str = ""
    expires_at_us: int | None = None
    revoked_at_us: int | None = None
    last_used_at_us: int | None = None

    def is_live(self, now_us: int) -> bool:
        if self.revoked_at_us is not None and now_us >= self.revoked_at_us:
            return False
        return self.expires_at_us is None or now_us < self.expires_at_us

    def state(self, now_us: int) -> str:
        """``live``, ``expired`` or ``revoked``."""
        if self.revoked_at_us is not None and now_us >= self.revoked_at_us:
            return "revoked"
        return "live" if self.is_live(now_us) else "expired"

    def to_document(self, now_us: int) -> dict[str, Any]:
        """For the API and the record: everything but what is known of the secret."""
        return {
            "token_id": self.token_id,
            "name": self.name,
            "node_id": self.node_id,
            "developer": self.developer,
            "verbs": [verb for verb in Verb if verb in self.verbs],
            "state": self.state(now_us),
            "created_at_us": self.created_at_us,
            "created_by": self.created_by,
            "rotated_from": self.rotated_from,
            "expires_at_us": self.expires_at_us,
            "revoked_at_us": self.revoked_at_us,
            "last_used_at_us": self.last_used_at_us,
        }


class CredentialStore:
    """Creates, rotates and revokes; the only writer of ``credentials``."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log

    def create(
        self,
        name: str,
        verbs: Iterable[str],
        author: Author,
        *,
        node_id: str = "",
        developer: str = "",
        expires_at_us: int | None = None,
    ) -> tuple[str, Credential]:
        """A new credential; its token is returned here and can't be had again.

        The caller checks that the node exists. Raises :class:`BadInput`.
        """
        name = name.strip()
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise BadInput(f"A credential needs a name of 1 to {MAX_NAME} characters.")
        now_us = self._log.now_us()
        if expires_at_us is not None and expires_at_us <= now_us:
            raise BadInput("The credential would have expired already.")
        token, parts = new_token()
        credential = Credential(
            parts.token_id,
            name,
            node_id,
            developer.strip(),
            parse_verbs(verbs),
            hash_secret(parts.secret),
            now_us,
            author.name,
            expires_at_us=expires_at_us,
        )
        with self._log.writing() as connection:
            self._insert(connection, credential, "token.create", author)
        return token, credential

    def rotate(
        self, token_id: str, author: Author, *, overlap_seconds: int = DEFAULT_OVERLAP_SECONDS
    ) -> tuple[str, Credential]:
        """A second token of the same scope. The first ends after the overlap, or at its own
        expiry where that is sooner; the second keeps the first one's length of life.

        Raises :class:`NotFound`, :class:`Conflict` for one that has ended.
        """
        if overlap_seconds < 0:
            raise BadInput("The overlap can't be negative.")
        token, parts = new_token()
        with self._log.writing() as connection:
            old = load_credential(connection, token_id)
            now_us = self._log.now_us()
            if not old.is_live(now_us):
                raise Conflict(
                    f"Credential {token_id} is {old.state(now_us)}; it can't be rotated.",
                    fix="Create a new one.",
                )
            ends_at_us = now_us + overlap_seconds * 1_000_000
            if old.expires_at_us is not None:
                ends_at_us = min(ends_at_us, old.expires_at_us)
            life_us = None if old.expires_at_us is None else old.expires_at_us - old.created_at_us
            fresh = replace(
                old,
                token_id=parts.token_id,
                secret_hash=hash_secret(parts.secret),
                created_at_us=now_us,
                created_by=author.name,
                rotated_from=old.token_id,
                expires_at_us=None if life_us is None else now_us + life_us,
                last_used_at_us=None,
            )
            connection.execute(
                update(credentials)
                .where(credentials.c.token_id == token_id)
                .values(expires_at_us=ends_at_us)
            )
            self._insert(connection, fresh, "token.rotate", author, old_ends_at_us=ends_at_us)
        return token, fresh

    def revoke(self, token_id: str, author: Author) -> Credential:
        """Ends a credential now. Raises :class:`NotFound`, :class:`Conflict` for one that ended."""
        with self._log.writing() as connection:
            old = load_credential(connection, token_id)
            now_us = self._log.now_us()
            if not old.is_live(now_us):
                raise Conflict(f"Credential {token_id} is {old.state(now_us)} already.")
            connection.execute(
                update(credentials)
                .where(credentials.c.token_id == token_id)
                .values(revoked_at_us=now_us)
            )
            revoked = replace(old, revoked_at_us=now_us)
            self._log.append(
                connection, "token.revoke", token_id, author, {"name": old.name, "at_us": now_us}
            )
        return revoked

    def get(self, token_id: str) -> Credential:
        """Raises :class:`NotFound`."""
        with self._log.reading() as connection:
            return load_credential(connection, token_id)

    def list_all(self) -> list[Credential]:
        """All of them, ended ones too, the newest first."""
        query = select(credentials).order_by(credentials.c.created_at_us.desc())
        with self._log.reading() as connection:
            return [_credential_of(row) for row in connection.execute(query)]

    def record_use(self, used_at_us: Mapping[str, int]) -> None:
        """Writes when credentials were last used: for many calls at once, not for each."""
        if not used_at_us:
            return
        with self._log.reading() as connection, connection.begin():
            for token_id, at_us in sorted(used_at_us.items()):
                connection.execute(
                    update(credentials)
                    .where(credentials.c.token_id == token_id)
                    .values(last_used_at_us=at_us)
                )

    def _insert(
        self,
        connection: Connection,
        credential: Credential,
        verb: str,
        author: Author,
        **details: Any,
    ) -> None:
        said = credential.to_document(credential.created_at_us)
        values = {name: said[name] for name in said if name not in ("state", "verbs")}
        values |= {"verbs": ",".join(said["verbs"]), "secret_hash": credential.secret_hash}
        connection.execute(insert(credentials).values(**values))
        self._log.append(connection, verb, credential.token_id, author, said | details)


def load_credential(connection: Connection, token_id: str) -> Credential:
    row = connection.execute(
        select(credentials).where(credentials.c.token_id == token_id)
    ).one_or_none()
    if row is None:
        raise NotFound(f"There is no credential {token_id!r}.", fix="`turnwise token list`.")
    return _credential_of(row)


def load_credentials(connection: Connection) -> dict[str, Credential]:
    """All of them by id."""
    return {row.token_id: _credential_of(row) for row in connection.execute(select(credentials))}


def _credential_of(row: Any) -> Credential:
    return Credential(
        row.token_id,
        row.name,
        row.node_id,
        row.developer,
        frozenset(Verb(name) for name in row.verbs.split(",") if name in set(Verb)),
        row.secret_hash,
        row.created_at_us,
        row.created_by,
        row.rotated_from,
        row.expires_at_us,
        row.revoked_at_us,
        row.last_used_at_us,
    )
