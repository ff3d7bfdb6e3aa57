"""The claim rules on labelled endings of public sessions: precision and recall by verdict.

    python -m bench.public_endings --data PATH [--part dev|held_out]

``PATH`` holds ``claude_code_sessions`` and ``minisweagent_gemini3pro``; the labels are in
``tests/evaluators/public_endings.json``, keyed by a digest, without any text. Writes
``bench/results/public_endings.{json,md}`` when both parts are measured.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.public_data import data_folder, data_parser, machine, write_results
from bench.public_traces import mini_swe_runs
from collectors.body_decoding import decode
from collectors.claude_code_turns import assemble
from collectors.segments import Record
from collectors.transcript_lines import encode_batch
from evaluators.claim_evidence import judge_claim
from evaluators.claims import read_claims
from evaluators.session_evidence import read_evidence
from loop.domain.errors import BadInput
from loop.domain.turns import Event, SessionTrace
from loop.lake.trace_loading import build_traces

LABELS = Path(__file__).parents[1] / "tests" / "evaluators" / "public_endings.json"
SETS = ("claude_code_sessions", "minisweagent_gemini3pro")
ADVERSE = ("contradicted", "stale")
CHECKS = ("tests", "lint", "types", "build", "all_checks", "commit", "push", "pr", "file")
RECEIVED_AT_US = 1_795_438_968_000_000


@dataclass(frozen=True, slots=True)
class JudgedEnding:
    """``given`` are the rules' verdicts by claim kind, the harshest where a kind has several."""

    key: str
    source: str
    labels: Mapping[str, str]
    given: Mapping[str, str]
    words: Mapping[str, str]

    @property
    def part(self) -> str:
        return "held_out" if int(self.key[0], 16) % 2 else "dev"


def judge_endings(data: Path) -> list[JudgedEnding]:
    """Every labelled ending that the sets hold."""
    labels = json.loads(LABELS.read_text("utf-8"))
    judged = []
    for source, traces in zip(SETS, (session_traces(data), _runs(data)), strict=True):
        for trace in traces:
            judged += _judge(trace, source, labels[source])
    return judged


def _runs(data: Path) -> Iterator[SessionTrace]:
    return (run.trace for run in mini_swe_runs(data))


def session_traces(data: Path) -> Iterator[SessionTrace]:
    """The public sessions of Claude Code, as their transcripts tell them."""
    events: dict[str, list[Event]] = defaultdict(list)
    for path in sorted((data / SETS[0] / "raw").glob("*.jsonl.gz")):
        lines = [line for line in gzip.decompress(path.read_bytes()).splitlines() if line.strip()]
        name = path.name.removesuffix(".jsonl.gz").split("__")[1]
        body = encode_batch(name, "", list(range(1, len(lines) + 1)), lines)
        try:
            decoded = decode(Record("transcript", "json", body, RECEIVED_AT_US))
        except BadInput:  # one file of the set has two objects on a line
            continue
        for event in decoded.events:
            events[event.session_id].append(event)
    for session_id in sorted(events):
        if session_id:
            assembled = assemble(events[session_id])
            yield from build_traces(assembled.turns, assembled.contents)


def _judge(
    trace: SessionTrace, source: str, labels: Mapping[str, Mapping[str, str]]
) -> Iterator[JudgedEnding]:
    evidence = read_evidence(trace)
    for statement in evidence.statements:
        text = hashlib.sha256(statement.text.encode()).hexdigest()[:12]
        name = f"{trace.session_id}|{statement.turn_id}|{text}"
        key = hashlib.sha256(name.encode()).hexdigest()[:16]
        if key not in labels:
            continue
        given: dict[str, str] = {}
        words: dict[str, str] = {}
        for claim in read_claims(statement.text):
            judged = judge_claim(claim, statement, evidence)
            known = given.get(claim.kind)
            if known is None or _harshness(judged.verdict) > _harshness(known):
                given[claim.kind] = judged.verdict
                words[claim.kind] = f"{claim.words} ({judged.reason})"
        yield JudgedEnding(key, source, labels[key], given, words)


_ORDER = ("not_checkable", "supported", "narrow", "unverified", "stale", "contradicted")


def _harshness(verdict: str) -> int:
    return _ORDER.index(verdict)


def measure(endings: Sequence[JudgedEnding]) -> dict[str, Any]:
    """Counts over the endings: adverse verdicts right and wrong, and agreement by verdict."""
    adverse = right = wanted = found = 0
    table: Counter[tuple[str, str]] = Counter()
    for ending in endings:
        for kind in {*ending.labels, *ending.given} & {*CHECKS}:
            label = ending.labels.get(kind, "no claim")
            given = ending.given.get(kind, "no claim")
            if label == "ambiguous":
                continue
            table[label, given] += 1
            if given in ADVERSE:
                adverse += 1
                right += label in ADVERSE
            if label in ADVERSE:
                wanted += 1
                found += given in ADVERSE
    return {
        "endings": len(endings),
        "adverse_verdicts": adverse,
        "adverse_right": right,
        "adverse_labels": wanted,
        "adverse_found": found,
        "verdicts": [
            {"label": label, "given": given, "claims": count}
            for (label, given), count in sorted(table.items())
        ],
    }


def differences(endings: Iterable[JudgedEnding]) -> Iterator[str]:
    """Where rules and labels differ, with the words: for whoever mends the rules, never stored."""
    for ending in endings:
        for kind in sorted({*ending.labels, *ending.given} & {*CHECKS}):
            label = ending.labels.get(kind, "no claim")
            given = ending.given.get(kind, "no claim")
            if label not in (given, "ambiguous"):
                words = ending.words.get(kind, "")
                yield f"{ending.key[:8]} {kind}: {label} -> {given} | {words}"


def report(answer: Mapping[str, Any]) -> str:
    lines = [
        "# Claim rules on endings of public sessions",
        "",
        "Endings labelled by reading, before the rules were run; a claim of each kind counts once",
        "an ending. *dev*: looked at while the rules were mended; *held out*: looked at once,",
        "after the first run (one adverse verdict, wrong, mended since; docs/scores.md).",
        "",
        "| part | endings | adverse verdicts | right | adverse labels | found |",
        "|---|---|---|---|---|---|",
    ]
    for part in ("dev", "held_out"):
        row = answer[part]
        lines.append(
            f"| {part} | {row['endings']} | {row['adverse_verdicts']} | {row['adverse_right']} "
            f"| {row['adverse_labels']} | {row['adverse_found']} |"
        )
    lines += ["", "| part | label | given | claims |", "|---|---|---|---|"]
    for part in ("dev", "held_out"):
        lines += [
            f"| {part} | {row['label']} | {row['given']} | {row['claims']} |"
            for row in answer[part]["verdicts"]
        ]
    lines += ["", "Repeat with `python -m bench.public_endings --data PATH`."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = data_parser(__doc__)
    parser.add_argument(
        "--part", choices=("dev", "held_out"), help="measure one part, write nothing"
    )
    parser.add_argument("--show", action="store_true", help="print the words of dev's differences")
    options = parser.parse_args(arguments)
    endings = judge_endings(data_folder(parser, options))
    parts = {
        part: [ending for ending in endings if ending.part == part] for part in ("dev", "held_out")
    }
    if options.show:
        print("\n".join(differences(parts["dev"])))
    if options.part:
        print(json.dumps(measure(parts[options.part]), indent=1))
        return
    answer = {"machine": machine(), **{part: measure(rows) for part, rows in parts.items()}}
    text = report(answer)
    write_results("public_endings", answer, text)
    print(text)


if __name__ == "__main__":
    main()
