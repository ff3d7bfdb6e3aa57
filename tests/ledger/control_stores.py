"""Control stores for tests that need many: brought up to date once, then copied."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy import Engine

from loop.control.store import open_control_store


@cache
def _empty_store() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "control.db"
        open_control_store(f"sqlite:///{file}").dispose()
        return file.read_bytes()


def control_store(folder: Path) -> Engine:
    """A store of its own in the folder, as it is when nothing was written yet."""
    file = folder / "control.db"
    if not file.exists():
        file.write_bytes(_empty_store())
    return open_control_store(f"sqlite:///{file}")
