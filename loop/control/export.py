"""Every record of the control store as JSON lines, a file for each table."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, MetaData, select

SECRETS: Mapping[str, frozenset[str]] = {"credentials": frozenset({"secret_hash"})}
"""Columns that are left out: who leaves makes new tokens."""
_ROWS_AT_ONCE = 1_000


def export_records(engine: Engine, folder: Path) -> dict[str, int]:
    """Writes ``<table>.jsonl`` into the folder, rows in the order of their keys, all as of one
    moment, and returns how many rows each table has."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        found = MetaData()
        found.reflect(connection)
        for table in found.sorted_tables:
            columns = [c for c in table.columns if c.name not in SECRETS.get(table.name, ())]
            query = select(*columns).order_by(*(table.primary_key.columns or columns))
            rows = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query)
            counts[table.name] = 0
            with open(folder / f"{table.name}.jsonl", "w", encoding="utf-8") as file:
                for row in rows.mappings():
                    line = {name: _plain(value) for name, value in row.items()}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    counts[table.name] += 1
    return counts


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        try:  # documents are kept compressed
            return zlib.decompress(value).decode()
        except (zlib.error, UnicodeDecodeError):
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return value
