"""How well clusters of low-scoring sessions find known modes, and what 50,000 sessions cost.

    python -m bench.bench_clusters [--sessions 50000] [--stored 50000]

Writes ``bench/results/clusters.{json,md}``. Three measurements, all on made-up sessions:

* profiles with nine known modes and a quarter of noise: adjusted Rand index against the modes,
  agreement of random parts, and whether ids are kept when a tenth of the sessions is exchanged;
* clustering ``--sessions`` profiles in memory;
* the stage over a lake of ``--stored`` sessions of known modes with their turns and texts: scoring,
  which describes each, clustering, and clustering again when nothing is new.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from evaluators.session_clusters import Clustering, cluster_sessions
from loop.control.stage_progress import StageLog
from loop.control.store import connect, metadata
from loop.lake import Lake
from loop.service.clustering_stage import cluster_low_scoring
from loop.service.evaluation_stage import evaluate_changed
from tests.evaluators.known_modes import NOISE, KnownModes
from tests.evaluators.scored_sessions import MODES, make_trace
from tests.evaluators.stored_traces import store_traces

RESULTS = Path(__file__).parent / "results"
SETS = {
    "distinct words": KnownModes(),
    "half the words shared": KnownModes(own_words=6, common_words=20),
    "few own words, features wobble": KnownModes(own_words=3, common_words=25, wobble=0.3),
    "four modes": KnownModes(modes=4),
}
SEEDS = (0, 1, 2)
LOW = 3_000
DAYS, DAY_US = 50, 86_400_000_000  # that the stored sessions are spread over


def measure_modes() -> list[dict[str, Any]]:
    rows = []
    for name, modes in SETS.items():
        for seed in SEEDS:
            sessions, truth = modes.make(LOW, seed=seed)
            started = time.process_time()
            found = cluster_sessions(sessions, seed=1, clustered_at_us=1)
            seconds = time.process_time() - started
            rows.append(
                {"set": name, "modes": modes.modes, "seed": seed, "cpu_seconds": seconds}
                | compare(found, truth)
                | _kept(modes, found, sessions, seed)
            )
    return rows


def compare(found: Clustering, truth: dict[str, int]) -> dict[str, Any]:
    place = {i: n for n, cluster in enumerate(found.clusters) for i in cluster.session_ids}
    modes = np.array([truth[name] for name in sorted(truth)])
    labels = np.array([place[name] for name in sorted(truth)])
    groups = [cluster for cluster in found.clusters if cluster.kind == "group"]
    apart, noise = labels >= len(groups), modes == NOISE
    return {
        "clusters": len(groups),
        "ari_of_modes": float(adjusted_rand_score(modes[~noise], labels[~noise])),
        "ari_with_noise": float(adjusted_rand_score(modes, labels)),
        "agreement": found.agreement,
        "least_stability": min(c.stability or 0.0 for c in groups),
        "outliers_right": float(noise[apart].mean()) if apart.any() else None,
        "noise_found": float(apart[noise].mean()),
    }


def _kept(
    modes: KnownModes, found: Clustering, sessions: Sequence[Any], seed: int
) -> dict[str, Any]:
    """A tenth of the sessions leaves, as many others come."""
    newer, _ = modes.make(len(sessions) // 10, seed=seed, first=len(sessions))
    again = cluster_sessions(
        [*sessions[len(newer) :], *newer], previous=found.clusters, seed=2, clustered_at_us=2
    )
    before = {c.cluster_id for c in found.clusters if c.kind == "group"}
    after = {c.cluster_id for c in again.clusters if c.kind == "group"}
    return {"ids_kept": len(before & after), "ids": len(before)}


def measure_many(sessions: int) -> dict[str, Any]:
    """All of them low: the most that can be clustered."""
    made, truth = KnownModes().make(sessions, seed=0)
    before = _peak_mib()
    started, wall = time.process_time(), time.perf_counter()
    found = cluster_sessions(made, seed=1)
    return {
        "sessions": sessions,
        "cpu_seconds": time.process_time() - started,
        "wall_seconds": time.perf_counter() - wall,
        "peak_mib": _peak_mib(),
        "peak_mib_before": before,
        **compare(found, truth),
    }


def measure_stage(sessions: int, folder: Path) -> dict[str, Any]:
    """A third of the sessions is good, the others are of four modes. What clusters them is a
    process of its own, so that its peak of memory is its own."""
    lake, stage_log = open_parts(folder)
    generator = random.Random(1)
    kinds = (*MODES, "good", "good")
    step = max(1, sessions // DAYS)
    for start in range(0, sessions, step):
        numbers = range(start, min(start + step, sessions))
        traces = [make_trace(kinds[n % len(kinds)], n, generator) for n in numbers]
        store_traces(lake, traces, revision=start, later_us=start // step * DAY_US)
    started, wall = time.process_time(), time.perf_counter()
    evaluate_changed(lake, stage_log)
    scoring = {
        "score_cpu_seconds": time.process_time() - started,
        "score_wall_seconds": time.perf_counter() - wall,
    }
    lake.compact()
    command = [sys.executable, "-m", "bench.bench_clusters", "--stage", str(folder)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"sessions": sessions, **scoring, **json.loads(answer)}


def open_parts(folder: Path) -> tuple[Lake, StageLog]:
    engine = connect(f"sqlite:///{folder / 'control.db'}")
    metadata.create_all(engine)
    return Lake.open(str(folder / "store")), StageLog(engine)


def run_stage(folder: Path) -> dict[str, Any]:
    """Clusters what is stored, twice."""
    lake, stage_log = open_parts(folder)
    times: dict[str, Any] = {"peak_mib_before": _peak_mib()}
    found = []
    for name in ("cluster", "cluster_again"):
        started, wall = time.process_time(), time.perf_counter()
        found.append(cluster_low_scoring(lake, stage_log))
        times[f"{name}_cpu_seconds"] = time.process_time() - started
        times[f"{name}_wall_seconds"] = time.perf_counter() - wall
    first, second = ({c.cluster_id for c in each.clusters} for each in found)
    by_mode = [Counter(i.split("-")[0] for i in c.session_ids) for c in found[0].clusters]
    return times | {
        "peak_mib": _peak_mib(),
        "turns": lake.query("SELECT count(*) AS n FROM turns")[0]["n"],
        "clusters": len(first),
        "low": found[0].low,
        "ids_kept": len(first & second),
        "of_one_mode": sum(len(counts) == 1 for counts in by_mode),
    }


def _peak_mib() -> int:
    """Of this program: ``getrusage`` gives a child the peak of what it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def report(answer: dict[str, Any]) -> str:
    many, stage = answer["many"], answer["stage"]
    lines = [
        "# Clusters",
        "",
        "Written by `python -m bench.bench_clusters`. Made-up sessions, easier than real ones:",
        f"their modes are known. Python {answer['python']}, {answer['processors']} processors,",
        f"load average {answer['load_average']} (other work): CPU seconds are the ones to believe.",
        "",
        f"## {LOW:,} sessions of known modes, a quarter of noise",
        "",
        "*ARI* is the adjusted Rand index against the true modes; *agreement* that between random",
        "80 % samples; *stability* the mean best Jaccard index of the least stable cluster; ids",
        "are kept when a tenth of the sessions leaves and as many others come.",
        "",
        "| set | seed | modes | clusters | ARI of the modes | with noise as one class | agreement "
        "| least stability | outliers that are noise | noise found | ids kept | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in answer["modes"]:
        right = "–" if row["outliers_right"] is None else f"{row['outliers_right']:.2f}"
        lines.append(
            f"| {row['set']} | {row['seed']} | {row['modes']} | {row['clusters']} "
            f"| {row['ari_of_modes']:.3f} | {row['ari_with_noise']:.3f} | {row['agreement']:.3f} "
            f"| {row['least_stability']:.2f} | {right} | {row['noise_found']:.2f} "
            f"| {row['ids_kept']} of {row['ids']} | {row['cpu_seconds']:.1f} |"
        )
    lines += [
        "",
        "Bars (k-means with the true k on such data): ARI 0.98, agreement 0.96. Where modes share",
        "most of their words and features wobble, the modes are still told apart, but noise is no",
        "farther from the centres than they are: it stays in the clusters.",
        "",
        "## Many sessions",
        "",
        f"{many['sessions']:,} low-scoring profiles in memory: **{many['cpu_seconds']:.1f} s** of",
        f"CPU ({many['wall_seconds']:.1f} s by the clock), ARI {many['ari_of_modes']:.3f}, peak",
        f"{many['peak_mib']} MiB ({many['peak_mib_before']} MiB before, with the profiles).",
        "",
        f"The stage over a lake of {stage['sessions']:,} sessions ({stage['turns']:,} turns",
        f"with texts, {stage['low']:,} sessions low-scoring, over {DAYS} days):",
        "",
        "| step | CPU s | clock s |",
        "|---|---|---|",
    ]
    for step, words in (
        ("score", "score the sessions and describe them on the way, once"),
        ("cluster", "cluster"),
        ("cluster_again", "cluster again, nothing new"),
    ):
        cpu, clock = stage[f"{step}_cpu_seconds"], stage[f"{step}_wall_seconds"]
        lines.append(f"| {words} | {cpu:.1f} | {clock:.1f} |")
    lines += [
        "",
        f"{stage['clusters']} clusters, {stage['of_one_mode']} of one mode only; "
        f"{stage['ids_kept']} ids kept. Peak of",
        f"the clustering process {stage['peak_mib']} MiB, {stage['peak_mib_before']} MiB before.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sessions", type=int, default=50_000)
    parser.add_argument("--stored", type=int, default=50_000)
    parser.add_argument("--stage", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(run_stage(options.stage)))
        return
    answer: dict[str, Any] = {
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        answer["stage"] = measure_stage(options.stored, Path(folder))
    answer["many"] = measure_many(options.sessions)
    answer["modes"] = measure_modes()
    (RESULTS / "clusters.json").write_text(json.dumps(answer, indent=2) + "\n")
    (RESULTS / "clusters.md").write_text(report(answer))
    print(report(answer))


if __name__ == "__main__":
    main()
