"""Simulated coverage of the intervals of a judge's corrected mean.

``python -m bench.bench_judge [--runs N]`` writes ``bench/results/judge.md`` and ``.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

from bench.judge_world import JudgeWorld

RESULTS = Path(__file__).parent / "results"
JUDGED_SESSIONS = 1000
LABELLED_SESSIONS = (25, 60, 150)
WANTED = (0.93, 0.97)
_NAMES = {
    "corrected": "corrected mean (PPI++), by session",
    "labels_only": "labels only, by session",
    "corrected_as_items": "corrected mean, items taken for independent",
    "labels_as_items": "labels only, items taken for independent",
    "judge_only": "judge only, no correction",
}


def measure(labelled_sessions: int, runs: int) -> dict[str, dict[str, float]]:
    """Coverage and mean width of each interval."""
    world = JudgeWorld(labelled_sessions, JUDGED_SESSIONS)
    truth = world.truth()
    drawn = [dict(world.bounds(seed)) for seed in range(runs)]
    answers = {}
    for name in drawn[0]:
        bounds = np.array([one[name] for one in drawn])
        covered = (bounds[:, 0] <= truth) & (truth <= bounds[:, 1])
        answers[name] = {
            "coverage": float(covered.mean()),
            "width": float((bounds[:, 1] - bounds[:, 0]).mean()),
        }
    return answers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    began = time.process_time()
    measured = {str(count): measure(count, runs) for count in LABELLED_SESSIONS}
    document = {
        "runs": runs,
        "judged_sessions": JUDGED_SESSIONS,
        "truth": JudgeWorld(0, 0).truth(),
        "intervals": measured,
        "cpu_seconds": round(time.process_time() - began, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    (RESULTS / "judge.json").write_text(json.dumps(document, indent=2) + "\n")
    (RESULTS / "judge.md").write_text(report(document))
    corrected = [one["corrected"]["coverage"] for one in measured.values()]
    return int(not all(WANTED[0] <= coverage <= WANTED[1] for coverage in corrected))


def report(document: dict[str, object]) -> str:
    runs = int(str(document["runs"]))
    noise = 1.96 * (0.95 * 0.05 / runs) ** 0.5
    lines = [
        "# Corrected means of a judge",
        "",
        f"Simulated (`bench/judge_world.py`; seeds 0 to {runs - 1:,}): {JUDGED_SESSIONS:,} judged "
        "sessions of some eight items",
        "each, alike within a session; a judge whose errors are biased and clustered like the "
        "sessions.",
        f"True mean {document['truth']:.4f}. Share of {runs:,} runs whose 95 % interval covers it "
        f"(chance alone moves a share by ±{noise:.3f}),",
        "and the interval's mean width. The parameters are assumptions: this shows how the "
        "intervals behave, not how",
        "good any judge is.",
        "",
        "| interval | "
        + " | ".join(f"{count} labelled sessions" for count in LABELLED_SESSIONS)
        + " |",
        "|---|" + "---|" * len(LABELLED_SESSIONS),
    ]
    intervals = document["intervals"]
    assert isinstance(intervals, dict)
    for name, words in _NAMES.items():
        cells = [
            f"{one[name]['coverage']:.3f}, width {one[name]['width']:.3f}"
            for one in intervals.values()
        ]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{document['cpu_seconds']} s of CPU time; Python {document['python']}, "
        f"numpy {document['numpy']}; load average {document['load_average']}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
