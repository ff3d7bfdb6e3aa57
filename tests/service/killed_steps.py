"""Has the process kill itself at a given commit or deletion of the lake."""

from __future__ import annotations

import os
import signal
from typing import Any

from loop.lake.delta_log import DeltaLog


def die_after(steps: int) -> None:
    """Lets ``steps`` commits and looks at the store happen; the next one is a SIGKILL."""
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
