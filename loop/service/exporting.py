"""``turnwise export``: everything that is kept, in open formats: whoever wants to leave can.

``tables/`` holds the Delta tables, ``records/`` the control store as JSON lines, ``policies/`` each
version's document. ``export.json`` is written last: without it an export was cut off.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loop import __version__
from loop.control.export import export_records
from loop.control.store import head_revision
from loop.domain.errors import BadInput, Unavailable
from loop.lake.table_export import export_table
from loop.service.assemble import Parts

MANIFEST = "export.json"
FORMAT = 1


def export_all(parts: Parts, folder: Path) -> dict[str, Any]:
    """Fills a new or empty folder and returns its manifest. Changes nothing; a server may run.

    Tables are copied one after the other, each as of one version: what arrives meanwhile may be in
    a later table and not in an earlier one.

    Raises:
        BadInput: the folder is not empty.
        Conflict: rows were erased meanwhile.
        Unavailable: a store does not answer, or the folder can't be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not an empty folder.", fix="Name a new one.")
    try:
        tables = [
            exported
            for name, log in parts.lake.tables.items()
            if (exported := export_table(log, folder / "tables" / name)) is not None
        ]
        records = export_records(parts.engine, folder / "records")
        policies = folder / "policies"
        policies.mkdir()
        with open(folder / "records" / "policy_versions.jsonl", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                (policies / f"{row['version']}.json").write_text(row["document"], encoding="utf-8")
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "turnwise": __version__,
            "made_at_us": time.time_ns() // 1000,
            "control_revision": head_revision(),
            "rows": [asdict(table) for table in tables],
            "records": records,
            "next": None,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"{folder} can't be written.", why=str(error)) from error
    return manifest
