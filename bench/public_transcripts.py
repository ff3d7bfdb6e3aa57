"""Import of public session files: against ``orjson`` alone, and its totals against ccusage's.

``python -m bench.public_transcripts --data DIR [--ccusage PROGRAM]`` writes
``bench/results/public_transcripts.md`` and ``.json``. The files are unpacked into a temporary
folder, laid out as the client keeps them. Only sums over all sessions are written.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from bench.public_data import data_folder, data_parser, machine, say, write_results
from collectors.journal import Journal
from collectors.transcripts import import_transcripts

RAW = "claude_code_sessions/raw"
NAME = "public_transcripts"
CLASSES = ("input", "output", "cache_read", "cache_creation")
_SUBAGENT = re.compile(r"(?P<session>.+)__subagents__(?P<file>agent-.+)\Z")


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians over the runs: seconds of wall and processor time, and the first's to orjson's."""

    wall_seconds: float
    cpu_seconds: float
    wall_ratio: float
    cpu_ratio: float


def unpack(raw: Path, projects: Path) -> int:
    """Lays the files out below ``projects``; returns how many there are."""
    count = 0
    for packed in sorted(raw.glob("*.jsonl.gz")):
        repository, _, rest = packed.name.removesuffix(".gz").partition("__")
        found = _SUBAGENT.match(rest)
        name = rest.rpartition("__")[2]
        if found:
            session = found["session"].rpartition("__")[2]
            name = f"{session}/subagents/{found['file']}"
        target = projects / repository / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(packed, "rb") as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file)
        count += 1
    return count


def parse_alone(projects: Path) -> None:
    """What nobody who reads the files can spare: each line through orjson."""
    for path in projects.rglob("*.jsonl"):
        with open(path, "rb") as file:
            for raw in file:
                try:
                    orjson.loads(raw)
                except orjson.JSONDecodeError:
                    continue


def import_all(projects: Path) -> None:
    """The import until every line is checked, without secrets and durable in a new journal."""
    folder = Path(tempfile.mkdtemp(dir=projects.parent))
    with Journal(folder) as journal:
        import_transcripts([projects], journal)
    shutil.rmtree(folder)


def measure(projects: Path, runs: int) -> dict[str, Timing]:
    """Both in turn, so that a drift of the machine's speed meets both."""
    taken: dict[str, list[tuple[float, float]]] = defaultdict(list)
    works: dict[str, Callable[[Path], None]] = {"orjson": parse_alone, "import": import_all}
    for number in range(runs + 1):
        for name, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work(projects)
            if number:  # the first round warms the page cache
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    pairs = list(zip(taken["import"], taken["orjson"], strict=True))
    return {
        name: Timing(
            statistics.median(wall for wall, _ in times),
            statistics.median(cpu for _, cpu in times),
            statistics.median(ours[0] / alone[0] for ours, alone in pairs)
            if name != "orjson"
            else 1.0,
            statistics.median(ours[1] / alone[1] for ours, alone in pairs)
            if name != "orjson"
            else 1.0,
        )
        for name, times in taken.items()
    }


def turnwise(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "loop.service", *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def our_totals(projects: Path, data: Path) -> tuple[float, dict[str, dict[str, int]], int]:
    """Seconds until all is priced and can be queried; tokens by model; unpriced turns."""
    began = time.perf_counter()
    turnwise("import", "transcripts", str(projects), "--data", str(data))
    seconds = time.perf_counter() - began
    rows = json.loads(turnwise("spend", "by", "model", "--data", str(data), "--json"))["rows"]
    totals = {
        row["model"]: {
            "input": row["input_tokens"],
            "output": row["output_tokens"],
            "cache_read": row["cache_read_tokens"],
            "cache_creation": row["cache_creation_5m_tokens"] + row["cache_creation_1h_tokens"],
            "cost_microusd": row["cost_microusd"] or 0,
        }
        for row in rows
        if row["model"]
    }
    return seconds, totals, sum(row["unpriced_turns"] for row in rows)


def peer_totals(program: str, projects: Path) -> tuple[float, dict[str, dict[str, int]]]:
    """The same by ccusage: seconds of the process, tokens and cost by model."""
    environment = {**os.environ, "CLAUDE_CONFIG_DIR": str(projects.parent)}
    began = time.perf_counter()
    command = [program, "daily", "--json", "--offline", "--mode", "calculate", "--timezone", "UTC"]
    answer = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout
    seconds = time.perf_counter() - began
    totals: dict[str, dict[str, int]] = defaultdict(
        lambda: dict.fromkeys(CLASSES, 0) | {"cost_microusd": 0}
    )
    for day in json.loads(answer)["daily"]:
        for part in day["modelBreakdowns"]:
            total = totals[part["modelName"]]
            total["input"] += part["inputTokens"]
            total["output"] += part["outputTokens"]
            total["cache_read"] += part["cacheReadTokens"]
            total["cache_creation"] += part["cacheCreationTokens"]
            total["cost_microusd"] += round(part["cost"] * 1_000_000)
    return seconds, dict(totals)


def differences(
    ours: dict[str, dict[str, int]], theirs: dict[str, dict[str, int]]
) -> list[dict[str, Any]]:
    """Ours less theirs by model, where any class of tokens differs."""
    nothing = dict.fromkeys((*CLASSES, "cost_microusd"), 0)
    rows = []
    for model in sorted({*ours, *theirs}):
        a, b = ours.get(model, nothing), theirs.get(model, nothing)
        if any(a[name] != b[name] for name in CLASSES):
            rows.append({"model": model} | {name: a[name] - b[name] for name in nothing})
    return rows


def report(answer: dict[str, Any]) -> str:
    """The page of the results."""
    lines = [
        "# Import of public session files",
        "",
        f"{answer['files']} files, {answer['megabytes']:.0f} MB. Medians of {answer['runs']} runs,",
        f"both in turn in one process; load average {answer['load_average']:.1f} at the start.",
        "",
        "| | wall | processor | to orjson alone, wall | processor |",
        "|---|---|---|---|---|",
    ]
    for name, words in (
        ("orjson", "orjson alone on every line"),
        ("import", "import: checked, secrets out, durable in the journal"),
    ):
        timing = answer["timing"][name]
        lines.append(
            f"| {words} | {timing['wall_seconds']:.2f} s | {timing['cpu_seconds']:.2f} s | "
            f"{timing['wall_ratio']:.2f} | {timing['cpu_ratio']:.2f} |"
        )
    lines += [
        "",
        "`turnwise import transcripts` as a whole process, until every turn is priced and can be",
        f"queried: {answer['process_seconds']:.1f} s.",
        "",
    ]
    lines += _report_peer(answer, answer["peer"])
    return "\n".join([*lines, "", f"Repeat with `python -m bench.{NAME} --data DIR`.", ""])


def _report_peer(answer: dict[str, Any], peer: dict[str, Any] | None) -> list[str]:
    if peer is None:
        return ["ccusage was not measured (no `--ccusage PROGRAM`)."]
    ours, theirs = answer["cost_microusd"], peer["cost_microusd"]
    verdict = "different for:" if peer["differences"] else "**equal in every class**."
    lines = [
        f"ccusage {peer['version']} reads the same files in {peer['seconds']:.1f} s as a whole",
        f"process and stores nothing. Tokens by class of {peer['models']} models: {verdict}",
        "",
    ]
    if peer["differences"]:
        lines += [
            "| model | input | output | cache read | cache writes | cost in micro-dollars |",
            "|---|---|---|---|---|---|",
        ]
        for row in peer["differences"]:
            tokens = " | ".join(f"{row[name]:+,}" for name in CLASSES)
            lines.append(f"| {row['model']} | {tokens} | {row['cost_microusd']:+,} |")
        lines.append("")
    return [
        *lines,
        f"Cost: ${ours / 1e6:,.6f} here, ${theirs / 1e6:,.6f} there: {ours - theirs:+,}",
        f"micro-dollars over {answer['turns']} turns, each of which is rounded half up to a whole",
        "micro-dollar here and not there.",
    ]


def main() -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--ccusage", default=shutil.which("ccusage"), help="the program (npm)")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    data = data_folder(parser, options)
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="turnwise-transcripts-") as folder:
        projects = Path(folder, "claude", "projects")
        say("unpacking")
        files = unpack(data / RAW, projects)
        size = sum(path.stat().st_size for path in projects.rglob("*.jsonl"))
        say("measuring")
        timing = measure(projects, options.runs)
        seconds, totals, unpriced = our_totals(projects, Path(folder, "data"))
        rows = json.loads(
            turnwise("spend", "by", "day", "--data", str(Path(folder, "data")), "--json")
        )
        peer: dict[str, Any] | None = None
        if options.ccusage:
            version = subprocess.run(
                [options.ccusage, "--version"], check=True, capture_output=True, text=True
            ).stdout.split()[-1]
            peer_seconds, peer_rows = peer_totals(options.ccusage, projects)
            peer = {
                "version": version,
                "seconds": peer_seconds,
                "models": len(peer_rows),
                "differences": differences(totals, peer_rows),
                "cost_microusd": sum(row["cost_microusd"] for row in peer_rows.values()),
            }
    answer = {
        "files": files,
        "megabytes": size / 1e6,
        "runs": options.runs,
        "timing": {name: asdict(item) for name, item in timing.items()},
        "process_seconds": seconds,
        "unpriced_turns": unpriced,
        "turns": sum(row["turns"] for row in rows["rows"]),
        "cost_microusd": sum(row["cost_microusd"] for row in totals.values()),
        "peer": peer,
        "load_average": load_average,
        "machine": machine(),
    }
    write_results(NAME, answer, report(answer))


if __name__ == "__main__":
    main()
