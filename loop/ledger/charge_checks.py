"""Do the charges say what the turns say?"""

from __future__ import annotations

from typing import Any

from loop.lake import Lake
from loop.ledger.chargeback import spend


def days_that_differ(lake: Lake) -> list[dict[str, Any]]:
    """Days whose charges are not the sum of their turns: ``day`` and both sums.

    A day whose turns have changed since the last roll-up differs until the next one.
    """
    figures = ("turns", "cost_microusd", "unpriced_turns")
    turns = {row["day"]: [row[name] or 0 for name in figures] for row in spend(lake, ["day"])}
    charges = {
        row["day"]: [row[name] or 0 for name in figures]
        for row in spend(lake, ["day"], from_rollup=True)
    }
    return [
        {"day": day, "turns": turns.get(day), "charges": charges.get(day)}
        for day in sorted(turns.keys() | charges.keys())
        if turns.get(day) != charges.get(day)
    ]
