"""The policy client: pulls publications, checks them, and chooses the route of each request.

Standard library, ``cryptography`` and ``loop.domain`` only, so that any gateway can load it. It
fails open: without a publication that holds, every request keeps the model it names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from loop.domain.budget_pauses import BudgetPause, find_pause
from loop.domain.errors import BadInput, Corrupt, TurnwiseError, Unavailable
from loop.domain.policies import (
    BUCKETS,
    Decision,
    Estimator,
    Publication,
    Route,
    RouteRequest,
    choose_arm,
)
from routing_policies.acceptance import accept_publication, read_publication, self_test
from routing_policies.client_state import LastKnownGood, SavedPublication
from routing_policies.kept_routes import KeptRoutes
from routing_policies.request_features import read_features, requester_of, session_of
from routing_policies.service_connection import Answer, ServiceConnection
from routing_policies.signing import TrustedKeys

log = logging.getLogger("turnwise.policy_client")

WAIT_SECONDS = 25.0
MAX_BACKOFF_SECONDS = 60.0
PAUSED_RULE = "guard:budget_paused"
_GRACE_SECONDS = 10.0  # beyond the long poll itself
Outcome = Literal["applied", "unchanged", "rejected"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The decision about one request, and the effort that its rule asks for ("": as it is).

    With a ``pause`` the request must not be served: a budget that covers it is used up.
    """

    decision: Decision
    effort: str = ""
    pause: BudgetPause | None = None


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """What the client routes by now. ``problem`` is the last failure, "" after a success."""

    serial: int
    not_after_us: int
    etag: str
    problem: str
    rejected: int
    kept_units: int


@dataclass(frozen=True, slots=True)
class _Loaded:
    publication: Publication
    digests: Mapping[str, str]  # by arm name: hashing a policy per request would cost more


def fetch_trusted_keys(
    service_url: str, token: str = "", timeout_seconds: float = 5
) -> TrustedKeys:
    """The keys that a service signs with, taken at its word.

    For loopback and for the first contact; else give each gateway the public keys by another way.
    Raises :class:`Unavailable`, :class:`BadInput`.
    """
    answer = ServiceConnection(service_url, token).request(
        "GET", "/v1/gateway/keys", timeout_seconds=timeout_seconds
    )
    if answer.status != 200:
        raise Unavailable(f"The service answered {answer.status} when asked for its keys.")
    try:
        return TrustedKeys.from_document(json.loads(answer.body))
    except json.JSONDecodeError as error:
        raise BadInput("The list of keys is not JSON.", why=str(error)) from error


class PolicyClient:
    """One per gateway process.

    ``start`` loads the last-known-good file and begins to poll on a daemon thread; ``route`` may
    be called from any thread, before and after. ``decided`` tells how many decisions were reported
    in a rollout (:meth:`DecisionReporter.decided`); the service holds them against what arrives.
    """

    def __init__(
        self,
        service_url: str,
        trusted: TrustedKeys,
        *,
        channel: str = "prod",
        gateway: str = "edge",
        instance: str = "",
        token: str = "",
        state_path: Path | None = None,
        kept_routes: KeptRoutes | None = None,
        decided: Callable[[str], int] | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.channel = channel
        self.gateway = gateway
        self.instance = instance or f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._trusted = trusted
        self._service = ServiceConnection(service_url, token)
        self._state = LastKnownGood(state_path) if state_path else None
        self._kept = KeptRoutes() if kept_routes is None else kept_routes
        self._decided = decided
        self._now_us = now_us
        self._loaded: _Loaded | None = None  # replaced whole: readers see the old or the new one
        self._etag = ""
        self._rejected_etag = ""
        self._lowest_serial = 0
        self._pending_ack: dict[str, Any] | None = None
        self._problem = ""
        self._rejected = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def publication(self) -> Publication | None:
        """What was applied last, expired or not."""
        return None if self._loaded is None else self._loaded.publication

    @property
    def status(self) -> ClientStatus:
        current = self.publication
        return ClientStatus(
            serial=current.serial if current else 0,
            not_after_us=current.not_after_us if current else 0,
            etag=self._etag,
            problem=self._problem,
            rejected=self._rejected,
            kept_units=len(self._kept),
        )

    def start(self) -> None:
        self.load_last_known_good()
        self._thread = threading.Thread(target=self._poll_until_stopped, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the polling; the client goes on routing by what it has."""
        self._stopped.set()
        self._service.close()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def load_last_known_good(self) -> bool:
        """Takes up the saved publication, if it still verifies. An expired one only keeps older
        serials out."""
        try:
            saved = self._state.load() if self._state else None
            if saved is None:
                return False
            publication = read_publication(saved.envelope, self._trusted)
            if publication.channel != self.channel:
                raise Corrupt(f"The saved publication is for channel {publication.channel!r}.")
            self_test(publication)
        except TurnwiseError as error:
            self._problem = f"last-known-good not used: {error}"
            log.warning("%s", self._problem)
            return False
        self._swap(publication, saved.etag)
        return True

    def poll_once(self, wait_seconds: float = WAIT_SECONDS) -> Outcome:
        """One pull, applied when it holds, and its acknowledgement.

        Raises :class:`Unavailable` when the service can't be reached.
        """
        asked: dict[str, Any] = {
            "channel": self.channel,
            "gateway": self.gateway,
            "instance": self.instance,
            "wait": wait_seconds,
        }
        current = self.publication
        if self._decided is not None and current is not None and current.rollout_id:
            asked |= {
                "rollout": current.rollout_id,
                "decided": self._decided(current.rollout_id),
            }
        query = urlencode(asked)
        known = ", ".join(tag for tag in (self._etag, self._rejected_etag) if tag)
        answer = self._service.request(
            "GET",
            f"/v1/gateway/policy?{query}",
            headers={"if-none-match": known} if known else {},
            timeout_seconds=wait_seconds + _GRACE_SECONDS,
        )
        if answer.status == 304:
            self._problem = ""
            self._acknowledge()
            return "unchanged"
        if answer.status != 200:
            raise Unavailable(f"The service answered {answer.status} when asked for the policy.")
        outcome = self._take(answer)
        self._acknowledge()
        return outcome

    def estimator_of(self, session_id: str) -> Estimator:
        """How the arm of a session estimates tokens."""
        loaded = self._loaded
        if loaded is None:
            return Estimator()
        return choose_arm(loaded.publication, session_id)[0].policy.estimator

    def route_body(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Choice:
        """The route of a ``POST /v1/messages`` request; ``headers`` has lower-case names."""
        estimator = self.estimator_of(session_of(body, headers))
        choice = self.route(read_features(body, headers, estimator))
        pauses = self._pauses_in_force()
        if not pauses:
            return choice
        pause = find_pause(pauses, requester_of(body, headers), choice.decision.routed_model)
        if pause is None:
            return choice
        return replace(choice, decision=replace(choice.decision, rule_id=PAUSED_RULE), pause=pause)

    def foresee_body(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Choice:
        """What :meth:`route_body` would answer, budgets aside; no route is kept by it."""
        estimator = self.estimator_of(session_of(body, headers))
        return self.route(read_features(body, headers, estimator), keep=False)

    def route(self, request: RouteRequest, *, keep: bool = True) -> Choice:
        """The route of one request, kept for its unit if ``keep``.

        Never raises: without a valid policy the request is passed through.
        """
        loaded, at_us = self._loaded, self._now_us()
        passed = Route(request.requested_model, "passthrough:no_publication")
        if loaded is None:
            return self._choice(request, at_us, passed)
        publication = loaded.publication
        if publication.kill or publication.not_after_us <= at_us:
            reason = "kill" if publication.kill else "expired"
            passed = Route(request.requested_model, f"passthrough:{reason}")
            return self._choice(request, at_us, passed, serial=publication.serial)
        arm, bucket = choose_arm(publication, request.session_id)
        digest = loaded.digests[arm.name]
        route = self._kept.decide(arm.policy, digest, request, keep=keep)
        return self._choice(
            request,
            at_us,
            route,
            serial=publication.serial,
            policy_version=arm.policy_version,
            policy_digest=digest,
            arm=arm.name,
            bucket=bucket,
            propensity=arm.weight / BUCKETS,
            rollout_id=publication.rollout_id,
        )

    def _pauses_in_force(self) -> tuple[BudgetPause, ...]:
        """None once the publication has expired: a gateway cut off from its service fails open."""
        current = self.publication
        if current is None or current.not_after_us <= self._now_us():
            return ()
        return current.pauses

    def _choice(
        self,
        request: RouteRequest,
        at_us: int,
        route: Route,
        *,
        serial: int = 0,
        policy_version: int = 0,
        policy_digest: str = "",
        arm: str = "",
        bucket: int = 0,
        propensity: float = 1.0,
        rollout_id: str = "",
    ) -> Choice:
        decision = Decision(
            decision_id=f"tw_{secrets.token_hex(12)}",
            at_us=at_us,
            session_id=request.session_id,
            agent_id=request.agent_id,
            serial=serial,
            policy_version=policy_version,
            policy_digest=policy_digest,
            arm=arm,
            bucket=bucket,
            propensity=propensity,
            rule_id=route.rule_id,
            requested_model=request.requested_model,
            routed_model=route.model,
            rollout_id=rollout_id,
            total_input_tokens=request.total_input_tokens,
            uncached_input_tokens=request.uncached_input_tokens,
            new_tokens=request.new_tokens,
            prompt_tokens=request.prompt_tokens,
            request_class=request.request_class,
            agent_name=request.agent_name,
            gateway=self.gateway,
            instance=self.instance,
            org_path=request.org_path,
            repository=request.repository,
        )
        return Choice(decision, route.effort)

    def _take(self, answer: Answer) -> Outcome:
        etag = answer.headers.get("etag", "")
        try:
            if not answer.complete:
                raise BadInput("The envelope was cut off on its way.")
            publication = accept_publication(
                answer.body,
                self._trusted,
                channel=self.channel,
                lowest_serial=self._lowest_serial,
                now_us=self._now_us(),
            )
            current = self.publication
            if current and current.serial == publication.serial and current != publication:
                raise Corrupt(f"Serial {current.serial} came twice with different content.")
        except TurnwiseError as error:
            # Not asked for again when these are the bytes that the service means to serve.
            if etag == f'"{hashlib.sha256(answer.body).hexdigest()}"':
                self._rejected_etag = etag
            self._reject(answer.body, error)
            return "rejected"
        if self._state is not None:
            try:
                self._state.save(SavedPublication(answer.body, etag))
            except OSError as error:
                log.warning("The last-known-good publication could not be saved: %s", error)
        self._swap(publication, etag)
        self._problem = ""
        return "applied"

    def _swap(self, publication: Publication, etag: str) -> None:
        digests = {arm.name: arm.policy.digest for arm in publication.arms}
        self._loaded = _Loaded(publication, digests)
        self._etag, self._rejected_etag = etag, ""
        self._lowest_serial = max(self._lowest_serial, publication.serial)
        self._pending_ack = {"serial": publication.serial, "status": "applied", "error": ""}

    def _reject(self, envelope: bytes, error: TurnwiseError) -> None:
        self._rejected += 1
        self._problem = f"rejected: {error}"
        log.warning("A publication was %s", self._problem)
        serial = 0
        with contextlib.suppress(TurnwiseError):  # else its serial can't be believed
            serial = read_publication(envelope, self._trusted).serial
        self._pending_ack = {"serial": serial, "status": "rejected", "error": str(error)}

    def _acknowledge(self) -> None:
        """Sends the latest answer; it stays pending until the service has taken it."""
        pending = self._pending_ack
        if pending is None:
            return
        row = {
            **pending,
            "instance": self.instance,
            "gateway": self.gateway,
            "channel": self.channel,
            "at_us": self._now_us(),
        }
        answer = self._service.request(
            "POST",
            "/v1/gateway/ack",
            body=json.dumps(row).encode(),
            headers={"content-type": "application/json"},
            timeout_seconds=_GRACE_SECONDS,
        )
        if answer.status >= 500 or answer.status in (408, 429):
            raise Unavailable(f"The service answered {answer.status} to an acknowledgement.")
        if answer.status >= 400:
            log.warning("The service refused an acknowledgement with %s.", answer.status)
        if self._pending_ack is pending:
            self._pending_ack = None

    def _poll_until_stopped(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                failures = failures + 1 if self.poll_once() == "rejected" else 0
            except Unavailable as error:
                if self._stopped.is_set():
                    return
                failures += 1
                self._problem = str(error)
                log.info("The policy could not be pulled: %s", error)
            if failures:
                ceiling = min(MAX_BACKOFF_SECONDS, 2.0 ** min(failures, 10))
                # Jitter: a fleet that lost its service at once must not come back at once.
                self._stopped.wait(random.uniform(0.5, ceiling))  # noqa: S311
