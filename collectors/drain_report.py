"""What one pass of the drainer did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from collectors.drain_batch import UNDECODABLE
from collectors.intake_counts import IntakeCounts


@dataclass(slots=True)
class DrainReport:
    """``received`` = ``stored`` + ``duplicates`` + ``conflicts`` + ``beyond_limits`` over records;
    ``conflicts`` are stored too. ``rejected`` counts bodies that could not be decoded,
    ``beyond_limits`` records that are ahead of the clock or otherwise beyond a limit
    (``record_limits``): the bodies of both lie in quarantine."""

    segments: int = 0
    received: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    beyond_limits: int = 0
    without_session: int = 0
    sessions: int = 0
    turns: int = 0
    unpriced_turns: int = 0
    decisions: int = 0
    quarantined: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def add(self, counts: IntakeCounts) -> None:
        self.received += counts.total("received")
        self.stored += counts.total("stored")
        self.duplicates += counts.total("duplicate")
        self.conflicts += counts.total("conflict")
        self.rejected += counts.total("bodies_quarantined", UNDECODABLE)
        self.beyond_limits += counts.total("rejected")
