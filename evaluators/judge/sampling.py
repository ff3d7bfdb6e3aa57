"""Which sessions a judge looks at: a random draw per session, with its probability kept.

The draw is a hash of the session, so that it comes out the same whenever it is made, and whether a
session is drawn depends on no other. Where sessions are split into arms, arms of a few sessions are
drawn more often, so that each arm is expected to have as many judged ones: comparing arms of equal
size costs the fewest judgements. The arms' weights are those of the publication that assigned the
session, known before: a probability does not change with what has come in meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

_SALT = "turnwise judge 1"


def draw(session_id: str) -> float:
    """A number in [0, 1), by the session alone."""
    digest = hashlib.sha256(f"{_SALT}\n{session_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def inclusion_probability(rate: float, arm: str, weights: Mapping[str, float]) -> float:
    """``rate`` is the share of all sessions to judge, ``weights`` the arms' shares of sessions.

    A session of no known arm has the rate itself.
    """
    live = {name: weight for name, weight in weights.items() if weight > 0}
    if arm not in live or len(live) < 2:
        return min(1.0, rate)
    share = live[arm] / sum(live.values())
    return min(1.0, rate / (len(live) * share))
