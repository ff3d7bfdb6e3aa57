"""``turnwise import transcripts``: from this machine's files, into a data folder or a server."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from loop.service.printing import print_json, print_lines, talk
from loop.service.settings import load_settings


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
def transcripts(paths: tuple[str, ...], data: Path | None, as_json: bool) -> None:
    """Read Claude Code's session files (~/.claude/projects): files, folders or globs.

    Importing a file again changes nothing. A line that can't be read is named and skipped; the
    rest is imported. JSON: {files, lines, imported, ignored, duplicates, sessions, problems}.
    """
    # Imported here: other commands need no collectors.
    from collectors.transcripts import import_transcripts
    from loop.service.assemble import assemble

    parts = assemble(load_settings(data_dir=data))
    bar = Progress(
        TextColumn("Importing"), BarColumn(), MofNCompleteColumn(), console=talk, transient=True
    )
    with bar:
        task = bar.add_task("import", total=None)
        report = import_transcripts(
            paths,
            parts.journal,
            lambda done, total, _path: bar.update(task, completed=done, total=total),
        )
    parts.catch_up()
    parts.close()
    if as_json:
        print_json(report.as_dict())
    else:
        print_lines(
            f"{report.imported} lines of {report.files} files imported: "
            f"{len(report.sessions)} sessions."
        )
    for problem in report.problems:
        talk.print(f"skipped {problem}", markup=False)
