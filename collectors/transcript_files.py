"""Where transcript lines come from: session files, trees, patterns, tar archives and stdin.

Every kind of source is read as a :class:`TranscriptFile`: a name whose last parts say which session
and which subagent its lines are of, and a binary stream. Nothing of an archive is unpacked to disk.
"""

from __future__ import annotations

import glob
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from loop.domain.errors import BadInput, NotFound

STDIN = "-"
SUFFIX = ".jsonl"
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_TAR_MAGIC_AT, _TAR_MAGIC = 257, b"ustar"
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_SUBAGENTS = "subagents"
_READ_BYTES = 1024 * 1024


@dataclass(slots=True)
class TranscriptFile:
    """One file of lines. ``path`` is set where it lies on this machine's disk by itself, so that
    a later reading may go on where this one ended; ``size_bytes`` is 0 where it is not known."""

    name: str
    size_bytes: int
    path: Path | None = None
    stream: BinaryIO | None = None

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The lines. Raises :class:`BadInput` when an archive ends too early."""
        if self.stream is not None:
            with _whole_archive(self.name):
                yield self.stream
        elif self.path is not None:
            with open(self.path, "rb", buffering=_READ_BYTES) as file:
                yield file

    @property
    def session_id(self) -> str:
        """The session that the name stands for; a line's own ``sessionId`` rules over it."""
        return session_of(self.name)

    @property
    def agent_id(self) -> str:
        """The subagent that the name stands for, "" for the main loop."""
        return agent_of(self.name)


def session_of(name: str) -> str:
    """``…/<session>/subagents/agent-<id>.jsonl`` and ``…/<session>.jsonl`` name a session."""
    path = PurePosixPath(name)
    return path.parent.parent.name if path.parent.name == _SUBAGENTS else path.stem


def agent_of(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem.removeprefix("agent-") if path.parent.name == _SUBAGENTS else ""


def find_transcripts(paths: Iterable[Path | str]) -> list[Path]:
    """The session files and archives that paths, trees and patterns name, each once.

    Raises:
        NotFound: one of them names no file.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path = Path(given).expanduser()
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = _files_below(path)
        else:
            matches = [
                item
                for name in sorted(glob.glob(str(path), recursive=True))
                for item in ([Path(name)] if Path(name).is_file() else _files_below(Path(name)))
            ]
        if not matches:
            raise NotFound(
                f"No transcript at {given}.",
                why=f"No {SUFFIX} file is there.",
                fix="Name a file, a directory such as ~/.claude/projects, a pattern, a tar "
                f"archive, or {STDIN} for stdin.",
            )
        found.update(dict.fromkeys(match.resolve() for match in matches))
    return list(found)


def _files_below(path: Path) -> list[Path]:
    return sorted(item for item in path.rglob(f"*{SUFFIX}") if item.is_file())


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(_TAR_SUFFIXES)


def file_of(path: Path) -> TranscriptFile:
    return TranscriptFile(str(path), path.stat().st_size, path=path)


def archived_files(path: Path) -> Iterator[TranscriptFile]:
    """The session files in a tar archive, in its order. Raises :class:`BadInput`."""
    with open(path, "rb") as file:
        yield from _members(file, str(path))


def files_of_stdin(stream: BinaryIO) -> Iterator[TranscriptFile]:
    """Lines, or a tar archive of session files, whichever stdin holds."""
    buffered = io.BufferedReader(stream, 64 * 1024)  # type: ignore[type-var]
    head = buffered.peek(512)[:512]
    is_tar = head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + len(_TAR_MAGIC)] == _TAR_MAGIC
    if is_tar or head.startswith(_COMPRESSED):
        yield from _members(buffered, "stdin")
    else:
        yield TranscriptFile("stdin" + SUFFIX, 0, stream=buffered)


def _members(file: BinaryIO, name: str) -> Iterator[TranscriptFile]:
    found = False
    with _whole_archive(name), tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(SUFFIX):
                stream = archive.extractfile(member)
                if stream is not None:
                    found = True
                    yield TranscriptFile(
                        f"{name}:{member.name}",
                        member.size,
                        stream=io.BufferedReader(stream),  # type: ignore[type-var]
                    )
    if not found:
        raise NotFound(f"No transcript in {name}.", why=f"It holds no {SUFFIX} file.")


@contextmanager
def _whole_archive(name: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise BadInput(
            f"The archive {name} can't be read to its end.",
            why=str(error),
            fix="What came before is imported; pack it again and import that, nothing doubles.",
        ) from error
