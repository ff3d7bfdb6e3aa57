"""Small organizations and stores for the tests of access."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Engine

from loop.access.credentials import CredentialStore
from loop.access.directory import DirectorySource
from loop.access.organization_store import OrganizationStore
from loop.access.records import AccessLog, Author
from loop.domain.organization import OrganizationTree
from loop.domain.organization_changes import NodeRow, add_nodes

ADA = Author("ada", reason="for a test")
NODES = (
    NodeRow("acme", "acme", "org"),
    NodeRow("bu-1", "platform", "business_unit", "acme"),
    NodeRow("bu-2", "products", "business_unit", "acme"),
    NodeRow("su-1", "checkout", "sub_unit", "bu-1", "grace"),
    NodeRow("su-2", "search", "sub_unit", "bu-2"),
    NodeRow("cc-1", "cc-100", "cost_center", "su-1"),
    NodeRow("cc-2", "cc-200", "cost_center", "su-2"),
)
FIRST_DAY = "2026-01-01"
MICROSECONDS = 1_000_000


def small_tree() -> OrganizationTree:
    return add_nodes(OrganizationTree(), NODES, FIRST_DAY)


@dataclass
class Access:
    """The stores of access over one engine, by a clock that a test sets."""

    engine: Engine
    refresh_seconds: float = 2.0
    now_us: int = 1_780_000_000 * MICROSECONDS  # 2026-05-28
    log: AccessLog = field(init=False)
    credentials: CredentialStore = field(init=False)
    organization: OrganizationStore = field(init=False)
    directories: DirectorySource = field(init=False)

    def __post_init__(self) -> None:
        self.log = AccessLog(self.engine, lambda: self.now_us)
        self.credentials = CredentialStore(self.log)
        self.organization = OrganizationStore(self.log)
        self.directories = DirectorySource(self.log, refresh_seconds=self.refresh_seconds)

    def later(self, seconds: float) -> None:
        self.now_us += round(seconds * MICROSECONDS)
