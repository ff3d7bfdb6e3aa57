"""How far each session file has been read, so that the next reading begins there.

A position is kept by path, with a fingerprint of the file's first bytes: a file that was replaced,
cut or rewritten is read from its beginning again, which is safe, for a line has one id.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import orjson

from loop.domain.errors import Conflict, Corrupt

_HEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Position:
    """``offset`` bytes and ``line`` lines have been read; ``head`` is the digest of the first
    ``head_bytes`` of the file. ``ends_line`` is false after a last line without its newline."""

    offset: int = 0
    line: int = 0
    head_bytes: int = 0
    head: str = ""
    ends_line: bool = True


START = Position()


class Positions:
    """The positions of many files, in one JSON file that is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._positions: dict[str, Position] = {}

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Positions]:
        """Reads the file and keeps it to this process; :meth:`save` writes it.

        Raises:
            Conflict: another process reads the same session files now.
            Corrupt: the file is not what :meth:`save` wrote.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(path.with_suffix(".lock"), "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Conflict(
                    "Another import or follower is at work with the same positions.",
                    why=f"{path} is locked.",
                    fix="Let it end, or give this one another --state.",
                ) from error
            positions = cls(path)
            positions._load()
            yield positions

    def _load(self) -> None:
        try:
            document = orjson.loads(self._path.read_bytes())
            self._positions = {name: Position(**entry) for name, entry in document.items()}
        except FileNotFoundError:
            return
        except (orjson.JSONDecodeError, TypeError, AttributeError) as error:
            raise Corrupt(
                f"The positions in {self._path} can't be read.",
                why=str(error),
                fix="Remove the file: everything is read again, and nothing counts twice.",
            ) from error

    def find(self, path: Path, file: BinaryIO) -> Position:
        """Where to go on in a file; at its start when it is new or not the same any more.

        The stream is left at the position's offset.
        """
        position = self._positions.get(str(path), START)
        size = os.fstat(file.fileno()).st_size
        if position.offset > size or _digest(file, position.head_bytes) != position.head:
            position = START
        file.seek(position.offset)
        return position

    def move(self, path: Path, file: BinaryIO, offset: int, line: int, *, ends_line: bool) -> None:
        """Everything before ``offset`` is dealt with; durable with the next :meth:`save`."""
        head_bytes = min(offset, _HEAD_BYTES)
        self._positions[str(path)] = Position(
            offset, line, head_bytes, _digest(file, head_bytes), ends_line
        )

    def save(self) -> None:
        """Writes them durably, without the files that are gone."""
        kept = {
            name: asdict(position)
            for name, position in self._positions.items()
            if os.path.exists(name)
        }
        temporary = self._path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(orjson.dumps(kept))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)


def _digest(file: BinaryIO, head_bytes: int) -> str:
    if not head_bytes:
        return ""
    return blake2b(os.pread(file.fileno(), head_bytes, 0), digest_size=16).hexdigest()
