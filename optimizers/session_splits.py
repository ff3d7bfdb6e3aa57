"""Sessions to learn from, to choose on, and to test on: later ones that no search has seen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizers.turn_frame import TurnFrame

Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class SessionSplit:
    """Masks of shape ``(s,)`` that share out all sessions."""

    train: Booleans
    validation: Booleans
    test: Booleans

    @property
    def selection(self) -> Booleans:
        """Train and validation: all that may choose a policy."""
        return self.train | self.validation


def split_sessions(
    frame: TurnFrame, *, test_share: float = 0.25, validation_share: float = 0.3
) -> SessionSplit:
    """The latest sessions test; the rest is shared out by a hash of the session id, so that a
    session stays on its side as the log grows. ``validation_share`` is of the rest."""
    count = frame.n_sessions
    started = frame.started_at_us[frame.session_starts()]
    latest = np.argsort(started, kind="stable")[count - round(count * test_share) :]
    test = np.zeros(count, bool)
    test[latest] = True
    place = np.array([_place(session_id) for session_id in frame.session_ids])
    validation = ~test & (place < validation_share)
    return SessionSplit(~test & ~validation, validation, test)


def _place(session_id: str) -> float:
    digest = hashlib.sha256(f"turnwise.split.{session_id}".encode()).digest()
    return float(int.from_bytes(digest[:8], "big") / 2**64)
