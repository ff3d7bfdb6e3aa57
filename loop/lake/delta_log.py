"""One Delta table of the lake: its handle, its commits and the files of its newest version.

Writers and readers hold a handle each, so that a query need not wait for a commit. Both are safe
to use from several threads.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import (
    CommitProperties,
    DeltaTable,
    Field,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    DeltaProtocolError,
    SchemaMismatchError,
    TableNotFoundError,
)
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction

from loop.domain.errors import Conflict, Corrupt, TurnwiseError, Unavailable
from loop.lake.data_files import (
    JOINED,
    SETTLED,
    DataFile,
    files_of,
    write_data_file,
)
from loop.lake.object_store import ObjectStore
from loop.lake.schemas import TableSchema

WRITER = WriterProperties(compression="ZSTD", compression_level=1)
"""Of what is appended: compaction soon writes it anew, and compresses it better."""

CHECKPOINT_COMMITS = 20
"""Commits between two checkpoints, so that opening a table reads few log files."""

REWRITES = "turnwise.rewrites"
"""The application whose number goes up with each commit that removes files. Of two such commits
that looked at one version, Delta refuses the second: no row is rewritten twice."""


ROLLED_UP = "turnwise.rolled_up"
"""The application whose number says which roll-up a table of charges is of."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of one version. ``version`` is -1 while the table does not exist."""

    version: int
    files: tuple[DataFile, ...]
    columns: frozenset[str]  # those that the version has; a newer reader may know more
    rolled_up: int | None = None  # the number of ROLLED_UP, of the newest version only

    def of_days(self, days: Collection[str]) -> list[DataFile]:
        return [file for file in self.files if file.day in days]


EMPTY = Snapshot(-1, (), frozenset())


class DeltaLog:
    """A table that is created by its first write and reads as empty before."""

    def __init__(
        self,
        store: ObjectStore,
        schema: TableSchema,
        checkpoint_commits: int = CHECKPOINT_COMMITS,
    ) -> None:
        self.store = store
        self.schema = schema
        self.uri = store.table_uri(schema.name)
        self._checkpoint_commits = checkpoint_commits
        self._options = dict(store.options) or None
        self._writer: DeltaTable | None = None
        self._reader: DeltaTable | None = None
        self._snapshot = EMPTY
        self._has_all_columns = False
        self._read_lock = threading.Lock()
        self.write_lock = threading.RLock()
        self._held = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the write lock, and looks the newest version up once for all that is asked of it
        until the first commit. Raises :class:`Unavailable`."""
        with self.write_lock:
            with store_errors(self.schema.name):
                self._find_writer()
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1

    def append(
        self, rows: pa.Table, *, transaction: tuple[str, int] | None = None, empty: bool = False
    ) -> int:
        """Commits rows in one version and returns it.

        ``transaction`` is (application, number), written in the same commit. Without rows
        nothing is committed, unless ``empty`` asks for a commit that only carries the number.
        Raises :class:`Unavailable`.
        """
        with self.write_lock, store_errors(self.schema.name):
            table = self._open_writer()
            if rows.num_rows or empty:
                write_deltalake(
                    table,
                    rows,
                    mode="append",
                    writer_properties=WRITER,
                    commit_properties=_properties(transaction),
                )
            return table.version()

    def replace_days(
        self,
        rows: pa.Table,
        days: Collection[str],
        *,
        transactions: Sequence[tuple[str, int]] = (),
    ) -> int:
        """Replaces all rows of the days by others, in one commit."""
        listed = ", ".join(f"'{day}'" for day in sorted(set(days)))
        with self.write_lock, store_errors(self.schema.name):
            table = self._open_writer()
            write_deltalake(
                table,
                rows,
                mode="overwrite",
                predicate=f"day IN ({listed})",
                writer_properties=WRITER,
                commit_properties=_rewriting(table, transactions),
            )
            return table.version()

    def rewrite(
        self,
        removed: Sequence[DataFile],
        added: Iterable[tuple[str, pa.Table | Iterable[pa.Table | pa.RecordBatch], bool]],
        *,
        note: str,
        metadata: Mapping[str, str] | None = None,
        transaction: tuple[str, int] | None = None,
    ) -> int:
        """Replaces files by others in one commit and returns its version.

        ``added`` gives, one after the other, the day of a file, its rows in the stored schema and
        whether they are settled. What was appended meanwhile stays. ``note`` says in the table's
        history what this was. Raises :class:`Conflict` when another process has removed one of
        the files; nothing has changed then.
        """
        written: list[AddAction] = []
        with self.write_lock, store_errors(self.schema.name):
            self._open_writer()
            filesystem = self.filesystem()
            try:
                for day, rows, is_settled in added:
                    prefix = SETTLED if is_settled else JOINED
                    action, count = write_data_file(filesystem, self.schema, day, rows, prefix)
                    if count:
                        written.append(action)
                    else:
                        filesystem.delete_file(action.path)
                table = self._open_writer()
                live = {file.path for file in self.snapshot().files}
                if any(file.path not in live for file in removed):
                    raise Conflict(f"Another process has rewritten files of {self.schema.name}.")
            except BaseException:
                _delete_quietly(filesystem, written)
                raise
            try:
                table.create_write_transaction(
                    [*written, *(file.removal() for file in removed)],
                    mode="append",
                    schema=table.schema(),
                    partition_by=["day"],
                    commit_properties=_rewriting(
                        table,
                        () if transaction is None else [transaction],
                        {"turnwise.action": note, **(metadata or {})},
                    ),
                )
            except CommitFailedError as error:
                # Only then is it sure that no commit names the files; after any other error they
                # may be live, and where they are not, vacuum finds them.
                _delete_quietly(filesystem, written)
                raise Conflict(
                    f"Another process rewrites files of {self.schema.name}.",
                    why=str(error),
                    fix="Try again.",
                ) from error
            return table.version()

    def restore(self, version: int) -> int:
        """Makes the table say again what it said at a version, as a new commit."""
        with self.write_lock, store_errors(self.schema.name):
            table = self._open_writer()
            is_rolled_up = table.transaction_version(ROLLED_UP) is not None
            table.restore(
                version,
                commit_properties=_rewriting(
                    table,
                    [(ROLLED_UP, new_number())] if is_rolled_up else (),
                    {"turnwise.action": "restore"},
                ),
            )
            return table.version()

    def change(self, action: Callable[[DeltaTable], object]) -> None:
        """Runs an action of the table's own (compaction, vacuum) under the write lock."""
        with self.write_lock, store_errors(self.schema.name):
            action(self._open_writer())

    def transaction_number(self, application: str) -> int | None:
        """The highest number committed under that name, or ``None``."""
        with self.write_lock, store_errors(self.schema.name):
            table = self._find_writer()
            return None if table is None else table.transaction_version(application)

    def next_version(self) -> int:
        """The version that the next commit will have, this process being the only writer."""
        with self.write_lock, store_errors(self.schema.name):
            return self._open_writer().version() + 1

    def snapshot(self) -> Snapshot:
        """The newest version. Raises :class:`Unavailable`, :class:`Corrupt`."""
        with self._read_lock, store_errors(self.schema.name):
            if self._reader is None:
                self._reader = _open(self.uri, self._options)
                if self._reader is None:
                    return EMPTY
            else:
                self._reader.update_incremental()
            if self._reader.version() != self._snapshot.version:
                self._snapshot = _read_snapshot(self._reader, self.uri)
            return self._snapshot

    def exists(self) -> bool:
        with store_errors(self.schema.name):
            return DeltaTable.is_deltatable(self.uri, storage_options=self._options)

    def open_table(self) -> DeltaTable | None:
        """A handle of its own on the newest version, to read what the log says of it."""
        with store_errors(self.schema.name):
            return _open(self.uri, self._options)

    def filesystem(self) -> pafs.FileSystem:
        """The table's files by their path inside it."""
        return pafs.PyFileSystem(DeltaStorageHandler(self.uri, self._options))

    def _find_writer(self) -> DeltaTable | None:
        if self._writer is None:
            self._writer = _open(self.uri, self._options)
        elif not self._held:
            self._writer.update_incremental()
        return self._writer

    def _open_writer(self) -> DeltaTable:
        table = self._find_writer()
        if table is None:
            table = self._writer = DeltaTable.create(
                self.uri,
                self.schema.arrow(),
                mode="ignore",
                partition_by=["day"],
                storage_options=self._options,
                configuration=self._properties(),
            )
        elif not self._has_all_columns:
            known = {field.name for field in table.schema().fields}
            later = [field for field in self.schema.arrow() if field.name not in known]
            if later:  # the table was made by an earlier version: it gains what has come since
                table.alter.add_columns([Field.from_arrow(field) for field in pa.schema(later)])
            wanted = self._properties()
            if not wanted.items() <= table.metadata().configuration.items():
                table.alter.set_table_properties(wanted)
        self._has_all_columns = True
        return table

    def _properties(self) -> dict[str, str]:
        """Statistics are few: of every column they would double the time of a commit, and they
        stay in the log when the rows are gone, so none may be of a person."""
        named = self.schema.statistics_columns()
        kept = (
            {"delta.dataSkippingStatsColumns": ",".join(named)}
            if named
            else {"delta.dataSkippingNumIndexedCols": "0"}
        )
        return {"delta.checkpointInterval": str(self._checkpoint_commits), **kept}


def _open(uri: str, options: dict[str, str] | None) -> DeltaTable | None:
    try:
        return DeltaTable(uri, storage_options=options)
    except TableNotFoundError:
        return None


def _delete_quietly(filesystem: pafs.FileSystem, written: Sequence[AddAction]) -> None:
    for action in written:
        with suppress(OSError):
            filesystem.delete_file(action.path)


def _properties(transaction: tuple[str, int] | None) -> CommitProperties | None:
    if transaction is None:
        return None
    return CommitProperties(app_transactions=[Transaction(*transaction)])


def _rewriting(
    table: DeltaTable,
    transactions: Sequence[tuple[str, int]],
    metadata: dict[str, str] | None = None,
) -> CommitProperties:
    rewrites = (REWRITES, (table.transaction_version(REWRITES) or 0) + 1)
    return CommitProperties(
        custom_metadata=metadata,
        app_transactions=[Transaction(*one) for one in (rewrites, *transactions)],
    )


def new_number() -> int:
    """A number of a roll-up that no other has."""
    return uuid.uuid4().int >> 66


def _read_snapshot(table: DeltaTable, uri: str) -> Snapshot:
    files = files_of(pa.table(table.get_add_actions(flatten=True)), uri)
    columns = frozenset(field.name for field in table.schema().fields)
    return Snapshot(table.version(), files, columns, table.transaction_version(ROLLED_UP))


@contextmanager
def store_errors(name: str) -> Iterator[None]:
    """Turns the storage's errors into the product's."""
    try:
        yield
    except TurnwiseError:
        raise  # some are OSErrors, too
    except (DeltaProtocolError, SchemaMismatchError, pa.ArrowInvalid) as error:
        raise Corrupt(f"The table {name} can't be read.", why=str(error)) from error
    except (DeltaError, CommitFailedError, OSError) as error:
        raise Unavailable(
            f"The store of the table {name} does not answer.",
            why=str(error),
            fix="Check TURNWISE_STORE_URI, the store's credentials and its free space.",
        ) from error
