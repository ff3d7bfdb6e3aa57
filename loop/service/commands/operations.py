"""``turnwise serve``, ``collect``, ``drain``, ``edge``, ``demo``, ``doctor`` and ``settings``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loop.service.printing import Column, print_json, print_lines, print_rows
from loop.service.settings import load_settings

_data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder (default: TURNWISE_DATA_DIR or .turnwise).",
)


@click.command()
@_data_option
@click.option("--http", help="Address of the API and the pages (HOST:PORT).")
@click.option("--otlp-http", help="Address of OTLP over HTTP; `off` for none.")
@click.option("--otlp-grpc", help="Address of OTLP over gRPC; `off` for none.")
@click.option("--edge", help="Address of the edge proxy; `off` for none.")
def serve(data: Path | None, **addresses: str | None) -> None:
    """Run the whole service: receivers, API, pages, scheduler, edge proxy, and the drainer.

    The drainer is a child process, started again if it dies. Writes one line beginning with
    `ready` to stderr once it accepts on all its ports. Ends on SIGTERM or SIGINT after answering
    what it has begun.
    """
    # Imported here: other commands need no server.
    from loop.service.server import run_server

    given: dict[str, Any] = {"data_dir": data, **addresses}
    run_server(load_settings(**given))


@click.command()
@_data_option
@click.option("--otlp-http", help="Address of OTLP over HTTP; `off` for none.")
@click.option("--otlp-grpc", help="Address of OTLP over gRPC; `off` for none.")
def collect(data: Path | None, **addresses: str | None) -> None:
    """Receive OTLP into the journal of a data folder, and do nothing else.

    For more receivers than the one in `turnwise serve`; `turnwise drain` (or a server) on the same
    folder brings what they receive into the lake. Writes one line beginning with `ready` to stderr.
    """
    # Imported here: other commands need no server.
    from loop.service.receivers import run_receivers

    given: dict[str, Any] = {"data_dir": data, **addresses}
    run_receivers(load_settings(**given))


@click.command()
@_data_option
@click.option("--supervised", is_flag=True, hidden=True, help="End with the parent process.")
def drain(data: Path | None, supervised: bool) -> None:
    """Bring what the receivers of a data folder acknowledge into the lake, until it is ended.

    While another process does so it stands by, and takes over when that one ends. Writes one line
    beginning with `ready` to stderr. On SIGTERM it drains once more and ends.
    """
    # Imported here: other commands need no collectors.
    from loop.service.drain_process import run_drainer

    run_drainer(load_settings(data_dir=data), supervised=supervised)


@click.command()
@click.option("--api", required=True, metavar="URL", help="The turnwise service to pull from.")
@click.option(
    "--keys",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the keys that sign policies; asked of a service on this machine without it.",
)
@click.option("--listen", metavar="HOST:PORT", help="Address (default: TURNWISE_EDGE).")
@click.option("--upstream", metavar="URL", help="Upstream (default: ANTHROPIC_BASE_URL).")
@_data_option
@click.option("--inherited", type=int, hidden=True, help="Serve this descriptor for a parent.")
def edge(
    api: str,
    keys: Path | None,
    listen: str | None,
    upstream: str | None,
    data: Path | None,
    inherited: int | None,
) -> None:
    """Run the edge proxy alone, before the API or before another gateway.

    Writes one line beginning with `ready` to stderr once it accepts. SIGHUP starts it anew, with
    the code and the settings file as they are then, and no connection is refused meanwhile.
    SIGTERM and SIGINT end it when its answers are whole, at most TURNWISE_EDGE_DRAIN_SECONDS later.
    The data folder keeps the last good policy and the routes of sessions over restarts.
    """
    # Imported here: other commands need no server.
    from loop.service.edge_process import run_edge, serve_inherited

    settings = load_settings(data_dir=data, edge=listen, anthropic_base_url=upstream)
    if inherited is not None:
        serve_inherited(settings, api, keys, inherited)
        return
    given = {"--keys": keys, "--listen": listen, "--upstream": upstream, "--data": data}
    arguments = [f"{name}={value}" for name, value in given.items() if value is not None]
    run_edge(settings, api, keys, ["edge", f"--api={api}", *arguments])


@click.command()
@click.option("--exit", "end", is_flag=True, help="Check the demo's own claims, then end.")
@click.option("--seed", type=int, default=20_261, show_default=True, help="Of the simulated fleet.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder, made anew (default: a temporary one).",
)
def demo(end: bool, seed: int, data: Path | None) -> None:
    """Turn the whole loop once: real recordings first, then a simulated fleet."""
    from loop.service.demo import run_demo

    raise click.exceptions.Exit(run_demo(end=end, seed=seed, data_dir=data))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_data_option
def doctor(data: Path | None, as_json: bool) -> None:
    """Find the usual misconfigurations. Exits with 1 when a check fails.

    JSON: {"rows": [{check, ok, detail, fix}], "next": null}.
    """
    from loop.service.doctor import examine

    rows = [check.as_row() for check in examine(load_settings(data_dir=data))]
    if as_json:
        print_json({"rows": rows, "next": None})
    else:
        for row in rows:
            print_lines(f"{'✓' if row['ok'] else '✕'} {row['check']}: {row['detail']}")
            if not row["ok"] and row["fix"]:
                print_lines(f"    {row['fix']}")
    if not all(row["ok"] for row in rows):
        raise click.exceptions.Exit(1)


@click.group("settings")
def settings_group() -> None:
    """The settings in force."""


@settings_group.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_data_option
def show_settings(data: Path | None, as_json: bool) -> None:
    """Every setting with its value and where it came from; secrets as "set".

    JSON: {"rows": [{name, env, value, from, meaning}], "next": null}.
    """
    rows = load_settings(data_dir=data).rows()
    if as_json:
        return print_json({"rows": rows, "next": None})
    columns = [Column("env", "setting"), Column("value", "value"), Column("from", "from")]
    print_rows(rows, columns, "")
    return None
