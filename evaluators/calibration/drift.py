"""Whether a judge still says of the anchors what it said at first.

The model behind a name can change without one. Frozen sessions are judged again and again; an item
whose verdict differs from that of the first pass is a flip. Under the hypothesis that the judge is
the same, a session's share of flips is at most a written rate on average (no judge is fully
repeatable). The test bets on more, session by session: its wealth reaches 1/alpha with a
probability of at most alpha, at whatever pass one looks (a test supermartingale; Ville).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ALPHA = 0.01
MAX_WEALTH = 1e12
_STAKES = (0.5, 1.0, 2.0, 4.0, 8.0)  # a mixture over them needs no tuning


@dataclass(frozen=True, slots=True)
class Drift:
    """``wealth`` is the largest so far; 1/alpha or more is an alarm. ``items`` were compared."""

    passes: int
    items: int
    flips: int
    wealth: float
    allowed_flip_share: float

    @property
    def is_alarm(self) -> bool:
        return self.wealth >= 1.0 / ALPHA

    @property
    def flip_share(self) -> float | None:
        return self.flips / self.items if self.items else None


def measure_drift(
    judgements: Iterable[tuple[str, Mapping[str, str]]], allowed_flip_share: float
) -> Drift:
    """``judgements`` are a session and its verdicts by item, in order of time, of one identity. The
    first of each session is what later ones are held to."""
    first: dict[str, Mapping[str, str]] = {}
    passes: dict[str, int] = {}
    shares: list[float] = []
    items = flips = 0
    for session_id, verdicts in judgements:
        passes[session_id] = passes.get(session_id, 0) + 1
        known = first.setdefault(session_id, verdicts)
        compared = [known[item] != verdict for item, verdict in verdicts.items() if item in known]
        if passes[session_id] == 1 or not compared:
            continue
        items += len(compared)
        flips += sum(compared)
        shares.append(sum(compared) / len(compared))
    return Drift(
        passes=max(passes.values(), default=0),
        items=items,
        flips=flips,
        wealth=_largest_wealth(shares, allowed_flip_share),
        allowed_flip_share=allowed_flip_share,
    )


def _largest_wealth(shares: Sequence[float], allowed: float) -> float:
    stakes = [min(stake, 0.9 / allowed) for stake in _STAKES]
    wealths = [1.0] * len(stakes)
    largest = 1.0
    for share in shares:
        wealths = [
            min(wealth * (1.0 + stake * (share - allowed)), MAX_WEALTH)
            for wealth, stake in zip(wealths, stakes, strict=True)
        ]
        largest = max(largest, sum(wealths) / len(wealths))
    return largest
