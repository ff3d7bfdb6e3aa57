"""What the charts draw, as plain data that the page carries in ``application/json`` scripts.

The drawing itself is ``static/charts.js``; each chart has a finding in words, which is also its
accessible name, and a table of the same numbers beside it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loop.service.web.formats import count, points

MAX_POINTS = 5_000
MAX_TABLE_ROWS = 100
MAX_BAND_ROWS = 20
_EDGES = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 100.0)  # points of quality
_SUMMED = (
    "turns",
    "input_tokens",
    "cache_read_tokens",
    "cache_creation_5m_tokens",
    "cache_creation_1h_tokens",
    "output_tokens",
    "unpriced_turns",
)


def trials_chart(run: Mapping[str, Any]) -> dict[str, Any] | None:
    """A run's trials: saving across, the lower bound of the quality difference upwards.

    ``None`` when no trial has both. ``notes`` say what is not drawn.
    """
    trials = run.get("trials") or ()
    answered = [trial for trial in trials if trial["quality_difference_low"] is not None]
    if not answered:
        return None
    front = sorted((t for t in answered if t["on_front"]), key=lambda t: t["saving_share"])
    others = [trial for trial in answered if not trial["on_front"]]
    plotted = _thin(others, MAX_POINTS)
    found = _found_trial(run, answered)
    return {
        "kind": "trials",
        "finding": _trials_finding(answered, front, found),
        "feasible": [_point(trial) for trial in plotted if trial["feasible"]],
        "infeasible": [_point(trial) for trial in plotted if not trial["feasible"]],
        "front": [_point(trial) for trial in front],
        "found": _point(found) if found else None,
        "notes": _left_out(len(trials) - len(answered), len(others) - len(plotted)),
    }


def trial_rows(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The trials of the table: the front first, then by saving; at most ``MAX_TABLE_ROWS``."""
    order = sorted(
        run.get("trials") or (),
        key=lambda trial: (not trial["on_front"], not trial["feasible"], -trial["saving_share"]),
    )
    return order[:MAX_TABLE_ROWS]


def band_chart(rollout: Mapping[str, Any]) -> dict[str, Any] | None:
    """A rollout's confidence sequence, in points of quality against scored sessions.

    ``None`` before there are enough sessions for bounds. ``events`` are the publications that
    fell within the drawn sessions, each at the first session after it.
    """
    report = rollout.get("report")
    path = report.get("path") if report else ()
    if not path:
        return None
    plan = rollout["plan"]
    margin, level = -100 * plan["margin"], f"{100 * (1 - plan['alpha']):g} %"
    rows = [
        {
            "x": point["units"],
            "estimate": _finite(100 * point["estimate"]),
            "low": _finite(100 * point["low"]),
            "high": _finite(100 * point["high"]),
        }
        for point in path
    ]
    floor, ceiling = _window(rows, margin)
    sentence = rollout["sentence"].rstrip(".")
    return {
        "kind": "band",
        "finding": f"{sentence}. Drawn over {count(rows[-1]['x'])} scored sessions.",
        "level": level,
        "notes": [],
        "margin": margin,
        "rows": rows,
        "floor": floor,
        "ceiling": ceiling,
        "events": _events(rollout["log"], path),
    }


def band_rows(rollout: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The points of the band for its table: every few, and the last; newest first."""
    report = rollout.get("report")
    path = list(report.get("path", ())) if report else []
    return list(_thin(path[::-1], MAX_BAND_ROWS))


def _window(rows: Sequence[Mapping[str, Any]], margin: float) -> tuple[float, float]:
    """What the drawing shows: the margin and the estimates with room around them.

    The first bounds are far wider than anything that is decided; they run off the edge.
    """
    last = rows[-1]
    shown = [row["estimate"] for row in rows if row["estimate"] is not None]
    shown += [value for value in (last["low"], last["high"]) if value is not None]
    reach = 1.25 * max(abs(value) for value in (*shown, margin))
    edge = next((edge for edge in _EDGES if edge >= reach), _EDGES[-1])
    return -edge, edge


def _events(
    log: Sequence[Mapping[str, Any]], path: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Publications by the index of the first drawn session after them; one per index."""
    found: dict[int, dict[str, Any]] = {}
    for entry in log:
        if entry["serial"] is None:
            continue
        index = bisect_left(path, entry["at_us"], key=lambda point: int(point["assigned_at_us"]))
        if 0 < index < len(path):
            found[index] = {"index": index, "label": f"serial {entry['serial']}"}
    return list(found.values())


def spend_total(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The sums of the shown rows; ``cost_microusd`` is the priced turns' alone."""
    total = {name: sum(row[name] for row in rows) for name in _SUMMED}
    total["cost_microusd"] = sum(row["cost_microusd"] or 0 for row in rows)
    total["most_microusd"] = max((row["cost_microusd"] or 0 for row in rows), default=0)
    return total


def _found_trial(
    run: Mapping[str, Any], answered: Iterable[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    found = run.get("found")
    if found is None:
        return None
    rules = found.get("rules"), found.get("measure"), found.get("unit"), found.get("default")
    for trial in answered:
        policy = trial["policy"]
        same = (policy.get("rules"), policy.get("measure"), policy.get("unit"))
        if (*same, policy.get("default")) == rules:
            return trial
    return None


def _trials_finding(
    answered: Sequence[Mapping[str, Any]],
    front: Sequence[Mapping[str, Any]],
    found: Mapping[str, Any] | None,
) -> str:
    feasible = sum(1 for trial in answered if trial["feasible"])
    words = (
        f"{count(len(answered))} trials, {count(feasible)} of them within the limits, "
        f"{count(len(front))} on the front."
    )
    if found is None:
        return words
    return (
        f"{words} Found: trial {found['number']}, saving {100 * found['saving_share']:.1f} % with "
        f"quality no worse than {points(found['quality_difference_low'])}."
    )


def _left_out(unanswered: int, thinned: int) -> list[str]:
    notes = []
    if unanswered:
        notes.append(f"Not drawn: {count(unanswered)} of which the log can't tell the quality.")
    if thinned:
        notes.append(f"Left out to keep it readable: {count(thinned)} points off the front.")
    return notes


def _point(trial: Mapping[str, Any]) -> list[float | int | None]:
    """``[saving in %, lower bound in points, trial number]``."""
    return [
        _finite(100 * trial["saving_share"]),
        _finite(100 * trial["quality_difference_low"]),
        trial["number"],
    ]


def _thin(items: Sequence[Any], most: int) -> Sequence[Any]:
    step = math.ceil(len(items) / most) if items else 1
    return items[::step]


def _finite(value: float | int | None) -> float | int | None:
    """JSON has no infinity; an unbounded side is left out of the drawing."""
    return value if value is not None and math.isfinite(value) else None
