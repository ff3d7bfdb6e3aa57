"""The commands, one module per noun, and what they share: where to read, and how to print."""

from __future__ import annotations

import functools
import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from loop.service.api_client import IN_PROCESS_HOST, ApiClient
from loop.service.printing import talk
from loop.service.settings import load_settings

actor_option = click.option(
    "--as", "actor", default=getpass.getuser, help="Who does it (default: the user name)."
)
reason_option = click.option("--reason", required=True, help="Why: it is kept with the move.")


def reads(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--json``, ``--data`` and ``--api`` and passes ``client`` and ``as_json``."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON, as the API answers it.")
    @click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Data folder to work on (default: TURNWISE_DATA_DIR or .turnwise).",
    )
    @click.option("--api", metavar="URL", help="A running server to ask instead.")
    @functools.wraps(command)
    def wrapped(*args: Any, data: Path | None, api: str | None, **options: Any) -> Any:
        with open_client(data, api) as client:
            return command(client, *args, **options)

    return wrapped


def open_client(data: Path | None, api: str | None) -> ApiClient:
    """A client of a server, or of the application over a data folder in this process."""
    if api and data:
        raise click.UsageError("--data and --api exclude each other.")
    settings = load_settings(data_dir=data)
    if api:
        return ApiClient(api, token=settings.api_token)
    # Imported here: a client of a server needs none of the stages.
    from loop.service.assemble import assemble
    from loop.service.http_api import api_app

    parts = assemble(settings)
    if not parts.catch_up():
        talk.print("Not all that was received is in the lake yet; it is still being brought in.")
    return ApiClient(
        f"http://{IN_PROCESS_HOST}",
        token=settings.api_token,
        app=api_app(parts),
        on_close=parts.close,
    )
