"""A service with two tenants in one organization, whose every text says whose it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from loop.access.credentials import Credential
from loop.access.records import Author
from loop.access.verbs import Verb
from loop.domain.clusters import SessionCluster
from loop.domain.lifecycle import Actor, ActorKind
from loop.domain.organization_changes import NodeRow
from loop.domain.policy_documents import parse_policy
from loop.lake.rows import day_of
from loop.service import stages
from loop.service.assemble import Parts, assemble
from loop.service.drain_stage import drain
from loop.service.settings import load_settings
from optimizers.classic import classic_policy

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


def _cluster(tenant: str) -> SessionCluster:
    ids = (f"session-{tenant}-1",)
    return SessionCluster(f"c-{tenant}", f"label {tenant}", ids, 0.1, 5, 0.5, (), ids, NOW_US)


def _mixed_cluster() -> SessionCluster:
    ids = ("session-alpha-2", "session-beta-2")
    return SessionCluster("c-mixed", "alpha and beta", ids, 0.1, 5, 0.5, (), ids, NOW_US)
