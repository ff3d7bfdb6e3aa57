"""Who calls: the credential behind a bearer token, with its verbs and its part of the organization.

Checking a token touches no store: the credentials are held in memory and a thread looks every
:data:`REFRESH_SECONDS` whether any changed. So a revocation works within that time in every
process, and at once in the one that revoked. While the control store is away, what was known last
holds on, so that telemetry of known senders is not lost.
"""

from __future__ import annotations

import hmac
import logging
import re
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from loop.access.credentials import Credential, CredentialStore
from loop.access.directory import REFRESH_SECONDS, Directory, DirectorySource
from loop.access.records import utc_now_us
from loop.access.token_form import ID_LENGTH, PREFIX, hash_secret, read_token
from loop.access.verbs import ALL_VERBS, Verb
from loop.domain.errors import BadInput, Refused, TurnwiseError, Unavailable

logger = logging.getLogger("turnwise")
_HOLDER = re.compile(rf"\([a-z2-7]{{{ID_LENGTH}}}\)\s*\Z")
INSTALLATION = "installation"
USE_INTERVAL_SECONDS = 60.0
CheckCaller = Callable[[str], "Caller | None"]
"""Takes a bearer token ("" without one); returns the caller, ``None`` for 401."""


@dataclass(frozen=True, slots=True)
class Caller:
    """``credential`` is the name that records keep: a token's id, "installation", or "" on an open
    loopback port. ``node_id`` "" is the whole installation."""

    credential: str = ""
    name: str = "this machine"
    verbs: frozenset[Verb] = field(default=ALL_VERBS)
    node_id: str = ""
    first_token_id: str = ""

    @property
    def holder(self) -> str:
        """The credential's name and the id of its first token, which no rotation changes; "" for
        the installation's own token and an open loopback port, which any number of people use."""
        return f"{self.name} ({self.first_token_id})" if self.first_token_id else ""

    def acting_as(self, given: str) -> str:
        """The name that records keep of who acts: the credential's holder. Without one it is the
        name that was given, which nothing proves.

        Raises :class:`BadInput` for a given name that would pass for a holder's.
        """
        if self.holder:
            return self.holder
        if _HOLDER.search(given):
            raise BadInput(
                f"{given!r} reads like the holder of a credential.",
                fix="Send that credential's token, or another name.",
            )
        return given

    def require(self, verb: Verb) -> None:
        """Raises :class:`Refused` when the credential has not the verb."""
        if verb not in self.verbs:
            raise Refused(
                f"The credential {self.name!r} may not {verb}.",
                why=f"Its verbs are {', '.join(sorted(self.verbs))}.",
                fix=f"Use one that has the verb {verb} (`turnwise token create --verbs {verb}`).",
            )

    def require_installation(self) -> None:
        """Raises :class:`Refused` for a credential of a part of the organization."""
        if self.node_id:
            raise Refused(
                f"This concerns the whole installation; the credential {self.name!r} is bound to "
                f"{self.node_id}.",
                fix="Use a credential of the installation.",
            )


THIS_MACHINE = Caller()
current_caller: ContextVar[Caller] = ContextVar("turnwise_caller", default=THIS_MACHINE)
"""Who the request that is being answered comes from; the service's own work is this machine's."""


class CallerCheck:
    """Checks bearer tokens against the installation's own and the stored credentials.

    Without an installation token (loopback only) a call without a credential of the store passes,
    as this machine. Start the watching with :meth:`start` in a process that lives long; without
    it, each check may look at the store, at most every :data:`REFRESH_SECONDS`.
    """

    def __init__(
        self,
        installation_token: str,
        directories: DirectorySource,
        store: CredentialStore,
        now_us: Callable[[], int] = utc_now_us,
        *,
        refresh_seconds: float = REFRESH_SECONDS,
    ) -> None:
        self._installation_token = installation_token.encode()
        self._directories = directories
        self._store = store
        self._now_us = now_us
        self._refresh_seconds = refresh_seconds
        self._used: dict[str, int] = {}
        self._held: Directory | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        directories.subscribe(self._forget)

    def __call__(self, token: str) -> Caller | None:
        if token.startswith(PREFIX):
            return self._check_stored(token)
        if not self._installation_token:
            return THIS_MACHINE
        if hmac.compare_digest(token.encode(), self._installation_token):
            return Caller(INSTALLATION, INSTALLATION)
        return None

    def authorise(self, verb: Verb) -> Callable[[str], str | None]:
        """For the collectors: the credential's name, ``None`` for an unknown token; raises
        :class:`Refused` for one without the verb."""

        def credential_of(token: str) -> str | None:
            caller = self(token)
            if caller is None:
                return None
            caller.require(verb)
            return caller.credential

        return credential_of

    def directory(self) -> Directory:
        """What is in force; read by the thread where that runs, so that this waits for no store.

        Raises :class:`Unavailable` when nothing could be read yet.
        """
        held = self._held
        if held is None or self._thread is None:
            held = self._look()
        if held is None:
            raise Unavailable(
                "The credentials and the organization can't be read now.", fix="Try again later."
            )
        return held

    def start(self) -> None:
        """Reads the credentials and keeps them fresh in a thread until :meth:`close`."""
        if self._thread is None:
            self._look()
            self._thread = threading.Thread(target=self._watch, name="credentials", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread and writes when the credentials were last used."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._write_uses()

    def _check_stored(self, token: str) -> Caller | None:
        parts = read_token(token)
        if parts is None:
            return None
        credential = self._known(parts.token_id)
        stored = credential.secret_hash if credential is not None else "0" * 64
        is_right = hmac.compare_digest(hash_secret(parts.secret), stored)
        now_us = self._now_us()
        if credential is None or not is_right or not credential.is_live(now_us):
            return None
        self._used[credential.token_id] = now_us
        return Caller(
            credential.token_id,
            credential.name,
            credential.verbs,
            credential.node_id,
            self._first_of(credential).token_id,
        )

    def _known(self, token_id: str) -> Credential | None:
        return self.directory().credentials.get(token_id)

    def _first_of(self, credential: Credential) -> Credential:
        """What it was rotated from, and that from, and so on."""
        while credential.rotated_from:
            before = self._known(credential.rotated_from)
            if before is None:
                break
            credential = before
        return credential

    def _forget(self) -> None:
        """What this process changed holds from the next check on."""
        self._held = None

    def _look(self) -> Directory | None:
        try:
            self._held = self._directories.current()
        except TurnwiseError as error:
            logger.warning("The credentials can't be read: %s", error)
        return self._held

    def _watch(self) -> None:
        written_at = time.monotonic()
        while not self._stop.wait(self._refresh_seconds):
            self._look()
            if time.monotonic() - written_at >= USE_INTERVAL_SECONDS:
                self._write_uses()
                written_at = time.monotonic()

    def _write_uses(self) -> None:
        used, self._used = self._used, {}
        try:
            self._store.record_use(used)
        except TurnwiseError as error:
            self._used = used | self._used
            logger.warning("When credentials were used can't be written: %s", error)


def bearer_token(authorization: str) -> str:
    """The token of an ``Authorization: Bearer …`` header, "" when there is none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
