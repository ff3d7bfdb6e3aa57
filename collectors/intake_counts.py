"""What came in and what became of it, counted per source and hour.

A *source* is a kind of record, its encoding and the credential that sent it. Of every source

    received = stored + duplicate + conflict + rejected           (records)
    bodies   = decoded ones + bodies_quarantined                  (bodies, acknowledged)

and ``bodies_refused`` counts what was answered with an error and so never acknowledged. A record
that is stored although another of its identity says something else counts as ``conflict`` only.
Lines of session files that are broken or repeated never reach the journal; whoever reads them tells
it.

The counts of one position of the journal are written down with that position (``drain_state``)
before the lake hears of it, and reach the control store under it, so a crash changes no sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol, cast, get_args

import orjson

from collectors.segments import Record, created_at_us
from loop.domain.errors import BadInput

HOUR_US = 3_600_000_000
Outcome = Literal[
    "received",
    "stored",
    "duplicate",
    "conflict",
    "rejected",
    "bodies",
    "bodies_quarantined",
    "bodies_refused",
]
Source = tuple[int, str, str, str]  # hour_us, kind, content_type, credential
CountRow = tuple[int, str, str, str, str, str, int]  # source, outcome, reason, count


class IntakeSink(Protocol):
    """Where counts are summed: it takes each position once, however often it is told."""

    def record(self, journal: str, position: int, rows: Sequence[CountRow]) -> None:
        """Adds the rows unless that position (or a later one) is in.

        Raises:
            Unavailable: the store is away; the same call may be made again.
        """


class IntakeCounts:
    """Counts on their way to the sink."""

    def __init__(self, rows: Iterable[Sequence[object]] = ()) -> None:
        self._counts: Counter[tuple[Source, str, str]] = Counter()
        for hour_us, kind, content_type, credential, outcome, reason, count in rows:
            source = (int(str(hour_us)), str(kind), str(content_type), str(credential))
            self._counts[source, str(outcome), str(reason)] += int(str(count))

    def add(self, source: Source, outcome: Outcome, reason: str = "", count: int = 1) -> None:
        if count:
            self._counts[source, outcome, reason] += count

    def add_told(self, record: Record) -> None:
        """Adds counts that the journal was told (:func:`encode_counts`, :func:`encode_refusals`).

        Raises:
            BadInput: the record tells no such thing.
        """
        try:
            rows = orjson.loads(record.body)
            told = [_read_told(*row) for row in rows]
        except (orjson.JSONDecodeError, TypeError, ValueError) as error:
            raise BadInput("The counts of refusals can't be read.", why=repr(error)) from error
        for source, outcome, reason, count in told:
            self.add(source, outcome, reason, count)

    def rows(self) -> list[CountRow]:
        return [
            (*source, outcome, reason, count)
            for (source, outcome, reason), count in sorted(self._counts.items())
        ]

    def total(self, outcome: Outcome, reason: str | None = None) -> int:
        """The count of an outcome over all sources, for one reason or for all."""
        return sum(
            count
            for (_, counted, why), count in self._counts.items()
            if counted == outcome and reason in (None, why)
        )


def source_of(record: Record) -> Source:
    """The source of a body, in the hour in which it was received."""
    hour_us = record.received_at_us - record.received_at_us % HOUR_US
    return hour_us, record.kind, record.content_type, record.credential


def source_of_segment(path: Path) -> Source:
    """The source of bodies of which nothing is known but the segment that held them."""
    at_us = created_at_us(path)
    return at_us - at_us % HOUR_US, "", "", ""


def encode_refusals(counts: Iterable[tuple[Source, str, int]]) -> bytes:
    """The body of a journal record of kind ``refusals`` that tells of refused bodies."""
    return orjson.dumps([[*source, reason, count] for source, reason, count in counts])


def encode_counts(rows: Iterable[CountRow]) -> bytes:
    """The same of records that never reach the journal themselves."""
    return orjson.dumps(list(rows))


def _read_told(
    hour_us: object, kind: object, encoding: object, credential: object, *rest: object
) -> tuple[Source, Outcome, str, int]:
    outcome, reason, count = ("bodies_refused", *rest) if len(rest) == 2 else rest
    if outcome not in get_args(Outcome):
        raise ValueError(f"{outcome!r} is no outcome")
    source = (int(str(hour_us)), str(kind), str(encoding), str(credential))
    return source, cast(Outcome, outcome), str(reason), int(str(count))
