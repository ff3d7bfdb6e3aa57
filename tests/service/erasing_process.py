"""Erases a developer in a process that kills itself at a given commit or deletion."""

from __future__ import annotations

import sys
from pathlib import Path

from loop.service.assemble import assemble
from loop.service.lake_keeping import LakeKeeper
from loop.service.settings import load_settings
from tests.service.killed_steps import die_after


def main(data_dir: str, developer: str, steps: int) -> None:
    die_after(steps)
    parts = assemble(load_settings({}, data_dir=Path(data_dir)))
    LakeKeeper(parts).erase(developer, asked_by="counsel", reason="asked to", dry_run=False)
    parts.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
