"""Applies the retention policy in a process that kills itself at a given commit or deletion."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from loop.lake.delta_log import DeltaLog
from loop.service.assemble import assemble
from loop.service.retention_keeping import RetentionKeeper
from loop.service.settings import load_settings


def main(data_dir: str, today: str, steps: int) -> None:
    left = steps

    def guard(action: Any) -> Any:
        def guarded(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return action(*args, **options)

        return guarded

    for name in ("rewrite", "replace_days", "change", "filesystem"):
        setattr(DeltaLog, name, guard(getattr(DeltaLog, name)))
    parts = assemble(load_settings({}, data_dir=Path(data_dir)))
    RetentionKeeper(parts, today).apply(dry_run=False)
    parts.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
