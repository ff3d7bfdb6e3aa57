"""Files that say what was begun, so that work that is cut off can be ended: written before the
first step, removed after the last."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_job(directory: Path, name: str, job: Mapping[str, Any]) -> Path:
    """Returns once the file is on the disk. It may name persons: only its owner may read it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / f"{name}.json"
    temporary = path.with_suffix(".tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(dict(job), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    return path


def read_jobs(directory: Path) -> list[Path]:
    """The files of jobs that have not ended."""
    return sorted(directory.glob("*.json")) if directory.exists() else []
