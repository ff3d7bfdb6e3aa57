"""Many expressions looked for in one pass over a text, by Hyperscan."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import hyperscan


class Scan:
    """Expressions that a text is scanned for in one pass. Thread-safe.

    ``starts``: whether :meth:`hits` is asked for, which needs more work than :meth:`any_in` and
    :meth:`ends`.
    """

    def __init__(self, expressions: Sequence[str], *, starts: bool) -> None:
        self.expressions = tuple(expressions)
        self._flags = hyperscan.HS_FLAG_DOTALL
        if starts:
            self._flags |= hyperscan.HS_FLAG_SOM_LEFTMOST
        self._lock = threading.Lock()
        self._database: hyperscan.Database | None = None
        self._local = threading.local()

    def prepare(self) -> None:
        """Compiles the expressions, as the first scan does otherwise."""
        with self._lock:
            if self._database is None:
                self._database = self.compile()

    def any_in(self, data: bytes) -> bool:
        """Whether any expression matches; ends at the first that does."""
        found = False

        def note(*_: object) -> bool | None:
            nonlocal found
            found = True
            return True

        with suppress(hyperscan.ScanTerminated):
            self._scan(data, note)
        return found

    def ends(self, data: bytes) -> set[int]:
        """Where matches end."""
        found: set[int] = set()

        def note(_number: int, _start: int, end: int, *_: object) -> bool | None:
            found.add(end)
            return None

        self._scan(data, note)
        return found

    def hits(self, data: bytes) -> set[tuple[int, int]]:
        """Number of the expression and where its match begins."""
        found: set[tuple[int, int]] = set()

        def note(number: int, start: int, *_: object) -> bool | None:
            found.add((start, number))
            return None

        self._scan(data, note)
        return found

    def _scan(self, data: bytes, note: Callable[..., bool | None]) -> None:
        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            self.prepare()
            scratch = self._local.scratch = hyperscan.Scratch(self._database)
        assert self._database is not None
        self._database.scan(data, match_event_handler=note, scratch=scratch)

    def compile(self) -> hyperscan.Database:
        """The expressions as what is scanned by, made anew."""
        database = hyperscan.Database()
        database.compile(
            expressions=[expression.encode() for expression in self.expressions],
            ids=list(range(len(self.expressions))),
            elements=len(self.expressions),
            flags=[self._flags] * len(self.expressions),
        )
        return database
