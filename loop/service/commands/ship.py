"""``turnwise ship``: a small follower for a developer's machine or a CI runner."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import click

from loop.service.api_client import ApiClient
from loop.service.commands.import_transcripts import progress_bar
from loop.service.printing import plain, print_json, print_lines, talk
from loop.service.settings import load_settings


@click.command()
@click.argument("paths", nargs=-1)
@click.option("--api", required=True, metavar="URL", help="The server to send to.")
@click.option("--once", is_flag=True, help="Send what is new and end, as at the end of a CI job.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="Seconds between two looks at the files.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of what was sent (default: turnwise/ship.json in XDG_STATE_HOME, ~/.local/state).",
)
@click.option("--json", "as_json", is_flag=True, help="With --once: print JSON.")
def ship(
    paths: tuple[str, ...],
    api: str,
    once: bool,
    interval: float,
    state: Path | None,
    as_json: bool,
) -> None:
    """Send new lines of Claude Code's session files to a server, and go on doing so.

    PATHS default to ~/.claude/projects. Secrets are taken out before anything is sent. What was
    sent is remembered, so a restart goes on where it ended; a server that is away is waited for.
    The token is TURNWISE_API_TOKEN. Ends on SIGTERM or SIGINT after the batch at hand.

    JSON: {files, lines, imported, ignored, duplicates, redacted, sessions, problems}.
    """
    # Imported here: other commands need no collectors.
    from collectors.transcript_positions import Positions
    from loop.service.shipping import Shipper, follow

    if as_json and not once:
        raise click.UsageError("--json goes with --once.")
    watched = paths or (str(_projects_folder()),)
    with (
        Positions.open(state or _default_state()) as positions,
        ApiClient(api, token=load_settings().api_token) as client,
    ):
        shipper = Shipper(client, positions)
        if once:
            with progress_bar("Sending") as advance:
                report = shipper.ship_new(watched, advance)
            if as_json:
                print_json(report.as_dict())
            else:
                print_lines(f"{report.imported} lines of {report.files} files sent.")
            for problem in report.problems:
                talk.print(plain(f"skipped {problem}"), markup=False)
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        follow(
            shipper,
            watched,
            interval_seconds=interval,
            stop=stop,
            tell=lambda text: talk.print(plain(text), markup=False),
        )


def _projects_folder() -> Path:
    """Where the client keeps its session files."""
    configured = os.environ.get("CLAUDE_CONFIG_DIR")
    return (Path(configured) if configured else Path.home() / ".claude") / "projects"


def _default_state() -> Path:
    configured = os.environ.get("XDG_STATE_HOME")
    return (Path(configured) if configured else Path.home() / ".local/state") / "turnwise/ship.json"
