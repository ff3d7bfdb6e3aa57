"""Session files to a server, batch by batch, going on where the last shipping ended.

Secrets are taken out before anything leaves this machine. A batch counts as shipped once the server
has it on disk; one that is sent twice changes nothing there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from collectors.transcript_files import TranscriptFile, file_of, find_transcripts
from collectors.transcript_positions import START, Positions
from collectors.transcript_reading import INCOMPLETE, TranscriptReader
from collectors.transcripts import ImportReport
from loop.domain.errors import NotFound, Unavailable
from loop.service.api_client import ApiClient

LONGEST_PAUSE_SECONDS = 300.0
MAX_DOUBLINGS = 16  # of the pause
_NAME_PARTS = 3  # the last parts of a path say which session and subagent its lines are of

Progress = Callable[[int, int, str], None]  # bytes read, bytes in all, name


class Shipper:
    """Ships to one server. With ``positions`` only what is new since the last time."""

    def __init__(self, client: ApiClient, positions: Positions | None = None) -> None:
        self._client = client
        self._positions = positions
        self._seen: dict[Path, tuple[int, int]] = {}  # size and time of change when last shipped

    def ship(
        self, sources: Iterable[TranscriptFile], total_bytes: int, progress: Progress
    ) -> ImportReport:
        """Ships what the sources hold, in order.

        Raises:
            Unavailable: the server does not take it now; what it took is remembered.
            Refused: it does not take it from this sender.
        """
        report = ImportReport(reader=TranscriptReader(redacts=True))
        done_bytes = 0
        for source in sources:
            with source.open() as stream:
                start = START
                if self._positions is not None and source.path is not None:
                    start = self._positions.find(source.path, stream)
                done_bytes += start.offset
                for batch in report.reader.read(source, stream, start):
                    if batch.lines:
                        self._send(source, *batch.as_text())
                        report.imported += len(batch.lines)
                    if self._positions is not None and source.path is not None:
                        self._positions.move(
                            source.path, stream, batch.offset, batch.line, ends_line=batch.ends_line
                        )
                        self._positions.save()
                    progress(done_bytes + batch.offset - start.offset, total_bytes, source.name)
                done_bytes += batch.offset - start.offset
            report.files += 1
        return report

    def ship_new(self, paths: Iterable[Path | str], progress: Progress) -> ImportReport:
        """Ships what has been added to the files since they were last looked at."""
        try:
            found = find_transcripts(paths)
        except NotFound:  # a new machine: the client has not written any session yet
            found = []
        states = {path: _state(path) for path in found}
        changed = [path for path in found if self._seen.get(path) != states[path]]
        files = [file_of(path) for path in changed]
        report = self.ship(files, sum(file.size_bytes for file in files), progress)
        self._seen = states
        # The end of a line that is being written comes with the next look.
        problems = report.reader.problems
        report.reader.problems = [item for item in problems if item.why != INCOMPLETE]
        return report

    def _send(self, source: TranscriptFile, first_line: int, text: bytes) -> None:
        name = "/".join(Path(source.name).parts[-_NAME_PARTS:])
        parameters = {"path": name, "line": first_line}
        self._client.request("POST", "/v1/transcripts", params=parameters, content=text)


def follow(
    shipper: Shipper,
    paths: Iterable[Path | str],
    *,
    interval_seconds: float,
    stop: threading.Event,
    tell: Callable[[str], None],
) -> None:
    """Ships again and again until ``stop`` is set; a server that is away is waited for.

    Raises :class:`Refused` or :class:`BadInput` when the server will not take what is sent.
    """
    paths = list(paths)
    failures = 0
    while not stop.is_set():
        pause = interval_seconds
        try:
            report = shipper.ship_new(paths, lambda *_: None)
        except Unavailable as error:
            failures += 1
            growing = interval_seconds * 2.0 ** min(failures, MAX_DOUBLINGS)
            pause = max(error.retry_after_seconds, min(LONGEST_PAUSE_SECONDS, growing))
            tell(f"{error} Trying again in {pause:.0f} s; nothing is lost.")
        else:
            failures = 0
            if report.imported:
                tell(f"shipped {report.imported} lines of {report.files} files")
            for problem in report.problems:
                tell(f"skipped {problem}")
        stop.wait(pause)


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
