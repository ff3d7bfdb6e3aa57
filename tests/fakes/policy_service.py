"""The gateway routes of a real store behind a real server, for clients and proxies under test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from loop.control.store import connect, metadata
from loop.domain.errors import BadInput, NotFound, TurnwiseError
from loop.domain.lifecycle import Actor, State
from loop.domain.policies import Condition, Measure, Publication, RoutingPolicy, Rule, Unit
from routing_policies.gateway_routes import gateway_routes
from routing_policies.publication import PublicationSource
from routing_policies.signing import Signer, TrustedKeys, open_signers
from routing_policies.transitions import Move
from routing_policies.version_store import VersionStore
from tests.fakes.asgi_server import running_server

ANNA, BEN = Actor.parse("person:anna"), Actor.parse("person:ben")
GATE, ROLLOUT = Actor.parse("gate:offline"), Actor.parse("rollout:r1")


def size_policy(
    threshold: int,
    *,
    measure: Measure = "total_input_tokens",
    unit: Unit = "request",
    name: str = "size",
) -> RoutingPolicy:
    """Below ``threshold`` tokens to Haiku, else Opus."""
    rule = Rule("short", (Condition("input_tokens", "<", threshold),), "claude-haiku-4-5")
    return RoutingPolicy(
        name=name, rules=(rule,), measure=measure, unit=unit, default_model="claude-opus-4-7"
    )


def approve(store: VersionStore, policy: RoutingPolicy) -> int:
    """Proposes, gates, reviews and approves; returns the version."""
    version = store.propose(policy, ANNA)
    store.move(version, State.GATE_PASSED, GATE, "the estimate holds")
    store.move(version, State.IN_REVIEW, GATE, "for review")
    store.move(version, State.APPROVED, BEN, "looked at", review_cycle=1)
    return version


def activate(store: VersionStore, policy: RoutingPolicy, *, salt: str = "s1") -> Publication:
    """Approves a policy and makes it the whole publication of the channel."""
    version = approve(store, policy)
    active = store.active_version()
    moves = [Move(version, State.ACTIVE, "activated")]
    if active is not None:
        moves.append(Move(active.version, State.SUPERSEDED, "replaced"))
    return store.publish(
        "prod", [("stable", 10_000, version)], salt=salt, actor=BEN, reason="activated", moves=moves
    )


@dataclass
class PolicyService:
    """What the tests hold on to. ``decisions`` is what gateways have reported."""

    url: str
    store: VersionStore
    signers: tuple[Signer, ...]
    decisions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def trusted(self) -> TrustedKeys:
        return TrustedKeys.of(signer.public_key for signer in self.signers)


def _error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, TurnwiseError):
        raise error
    status = {BadInput: 400, NotFound: 404}.get(type(error), 503)
    return JSONResponse({"error": error.as_dict()}, status_code=status)


@contextmanager
def policy_service(folder: Path, *, check_seconds: float = 0.05) -> Iterator[PolicyService]:
    engine = connect(f"sqlite:///{folder}/control.db")
    metadata.create_all(engine)
    service = PolicyService("", VersionStore(engine), open_signers(folder / "keys"))

    async def intake(request: Request) -> Response:
        service.decisions += json.loads(await request.body())
        return Response(status_code=202)

    source = PublicationSource(service.store, service.signers, check_seconds=check_seconds)
    app = Starlette(
        routes=gateway_routes(source, service.store, intake),
        exception_handlers={TurnwiseError: _error},
    )
    with running_server(app) as url:
        service.url = url
        yield service
    engine.dispose()
