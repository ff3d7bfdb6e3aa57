from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

import loop.service.assemble  # noqa: F401 - defines every table
from loop.control.store import VERSION_TABLE, head_revision, metadata, open_control_store
from loop.domain.errors import BadInput, Unavailable
from tests.servers.postgres_server import postgres_server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'control.db'}"
        return
    with postgres_server() as url:
        yield url


def test_the_migrations_make_the_tables_that_the_code_defines(database_url: str) -> None:
    engine = open_control_store(database_url)
    with engine.connect() as connection:
        assert (
            compare_metadata(
                MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}),
                metadata,
            )
            == []
        )
        revision = connection.scalar(text("SELECT version_num FROM turnwise_revision"))
    engine.dispose()
    assert revision == head_revision()


def test_opening_again_keeps_what_is_there(database_url: str) -> None:
    engine = open_control_store(database_url)
    insert = "INSERT INTO stage_progress VALUES ('collect', 1, 2, 3, 'note')"
    with engine.begin() as connection:
        connection.execute(text(insert))
    engine.dispose()
    engine = open_control_store(database_url)
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT note FROM stage_progress")) == "note"
    engine.dispose()


def test_a_database_of_before_optuna_came_in_is_read_and_leaves_it_room(database_url: str) -> None:
    engine = open_control_store(database_url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE turnwise_revision"))
        old = "version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY"
        connection.execute(text(f"CREATE TABLE alembic_version ({old} (version_num))"))
        connection.execute(text(f"INSERT INTO alembic_version VALUES ('{head_revision()}')"))
    engine.dispose()
    for _ in range(2):  # the second time with Optuna's tables beside ours
        engine = open_control_store(database_url)
        engine.dispose()
        storage = optuna.storages.RDBStorage(database_url)
        assert storage.get_current_version() == storage.get_head_version()
        storage.remove_session()
        storage.engine.dispose()


@pytest.mark.parametrize("url", ["nonsense", "oracle://host/name", ""])
def test_a_url_that_can_not_be_read_is_named(url: str) -> None:
    with pytest.raises(BadInput, match="TURNWISE_DATABASE_URL"):
        open_control_store(url)


def test_a_database_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        open_control_store("postgresql+psycopg://nobody@127.0.0.1:9/none?connect_timeout=1")
