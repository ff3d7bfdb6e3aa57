"""The control store: one relational database (SQLite embedded, PostgreSQL in production).

Each table is defined on :data:`metadata` by the one module that writes it; the migrations in
``loop/control/migrations`` create them, and a test holds the two together.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, MetaData, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from loop.domain.errors import BadInput, Unavailable

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
_MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "turnwise_revision"
"""Where Alembic notes the schema's revision. Optuna keeps its studies in the same database and
notes its own in Alembic's usual table, ``alembic_version``."""


def open_control_store(database_url: str) -> Engine:
    """Connects and brings the schema up to date.

    ``database_url`` is SQLAlchemy's form: ``sqlite:///path`` or ``postgresql+psycopg://…``.
    Raises :class:`BadInput` for a URL that can't be read, :class:`Unavailable` when the
    database does not answer.
    """
    engine = connect(database_url)
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                # Two processes that start at once must not both create the tables.
                connection.execute(text("SELECT pg_advisory_xact_lock(7453018266)"))
            _leave_the_usual_table(connection)
            if _revision_of(connection) != head_revision():
                _upgrade(connection)
    except OperationalError as error:
        raise Unavailable(
            "The control database does not answer.",
            why=str(error.orig),
            fix="Check TURNWISE_DATABASE_URL and that the server runs.",
        ) from error
    return engine


def head_revision() -> str:
    """The newest migration's revision: migrations are files named ``<revision>_<words>.py``."""
    newest = max(path.name for path in (_MIGRATIONS / "versions").glob("*.py"))
    return newest.split("_", 1)[0]


def _revision_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    query = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant
    revision: str | None = connection.scalar(query)
    return revision


def _leave_the_usual_table(connection: Connection) -> None:
    """Databases of before revision 0010 noted it where Optuna now does."""
    tables = inspect(connection)
    if tables.has_table(VERSION_TABLE) or not tables.has_table("alembic_version"):
        return
    # Copied, not renamed: a key keeps its name when its table is renamed, and Optuna's table will
    # want that name.
    revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    connection.execute(text("DROP TABLE alembic_version"))
    connection.execute(
        text(
            f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
            f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(
        text(f"INSERT INTO {VERSION_TABLE} VALUES (:revision)"),  # noqa: S608 - a constant
        {"revision": revision},
    )


def _upgrade(connection: Connection) -> None:
    # Imported here: it takes longer to load than most commands take, and is seldom needed.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def connect(database_url: str) -> Engine:
    """An engine with the pragmas that make SQLite durable and safe between processes."""
    try:
        url = make_url(database_url)
        if url.get_backend_name() == "sqlite" and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise BadInput(
            "TURNWISE_DATABASE_URL can't be read.",
            why=str(error),
            fix="Write sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/NAME.",
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    return engine


def _prepare_sqlite(connection, _record) -> None:  # type: ignore[no-untyped-def]
    connection.isolation_level = None  # SQLAlchemy's own BEGIN below rules the transaction
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection) -> None:  # type: ignore[no-untyped-def]
    # A transaction that may write must take the lock at its start: two that read first and
    # write later would both see "no active version".
    connection.exec_driver_sql("BEGIN IMMEDIATE")
