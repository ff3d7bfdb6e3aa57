"""A small world for rollouts: a clock, a registry, gateways that pull, and sessions."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sqlalchemy import Engine, event

from loop.control.store import connect, metadata
from loop.domain.lifecycle import Actor, ActorKind, State
from loop.domain.policies import Arm, Publication, RoutingPolicy, Rule, choose_arm
from routing_policies.rollout import RolloutController
from routing_policies.rollout_records import (
    HardLimits,
    RolloutPlan,
    RolloutStatus,
    SessionOutcome,
)
from routing_policies.rollout_units import Exposure
from routing_policies.version_store import VersionStore

ANN = Actor(ActorKind.PERSON, "ann")
BOB = Actor(ActorKind.PERSON, "bob")
GATE = Actor(ActorKind.GATE, "offline-gate")
START_US = 1_700_000_000_000_000

PLAN = RolloutPlan(
    canary_weights=(2500, 5000),
    margin=0.05,
    min_stage_units=40,
    stage_dwell_seconds=600,
    maturation_seconds=120,
    horizon_seconds=86_400,
    fallback_seconds=1800,
    live_seconds=60,
    hard=HardLimits(max_cost_per_session_microusd=1_000_000),
)


def scratch_engine(path: Path) -> Engine:
    """A database with the tables, which may lose its last writes with the power: it is a test."""
    engine = connect(f"sqlite:///{path}")
    event.listen(engine, "connect", lambda dbapi, _: dbapi.execute("PRAGMA synchronous=OFF"))
    metadata.create_all(engine)
    return engine


def policy_named(name: str) -> RoutingPolicy:
    return RoutingPolicy(name, (Rule("all", (), "claude-haiku-4-5"),))


def exposures_at(weight: int) -> dict[int, Exposure]:
    """Serial 7 of ``rollout-2``, with a canary and a control of this weight."""
    policy = policy_named("any")
    arms = (
        Arm("canary", weight, 2, policy),
        Arm("stable", 10_000 - 2 * weight, 1, policy),
        Arm("control", weight, 1, policy),
    )
    publication = Publication(7, "prod", arms, "salt", 0, 10**15, "rollout-2")
    return {7: Exposure(publication, 0)}


class RolloutWorld:
    """Time stands still but for :meth:`wait` and :meth:`serve`. ``canary`` changes an outcome of
    the canary arm, ``every`` one of any arm."""

    def __init__(self, engine: Engine, *, seed: int = 1) -> None:
        self.now_us = START_US
        self.attach(engine)
        self.random = random.Random(seed)
        self.order = random.Random(seed)
        self.others = random.Random(seed)
        self.outcomes: list[SessionOutcome] = []
        self.served = 0
        self.gateways = ["gateway-1", "gateway-2"]
        self.canary: Callable[[SessionOutcome], SessionOutcome] = lambda outcome: outcome
        self.every: Callable[[SessionOutcome], SessionOutcome] = lambda outcome: outcome
        self.store.install_baseline()

    def attach(self, engine: Engine) -> None:
        """Goes on over another copy of the database, with a controller that remembers nothing."""
        self.store = VersionStore(engine, now_us=lambda: self.now_us)
        self.controller = RolloutController(self.store)

    def approved(self, name: str = "candidate") -> int:
        version = self.store.propose(policy_named(name), ANN)
        self.store.move(version, State.GATE_PASSED, GATE, "fine")
        cycle = self.store.move(version, State.IN_REVIEW, ANN, "look").review_cycle
        self.store.move(version, State.APPROVED, BOB, "fine", review_cycle=cycle)
        return version

    def start(self, plan: RolloutPlan = PLAN, name: str = "candidate") -> RolloutStatus:
        status = self.controller.start(self.approved(name), plan, BOB, "try it")
        self.pull()
        return status

    def wait(self, seconds: float) -> None:
        self.now_us += round(seconds * 1e6)

    def pull(self) -> None:
        """Every gateway applies what is published."""
        serial = self.store.current_serial()
        for gateway in self.gateways:
            self.store.record_ack(gateway, serial, "applied")

    def serve(self, sessions: int, *, seconds_apart: float = 5.0) -> None:
        """Sessions arrive one after another and are routed by the publication in force."""
        record = self.store.current_publication()
        assert record is not None
        publication = record.publication
        for _ in range(sessions):
            self.served += 1
            session_id = f"session-{self.served}"
            arm, _bucket = choose_arm(publication, session_id)
            outcome = SessionOutcome(
                session_id=session_id,
                arm=arm.name,
                serial=publication.serial,
                rollout_id=publication.rollout_id,
                assigned_at_us=self.now_us,
                quality=min(1.0, max(0.0, self.random.gauss(0.6, 0.15))),
                cost_microusd=400_000,
                turns=10,
                tool_use=min(1.0, self.others.gauss(0.9, 0.05)),
                duration_ms=self.others.lognormvariate(8.5, 0.3),
                gateway_answers=10,
                gateway="edge",
                developer=f"developer-{self.served % 25}",
            )
            outcome = self.every(outcome)
            self.outcomes.append(self.canary(outcome) if arm.name == "canary" else outcome)
            self.wait(seconds_apart)

    def tick(self, rollout_id: str) -> RolloutStatus:
        shuffled = self.order.sample(self.outcomes, len(self.outcomes))
        return self.controller.tick(rollout_id, shuffled)

    def run(self, rollout_id: str, *, looks: int = 60, sessions: int = 100) -> RolloutStatus:
        """Serves, pulls and looks until the rollout has finished."""
        status = self.controller.status(rollout_id)
        for _ in range(looks):
            if status.finished:
                break
            self.serve(sessions)
            self.pull()
            status = self.tick(rollout_id)
        self.pull()
        return self.tick(rollout_id) if not status.finished else status


def shifted(points: float) -> Callable[[SessionOutcome], SessionOutcome]:
    """Changes quality by points of 100."""

    def change(outcome: SessionOutcome) -> SessionOutcome:
        assert outcome.quality is not None
        return replace(outcome, quality=min(1.0, max(0.0, outcome.quality + points / 100)))

    return change
