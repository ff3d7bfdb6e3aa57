from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import loop.service.assemble  # noqa: F401 - defines every table
from loop.control.store import open_control_store
from tests.access.organization_rows import Access
from tests.servers.postgres_server import postgres_server


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def access(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Access]:
    """The stores over an empty database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'control.db'}"
    else:
        url = request.getfixturevalue("postgres_url")
    engine = open_control_store(url)
    yield Access(engine)
    if request.param == "postgres":
        with engine.begin() as connection:
            for table in (
                "access_records",
                "credentials",
                "organization_spans",
                "developer_memberships",
                "attribution_rules",
                "content_modes",
            ):
                connection.exec_driver_sql(f"DELETE FROM {table}")
    engine.dispose()
