"""``turnwise export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loop.service.printing import Column, print_json, print_rows, talk
from loop.service.settings import load_settings


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data folder (default: TURNWISE_DATA_DIR or .turnwise).",
)
@click.option(
    "--lake",
    metavar="URI",
    help="Where the tables lie: a folder or s3://BUCKET/PREFIX (default: TURNWISE_STORE_URI).",
)
def export(folder: Path, as_json: bool, data: Path | None, lake: str | None) -> None:
    """Copy everything that is kept into a new FOLDER, in open formats.

    Delta tables, the control store's records as JSON lines, policies as JSON: texts included,
    secrets of credentials and signing keys not. Safe beside a running server. docs/export.md says
    how to read it.

    JSON: {"rows": [{table, version, files, rows, bytes}], "records": {table: rows}, format,
    turnwise, made_at_us, control_revision, "next": null}.
    """
    # Imported here: other commands need no stores.
    from loop.service.assemble import assemble
    from loop.service.exporting import export_all

    given: dict[str, Any] = {"store_uri": lake} if lake else {}
    parts = assemble(load_settings(data_dir=data, **given))
    try:
        if not parts.catch_up():
            talk.print("Not all that was received is in the lake yet: it is not in the export.")
        manifest = export_all(parts, folder)
    finally:
        parts.close()
    if as_json:
        return print_json(manifest)
    columns = [
        Column("table", "table"),
        Column("version", "version", "count"),
        Column("files", "files", "count"),
        Column("rows", "rows", "count"),
        Column("bytes", "bytes", "count"),
    ]
    print_rows(manifest["rows"], columns, "There are no tables yet.")
    talk.print(
        f"{sum(manifest['records'].values()):,} records of {len(manifest['records'])} tables; "
        f"all of it in {folder}"
    )
    return None
