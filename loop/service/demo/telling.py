"""How the demo tells its story: headings, progress bars, and patience with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loop.domain.errors import Unavailable
from loop.service.printing import print_lines, talk

READ_SECONDS = 30.0


def begin_chapter(title: str) -> None:
    print_lines("", title, "=" * len(title), "")


class ProgressBar:
    """A bar on stderr; where that is no terminal, a plain line at each quarter."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._quarters = 0
        self._bar = Progress(
            TextColumn(label),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=talk,
            transient=True,
            disable=not talk.is_terminal,
        )

    def __enter__(self) -> Callable[[int, int], None]:
        self._bar.start()
        task = self._bar.add_task("", total=None)

        def advance(done: int, total: int) -> None:
            self._bar.update(task, completed=done, total=total)
            if not talk.is_terminal and done * 4 // total > self._quarters:
                self._quarters = done * 4 // total
                talk.print(f"{self._label}: {done} of {total}")

        return advance

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def wait_until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READ_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            raise Unavailable(f"Waited {READ_SECONDS:.0f} s in vain until {what}.")
        time.sleep(0.2)
