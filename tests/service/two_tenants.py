"""A service with two tenants in one organization, whose every text says whose it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from loop.access.credentials import Credential
from loop.access.records import Author
from loop.access.verbs import Verb
from loop.domain.clusters import SessionCluster
from loop.domain.lifecycle import Actor, ActorKind, State
from loop.domain.organization_changes import NodeRow
from loop.domain.policies import RoutingPolicy
from loop.domain.policy_documents import parse_policy
from loop.domain.runs import OptimizationRun, Trial
from loop.lake.rows import day_of
from loop.service import stages
from loop.service.assemble import Parts, assemble
from loop.service.drain_stage import drain
from loop.service.settings import load_settings
from optimizers.classic import classic_policy
from routing_policies.rollout_records import RolloutPlan
from routing_policies.version_store import AS_REQUESTED
from tests.lake.lake_records import decision, estimate

INSTALLATION_TOKEN = "the-installations-own"
TENANTS = ("alpha", "beta")
NOW_US = time.time_ns() // 1000
DAY = day_of(NOW_US)  # of the records; a test that begins before midnight may end after it
ADA = Author("ada", reason="a test")


def log_body(records: list[dict[str, str]]) -> bytes:
    """An OTLP logs body of Claude Code's events, each given as its attributes."""
    export = ExportLogsServiceRequest()
    logs = export.resource_logs.add().scope_logs.add().log_records
    for number, attributes in enumerate(records):
        log = logs.add()
        log.time_unix_nano = (NOW_US + number) * 1000
        log.body.string_value = f"claude_code.{attributes['event.name']}"
        for key, value in attributes.items():
            attribute = log.attributes.add()
            attribute.key = key
            attribute.value.string_value = value
    return export.SerializeToString()


def session_of(tenant: str, number: int = 1, **labels: str) -> bytes:
    """One prompt, one answered request and a tool call, all named for the tenant."""
    session_id = f"session-{tenant}-{number}"
    common = {
        "session.id": session_id,
        "prompt.id": f"prompt-{tenant}-{number}",
        "user.email": f"dev-{tenant}@example.com",
        "vcs.repository.name": f"repo-{tenant}",
        **labels,
    }
    request_id = f"req-{tenant}-{number}"
    return log_body(
        [
            common | {"event.name": "user_prompt", "prompt": f"text of {tenant}"},
            common
            | {
                "event.name": "api_request",
                "request_id": request_id,
                "model": "claude-opus-4-7",
                "input_tokens": "100",
                "output_tokens": "10",
                "duration_ms": "10",
            },
            common
            | {
                "event.name": "assistant_response",
                "request_id": request_id,
                "response": f"answer of {tenant}: all tests pass",
            },
            common
            | {
                "event.name": "tool_result",
                "request_id": request_id,
                "tool_use_id": f"toolu-{tenant}-{number}",
                "tool_name": "Bash",
                "success": "false",
                "tool_input": f'{{"command": "pytest {tenant}"}}',
            },
        ]
    )


@dataclass
class TwoTenants:
    parts: Parts
    tokens: dict[str, str]
    credentials: dict[str, Credential]
    entries: list[str] = field(default_factory=list)
    """Set aside: of the installation's, of the first and of the second tenant."""

    def send(self, tenant: str, body: bytes) -> None:
        """As the receiver does it for a checked token."""
        name = self.credentials[tenant].token_id if tenant else ""
        self.parts.journal.append_sync("logs", "protobuf", body, credential=name)

    def drain(self) -> None:
        drain(self.parts)


@contextmanager
def two_tenants(folder: Path) -> Iterator[TwoTenants]:
    settings = {"TURNWISE_DATA_DIR": str(folder), "TURNWISE_API_TOKEN": INSTALLATION_TOKEN}
    parts = assemble(load_settings(settings))
    rows = [
        NodeRow("acme", "acme", "org"),
        NodeRow("n-alpha", "alpha", "business_unit", "acme"),
        NodeRow("n-beta", "beta", "business_unit", "acme"),
        NodeRow("t-alpha", "team-alpha", "sub_unit", "n-alpha"),
        NodeRow("t-beta", "team-beta", "sub_unit", "n-beta"),
    ]
    parts.organization.import_nodes(rows, DAY, ADA, allow_past=True)
    tokens, credentials = {}, {}
    for tenant in TENANTS:
        tokens[tenant], credentials[tenant] = parts.credentials.create(
            tenant, list(Verb), ADA, node_id=f"n-{tenant}"
        )
    world = TwoTenants(parts, tokens, credentials)
    for tenant in TENANTS:
        for number in (1, 2):
            world.send(tenant, session_of(tenant, number))
    world.drain()
    stages.evaluate(parts)
    parts.lake.write_clusters([_cluster("alpha"), _cluster("beta"), _mixed_cluster()])
    for tenant in TENANTS:
        document = classic_policy().to_document() | {"name": f"policy-{tenant}"}
        document["rules"][0]["when"].append(
            {"field": "org_path", "op": "==", "value": f"acme/{tenant}"}
        )
        person = Actor(ActorKind.PERSON, f"author-{tenant}")
        parts.versions.propose(parse_policy(document), person)
    yield world
    parts.close()


def run_rollout(world: TwoTenants, version: int) -> str:
    """A canary of a version, over again; each tenant has two sessions in it."""
    parts = world.parts
    gate, person = Actor(ActorKind.GATE, "gate"), Actor(ActorKind.PERSON, "grace")
    parts.versions.move(version, State.GATE_PASSED, gate, "alpha and beta save")
    cycle = parts.versions.move(version, State.IN_REVIEW, gate, "look").review_cycle
    parts.versions.move(version, State.APPROVED, person, "fine", review_cycle=cycle)
    status = parts.rollouts.start(version, RolloutPlan(), person, "try it on alpha and beta")
    serial = parts.versions.current_serial("prod")
    decided = [
        decision(
            10 * version + number, f"session-{tenant}-{number}", at_us=NOW_US, serial=serial,
            policy_version=version, arm=arm, rollout_id=status.rollout_id,
        )
        for tenant in TENANTS for number, arm in ((1, "canary"), (2, "control"))
    ]  # fmt: skip
    parts.lake.write_decisions(decided, journal=status.rollout_id, position=1)
    parts.rollouts.roll_back(status.rollout_id, person, "alpha and beta were slow")
    return status.rollout_id


def save_run(
    world: TwoTenants,
    run_id: str,
    repositories: list[str] | None,
    incumbent: RoutingPolicy = AS_REQUESTED,
) -> None:
    """A finished search, limited to repositories or (``None``) to nothing."""
    scope = None
    if repositories is not None:
        reason = "1 of 2 sessions, beside alpha and beta"
        scope = {"repositories": repositories, "cluster_id": "c-mixed", "reason": reason}
    trial = Trial(0, {"threshold": 1}, classic_policy(), 0.25, -0.01, feasible=True, on_front=True)
    run = OptimizationRun(
        run_id=run_id,
        state="finished",
        started_at_us=NOW_US,
        finished_at_us=NOW_US + 1,
        seed=1,
        incumbent=incumbent,
        table_versions={"turns": 3},
        trials=(trial,),
        found=classic_policy(),
        outcome="Found a policy that saves 30 % of what alpha and beta spend.",
        selection=estimate(),
        test=estimate(),
        tombstones=("erasure-of-alpha-and-beta",),
        settings={"sampler": "tpe", "scope": scope},
    )
    world.parts.runs.save(run)


def set_aside(world: TwoTenants, tenant: str) -> str:
    """A body of a tenant's ("" for the installation's) that can't be stored; its entry's name."""
    quarantine = world.parts.quarantine
    before = {entry.name for entry in quarantine.entries()}
    world.send(tenant, b"no protobuf of " + (tenant or "nobody").encode())
    world.drain()
    (name,) = {entry.name for entry in quarantine.entries()} - before
    return name


def disagree(world: TwoTenants, tenant: str) -> None:
    """Sends what a tenant sent before, saying something else."""
    body = session_of(tenant, 1)
    world.send(tenant, body.replace(b"claude-opus-4-7", b"claude-opus-4-6"))
    world.drain()


RUNS = {
    "run-1": ["repo-alpha"],
    "run-2": ["repo-beta"],
    "run-3": ["repo-alpha", "repo-beta"],
    "run-4": None,
}


def furnish(world: TwoTenants) -> None:
    """Runs, rollouts, conflicts and set-aside records of each tenant, and of both."""
    versions = {
        version.policy.name: version.version for version in world.parts.versions.list_versions()
    }
    for tenant in TENANTS:
        run_rollout(world, versions[f"policy-{tenant}"])
        disagree(world, tenant)
    for run_id, repositories in RUNS.items():
        save_run(world, run_id, repositories)
    world.entries = [set_aside(world, tenant) for tenant in ("", *TENANTS)]


def _cluster(tenant: str) -> SessionCluster:
    ids = (f"session-{tenant}-1",)
    return SessionCluster(f"c-{tenant}", f"label {tenant}", ids, 0.1, 5, 0.5, (), ids, NOW_US)


def _mixed_cluster() -> SessionCluster:
    ids = ("session-alpha-2", "session-beta-2")
    return SessionCluster("c-mixed", "alpha and beta", ids, 0.1, 5, 0.5, (), ids, NOW_US)
