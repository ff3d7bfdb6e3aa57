"""``turnwise import transcripts``: session files, once, into a data folder or a server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from loop.service.api_client import ApiClient
from loop.service.printing import plain, print_json, print_lines, talk
from loop.service.settings import load_settings

Advance = Callable[[int, int, str], None]


@click.group()
def import_group() -> None:
    """Bring in what is already on disk."""


@import_group.command("transcripts")
@click.argument("paths", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder (default: TURNWISE_DATA_DIR or .turnwise).",
)
@click.option("--api", metavar="URL", help="A running server to send them to instead.")
@click.option(
    "--again",
    is_flag=True,
    help="Read files from their beginning, not from where the last import ended.",
)
def transcripts(
    paths: tuple[str, ...], data: Path | None, api: str | None, again: bool, as_json: bool
) -> None:
    """Read Claude Code's session files (~/.claude/projects): files, folders, globs, tar archives
    (.tar, .tar.gz, .tgz, .tar.bz2, .tar.xz), or - for lines or an archive on stdin.

    Into a data folder, a file is read from where the last import of it ended. Importing a line
    again changes nothing. A line that can't be read is named and skipped; the rest is imported.

    \b
    JSON: {files, unchanged, lines, imported, ignored, duplicates, sessions,
           problems: [{path, line, why}]}, with --api also redacted
    """
    if api and data:
        raise click.UsageError("--data and --api exclude each other.")
    with progress_bar("Importing") as advance:
        report = _send(paths, api, advance) if api else _import(paths, data, again, advance)
    if as_json:
        print_json(report)
    else:
        unchanged = f" ({report['unchanged']} of them unchanged)" if report["unchanged"] else ""
        print_lines(
            f"{report['imported']} lines of {report['files']} files{unchanged} imported: "
            f"{len(report['sessions'])} sessions."
        )
    for problem in report["problems"]:
        where = f"{problem['path']}:{problem['line']}"
        talk.print(plain(f"skipped {where}: {problem['why']}"), markup=False)


@contextmanager
def progress_bar(title: str) -> Iterator[Advance]:
    """A bar of bytes on stderr where that is a terminal."""
    bar = Progress(
        TextColumn(title),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=talk,
        transient=True,
    )
    with bar:
        task = bar.add_task(title, total=None)

        def advance(done: int, total: int, _name: str) -> None:
            bar.update(task, completed=done, total=total or None)

        yield advance


def _import(
    paths: tuple[str, ...], data: Path | None, again: bool, advance: Advance
) -> dict[str, Any]:
    # Imported here: other commands need no collectors.
    from collectors.transcript_positions import Positions
    from collectors.transcripts import import_transcripts
    from loop.service.assemble import assemble

    parts = assemble(load_settings(data_dir=data))
    remembered = (
        nullcontext() if again else Positions.open(parts.settings.data_dir / "transcripts.json")
    )
    try:
        with remembered as positions:
            report = import_transcripts(
                paths, parts.journal, advance, positions=positions, stdin=sys.stdin.buffer
            )
        parts.catch_up()
    finally:
        parts.close()
    return report.as_dict()


def _send(paths: tuple[str, ...], api: str, advance: Advance) -> dict[str, Any]:
    """Reads here, so that secrets stay here, and sends batch by batch."""
    from collectors.transcripts import open_sources
    from loop.service.shipping import Shipper

    sources, total_bytes = open_sources(paths, sys.stdin.buffer)
    with ApiClient(api, token=load_settings().api_token) as client:
        return Shipper(client).ship(sources, total_bytes, advance).as_dict()
