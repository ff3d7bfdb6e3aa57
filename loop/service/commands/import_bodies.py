"""``turnwise import bodies``: raw API bodies that the client kept in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loop.service.api_client import ApiClient
from loop.service.commands.import_transcripts import Advance, progress_bar
from loop.service.printing import plain, print_json, print_lines, talk
from loop.service.settings import load_settings


@click.command("bodies")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder (default: TURNWISE_DATA_DIR or .turnwise).",
)
@click.option("--otlp", metavar="URL", help="Send to a running server's OTLP/HTTP port instead.")
def bodies(folders: tuple[Path, ...], data: Path | None, otlp: str | None, as_json: bool) -> None:
    """Read folders of raw API bodies, as Claude Code keeps them with
    OTEL_LOG_RAW_API_BODIES=file:DIR: every answer with its tokens, and every tool's result, failed
    ones too.

    Importing a folder again changes nothing. A row or file that can't be read is named and skipped;
    the rest is imported.

    \b
    JSON: {requests, responses, tool_results, sessions, problems: [{path, line, why}]}
    """
    if otlp and data:
        raise click.UsageError("--data and --otlp exclude each other.")
    with progress_bar("Importing") as advance:
        report = _send(folders, otlp, advance) if otlp else _import(folders, data, advance)
    if as_json:
        print_json(report)
    else:
        print_lines(
            f"{report['responses']} responses and {report['tool_results']} tool results of "
            f"{report['requests']} requests imported: {len(report['sessions'])} sessions."
        )
    for problem in report["problems"]:
        where = f"{problem['path']} (row {problem['line']})"
        talk.print(plain(f"skipped {where}: {problem['why']}"), markup=False)


def _import(folders: tuple[Path, ...], data: Path | None, advance: Advance) -> dict[str, Any]:
    # Imported here: other commands need no collectors.
    from collectors.raw_body_files import import_bodies
    from loop.service.assemble import assemble

    parts = assemble(load_settings(data_dir=data))
    try:
        report = import_bodies(list(folders), parts.journal, advance)
        parts.catch_up()
    finally:
        parts.close()
    return report.as_dict()


def _send(folders: tuple[Path, ...], otlp: str, advance: Advance) -> dict[str, Any]:
    from collectors.raw_body_files import BodyReport, read_bodies

    report = BodyReport()
    headers = {"content-type": "application/json"}
    with ApiClient(otlp, token=load_settings().api_token) as client:
        for body in read_bodies(list(folders), report, advance):
            client.request("POST", "/v1/logs", content=body, headers=headers)
    return report.as_dict()
