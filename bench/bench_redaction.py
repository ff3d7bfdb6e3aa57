"""Redaction: what is found of a generated corpus, what is taken wrongly, and what it costs.

``python -m bench.bench_redaction [--per-kind N] [--seed S]`` writes ``bench/results/redaction.md``
and ``.json``. Where detect-secrets is installed it is measured on the same corpus in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.public_redaction import measure_public
from bench.redaction_corpus import DECOYS, MAKERS, Sample, corpus
from bench.redaction_cost import measure_scans, measure_speed
from collectors.redaction import may_hold_secrets, redact

RESULTS = Path(__file__).parents[1] / "bench" / "results"
_LEFT_CHARS = 12  # a part of a secret of this length is a secret that was left
Redact = Callable[[str], str]


@dataclass(slots=True)
class Tally:
    """Of one redactor on one corpus. ``found``: of the planted secrets nothing is left."""

    planted: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)  # replacements that hit a secret
    wrong: Counter[str] = field(default_factory=Counter)  # by kind of decoy or of planted text
    decoys: Counter[str] = field(default_factory=Counter)
    spoilt: Counter[str] = field(default_factory=Counter)  # decoys of which anything was replaced

    @property
    def recall(self) -> float:
        return self.found.total() / max(1, self.planted.total())

    @property
    def precision(self) -> float:
        return self.right.total() / max(1, self.right.total() + self.wrong.total())


def is_left(secret: str, text: str) -> bool:
    """Whether any part of a secret that could serve somebody is still in the text."""
    runs = re.findall(rf"[A-Za-z0-9]{{{_LEFT_CHARS},}}", secret) or [secret]
    return any(run in text for run in runs if run not in ("PRIVATE", "OPENSSH"))


def tally(samples: Iterable[Sample], spans_of: Callable[[str], Sequence[tuple[int, int]]]) -> Tally:
    """Counts over the spans that a redactor would replace."""
    counted = Tally()
    for sample in samples:
        spans = spans_of(sample.text)
        if not sample.secret:
            counted.decoys[sample.kind] += 1
            counted.spoilt[sample.kind] += bool(spans)
            counted.wrong[sample.kind] += len(spans)
            continue
        counted.planted[sample.kind] += 1
        at = sample.text.index(sample.secret)
        until = at + len(sample.secret)
        hits = [span for span in spans if span[0] < until and span[1] > at]
        counted.right[sample.kind] += len(hits)
        counted.wrong[sample.kind] += len(spans) - len(hits)
        rest, position = "", 0
        for start, end in sorted(spans):
            rest += sample.text[position:start] + " "
            position = max(position, end)
        counted.found[sample.kind] += not is_left(sample.secret, rest + sample.text[position:])
    return counted


def own_spans(text: str) -> list[tuple[int, int]]:
    """Where :func:`redact` replaced something, read off its result."""
    pieces = re.split(r"\[REDACTED:[a-z-]+\]", redact(text))
    spans, position = [], len(pieces[0])
    for piece in pieces[1:]:
        end = text.index(piece, position) if piece else len(text)
        spans.append((position, end))
        position = end + len(piece)
    return spans


def detect_secrets_spans() -> Callable[[str], list[tuple[int, int]]] | None:
    """detect-secrets as it scans a file: all its plugins, limits and filters at their defaults;
    ``None`` where it is not there."""
    if importlib.util.find_spec("detect_secrets") is None:
        return None
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name, "text.txt")

    def spans_of(text: str, _keep: object = folder) -> list[tuple[int, int]]:
        path.write_text(text)
        with default_settings():
            values = {secret.secret_value or "" for secret in scan_file(str(path))}
        return sorted(
            (match.start(), match.end())
            for value in values - {""}
            for match in re.finditer(re.escape(value), text)
        )

    return spans_of


def measure(seed: int, per_kind: int, data: Path | None) -> dict[str, Any]:
    samples = corpus(seed, per_kind)
    redact("")
    may_hold_secrets(b"")
    own = tally(samples, own_spans)
    result: dict[str, Any] = {
        "corpus": {
            "seed": seed,
            "per_kind": per_kind,
            "samples": len(samples),
            "bytes": sum(len(sample.text.encode()) for sample in samples),
        },
        "turnwise": _figures(own),
        "speed": measure_speed(samples),
        "scans": measure_scans(),
    }
    if data is not None:
        result["public"] = measure_public(data)
    other = detect_secrets_spans()
    if other is not None:
        few = samples[: max(200, len(samples) // 4)]
        began = time.process_time()
        compared = tally(few, other)
        seconds = time.process_time() - began
        size = sum(len(sample.text) for sample in few)
        again = tally(few, own_spans)
        result["detect_secrets"] = {
            "version": _version("detect_secrets"),
            "samples": len(few),
            **_figures(compared),
            "mb_per_s": round(size / 1e6 / seconds, 3),
        }
        result["turnwise_on_the_same"] = _figures(again)
    return result


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name.replace("_", "-"))


def _figures(counted: Tally) -> dict[str, Any]:
    return {
        "recall": round(counted.recall, 4),
        "precision": round(counted.precision, 4),
        "planted": counted.planted.total(),
        "found": counted.found.total(),
        "replacements_right": counted.right.total(),
        "replacements_wrong": counted.wrong.total(),
        "decoys": counted.decoys.total(),
        "decoys_spoilt": counted.spoilt.total(),
        "by_kind": {
            kind: {
                "planted": counted.planted[kind],
                "found": counted.found[kind],
                "replacements": counted.right[kind] + counted.wrong[kind],
                "wrong": counted.wrong[kind],
            }
            for kind in MAKERS
        },
        "by_decoy": {
            kind: {"texts": counted.decoys[kind], "spoilt": counted.spoilt[kind]} for kind in DECOYS
        },
    }


def write_results(result: dict[str, Any], load: float) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "redaction.json").write_text(json.dumps(result, indent=2) + "\n")
    own, speed, made = result["turnwise"], result["speed"], result["corpus"]
    other = result.get("detect_secrets")
    same = result.get("turnwise_on_the_same", own)
    lines = [
        "# Redaction",
        "",
        f"A generated corpus (seed {made['seed']}): {made['samples']:,} texts,",
        f"{made['bytes']:,} bytes; {own['planted']:,} hold one secret each, {own['decoys']:,} hold",
        "none but look like it. Secrets are drawn in the forms that their issuers document and",
        "stand in prompts, code, diffs, logs, settings and tool results, half of them inside one",
        f"to three layers of JSON. *Found*: no part of {_LEFT_CHARS} characters or more is left.",
        "The corpus and the detectors were written side by side, so the recall says that redaction",
        "does what its documentation says, not which share of all secrets in the world it finds.",
        "",
        "| | recall | precision | wrong replacements | texts without a secret that were changed |",
        "|---|---|---|---|---|",
        _row("turnwise, all texts", own),
    ]
    if other:
        lines += [
            _row(f"turnwise, {other['samples']:,} of them", same),
            _row(f"detect-secrets {other['version']}, the same", other),
        ]
    lines += [
        "",
        "| kind | planted | found | recall | replacements | wrong | precision |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, counts in own["by_kind"].items():
        right = counts["replacements"] - counts["wrong"]
        lines.append(
            f"| {kind} | {counts['planted']} | {counts['found']} "
            f"| {counts['found'] / max(1, counts['planted']):.3f} | {counts['replacements']} "
            f"| {counts['wrong']} | {right / max(1, counts['replacements']):.3f} |"
        )
    lines += ["", "| no secret | texts | changed |" + (" by detect-secrets |" if other else "")]
    lines.append("|---|---|---|" + ("---|" if other else ""))
    for kind, counts in own["by_decoy"].items():
        row = f"| {kind} | {counts['texts']} | {counts['spoilt']} |"
        if other:
            theirs = other["by_decoy"][kind]
            row += f" {theirs['spoilt']} of {theirs['texts']} |"
        lines.append(row)
    lines += [
        "",
        "## Cost",
        "",
        f"CPU time; {speed['records_per_body']} log records per body",
        f"({speed['body_kb']} KB). The scan is all that a body without a secret pays in mode full",
        "on its way to the journal.",
        "",
        "| figure | value |",
        "|---|---|",
        *_figure_rows(speed),
        *_figure_rows(result["scans"]),
    ]
    if other:
        lines.append(f"| detect-secrets MB per s | {other['mb_per_s']} |")
    lines += [
        "",
        *_public_lines(result.get("public")),
        f"Machine: {os.cpu_count()} CPUs ({platform.machine()}),",
        f"Python {platform.python_version()};",
        f"load average {load:.1f} from other work when the run began.",
        "",
        "Repeat with `python -m bench.bench_redaction`; detect-secrets is measured where it is",
        "installed.",
    ]
    (RESULTS / "redaction.md").write_text("\n".join(lines) + "\n")


def _figure_rows(figures: dict[str, float]) -> list[str]:
    return [f"| {name.replace('_', ' ')} | {value:,} |" for name, value in figures.items()]


def _public_lines(public: dict[str, Any] | None) -> list[str]:
    """What is taken out of real traces; sums only."""
    if public is None:
        return []
    return [
        "## Real traces",
        "",
        f"{public['files']} public session files ({public['lines']:,} lines,",
        f"{public['bytes'] / 1e6:,.0f} MB): {public['lines_looked_into']:,} lines were looked",
        f"into, and {sum(public['replaced'].values())} places in them replaced, of",
        f"{public['different']} different texts:",
        "",
        "| kind | replaced |",
        "|---|---|",
        *(f"| {kind} | {count:,} |" for kind, count in sorted(public["replaced"].items())),
        *(
            f"| {kind}, in mode redacted | {count:,} |"
            for kind, count in sorted(public["personal"].items())
        ),
        "",
    ]


def _row(name: str, figures: dict[str, Any]) -> str:
    return (
        f"| {name} | {figures['recall']:.3f} ({figures['found']} of {figures['planted']}) "
        f"| {figures['precision']:.3f} | {figures['replacements_wrong']} "
        f"| {figures['decoys_spoilt']} of {figures['decoys']} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-kind", type=int, default=250)
    parser.add_argument("--seed", type=int, default=20_261_124)
    parser.add_argument("--data", type=Path, help="folder of public data (optional)")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    result = measure(options.seed, options.per_kind, options.data)
    write_results(result, load)
    print((RESULTS / "redaction.md").read_text())


if __name__ == "__main__":
    main()
