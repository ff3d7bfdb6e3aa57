"""``turnwise import transcripts``: this machine's session files, into a data folder or a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from loop.service.api_client import ApiClient
from loop.service.printing import plain, print_json, print_lines, talk
from loop.service.settings import load_settings

Advance = Callable[[int, int, Path], None]


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
def transcripts(paths: tuple[str, ...], data: Path | None, api: str | None, as_json: bool) -> None:
    """Read Claude Code's session files (~/.claude/projects): files, folders or globs.

    Importing a file again changes nothing. A line that can't be read is named and skipped; the
    rest is imported. JSON: {files, lines, imported, ignored, duplicates, sessions, problems}.
    """
    if api and data:
        raise click.UsageError("--data and --api exclude each other.")
    bar = Progress(
        TextColumn("Importing"), BarColumn(), MofNCompleteColumn(), console=talk, transient=True
    )
    with bar:
        task = bar.add_task("import", total=None)

        def advance(done: int, total: int, _path: Path) -> None:
            bar.update(task, completed=done, total=total)

        report = _send(paths, api, advance) if api else _import(paths, data, advance)
    if as_json:
        print_json(report)
    else:
        print_lines(
            f"{report['imported']} lines of {report['files']} files imported: "
            f"{len(report['sessions'])} sessions."
        )
    for problem in report["problems"]:
        where = f"{problem['path']}:{problem['line']}"
        talk.print(plain(f"skipped {where}: {problem['why']}"), markup=False)


def _import(paths: tuple[str, ...], data: Path | None, advance: Advance) -> dict[str, Any]:
    # Imported here: other commands need no collectors.
    from collectors.transcripts import import_transcripts
    from loop.service.assemble import assemble

    parts = assemble(load_settings(data_dir=data))
    try:
        report = import_transcripts(paths, parts.journal, advance)
        parts.catch_up()
    finally:
        parts.close()
    return report.as_dict()


def _send(paths: tuple[str, ...], api: str, advance: Advance) -> dict[str, Any]:
    """Sends file after file; the answers add up to one report."""
    from collectors.transcripts import find_transcripts

    total: dict[str, Any] = {"files": 0, "sessions": [], "problems": []}
    files = find_transcripts(paths)
    with ApiClient(api, token=load_settings().api_token) as client:
        for done, file in enumerate(files, 1):
            name = "/".join(file.parts[-3:])
            answer = client.request(
                "POST", "/v1/transcripts", params={"path": name}, content=file.read_bytes()
            )
            for key, value in answer.items():
                total[key] = total.get(key, type(value)()) + value
            advance(done, len(files), file)
    total["sessions"] = sorted(set(total["sessions"]))
    return total
