"""turnwise's evaluators on public agent runs whose outcome somebody else judged.

    python -m bench.public_evaluators --data PATH [--draws N]

``PATH`` holds the sets ``claude_code_swebench_lite``, ``minisweagent_gemini3pro``,
``taubench_airline_gpt4o``, ``bfcl``, ``summedits``, ``factool``, ``halueval_general`` and
``claude_code_sessions`` (``docs/benchmarks/evaluators.md``). Writes
``bench/results/public_evaluators.{json,md}``: counts and shares only, nothing of any text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bench.public_calls import bfcl_calls, same_text
from bench.public_classifier import measure_auroc
from bench.public_data import data_folder, data_parser, machine, say, write_results
from bench.public_endings import session_traces
from bench.public_evaluators_report import report
from bench.public_texts import SETS as TEXT_SETS
from bench.public_texts import measure_texts
from bench.public_traces import (
    JudgedTrace,
    mini_swe_runs,
    swe_bench_runs,
    tau_bench_runs,
)
from evaluators import default_evaluators
from evaluators.expected_calls import GivenCall, match_calls
from evaluators.session_evidence import read_evidence
from evaluators.session_quality import quality_of
from evaluators.tool_use import read_calls
from loop.domain.scores import Score
from loop.domain.turns import SessionTrace

READERS = {
    "claude_code_swebench_lite": swe_bench_runs,
    "minisweagent_gemini3pro": mini_swe_runs,
    "taubench_airline_gpt4o": tau_bench_runs,
}
# Verdicts of the BFCL checker that follow from the function's signature alone.
SIGNATURE_ERRORS = (
    "simple_function_checker:missing_required",
    "simple_function_checker:unexpected_param",
    "simple_function_checker:wrong_func_name",
    "type_error:",
)


@dataclass(frozen=True)
class Judged:
    """One run with its scores."""

    run: JudgedTrace
    scores: tuple[Score, ...]

    @property
    def values(self) -> dict[str, float | None]:
        """By evaluator, and ``quality`` over all of them."""
        named = {score.evaluator: score.value for score in self.scores}
        return {**named, "quality": quality_of(self.scores)}


def judge(runs: Sequence[JudgedTrace]) -> list[Judged]:
    evaluators = default_evaluators()
    return [
        Judged(run, tuple(evaluator.evaluate(run.trace) for evaluator in evaluators))
        for run in runs
    ]


def measure_runs(judged: Sequence[Judged], draws: int) -> dict[str, Any]:
    """Coverage and AUROC of each evaluator, with turns on the same rows beside it, and of the
    baselines on all rows."""
    rows = []
    for name in judged[0].values:
        scored = [item for item in judged if item.values[name] is not None]
        values = [item.values[name] or 0.0 for item in scored]
        rows.append(
            {
                "predictor": name,
                "coverage": len(scored) / len(judged),
                **_auroc(scored, values, draws),
                "turns_on_same_rows": _baseline(scored, "turns", draws)["estimate"],
                "distinct_values": len(set(values)),
            }
        )
    rows.append(_credit_without_prior(judged, draws))
    for name in judged[0].run.baselines:
        rows.append(
            {"predictor": f"fewer: {name}", "coverage": 1.0, **_baseline(judged, name, draws)}
        )
    return {
        "runs": len(judged),
        "groups": len({item.run.group for item in judged}),
        "good": sum(item.run.is_good for item in judged),
        "rows": rows,
        "unscored": _unscored_reasons(judged),
        "findings": _verdicts(judged),
    }


def _credit_without_prior(judged: Sequence[Judged], draws: int) -> dict[str, Any]:
    """A diagnosis: the mean credit of the calls, of which tool_use is the mean under a prior that
    weighs one call. The prior makes a long session of sound calls score above a short one."""
    scored, means = [], []
    for item in judged:
        readings = read_calls(item.run.trace, read_evidence(item.run.trace))
        earned = [reading.credit for reading in readings if reading.credit is not None]
        if earned:
            scored.append(item)
            means.append(float(np.mean(earned)))
    return {
        "predictor": "(tool_use without its prior)",
        "coverage": len(scored) / len(judged),
        **_auroc(scored, means, draws),
        "turns_on_same_rows": _baseline(scored, "turns", draws)["estimate"],
        "distinct_values": len(set(means)),
    }


def _auroc(rows: Sequence[Judged], values: Sequence[float], draws: int) -> dict[str, Any]:
    good = [item.run.is_good for item in rows]
    groups = [item.run.group for item in rows]
    return asdict(measure_auroc(values, good, groups, draws=draws))


def _baseline(rows: Sequence[Judged], name: str, draws: int) -> dict[str, Any]:
    return _auroc(rows, [-item.run.baselines[name] for item in rows], draws)


def _unscored_reasons(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    counted = Counter(
        (score.evaluator, score.unscored_reason)
        for item in judged
        for score in item.scores
        if not score.is_scored
    )
    return [
        {"evaluator": evaluator, "reason": reason, "runs": count}
        for (evaluator, reason), count in sorted(counted.items(), key=lambda item: -item[1])
    ]


def _verdicts(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Runs in which faithfulness gave a verdict at least once, by outcome."""
    bad, good = Counter[str](), Counter[str]()
    for item in judged:
        seen = {
            finding.verdict
            for score in item.scores
            if score.evaluator == "faithfulness"
            for finding in score.findings
        }
        (good if item.run.is_good else bad).update(seen)
    return [
        {"verdict": verdict, "good_runs": good[verdict], "bad_runs": bad[verdict]}
        for verdict in sorted({*good, *bad})
    ]


@dataclass(frozen=True)
class Expectation:
    """A BFCL answer whose right answers are at hand: is it one of them, by each comparison?"""

    category: str
    is_valid: bool
    exactly: bool
    loosely: bool


def compare_with_labels(runs: Sequence[JudgedTrace]) -> list[Expectation]:
    found = []
    for run in runs:
        expected = run.trace.expected_calls
        if expected is None:
            continue
        steps = read_evidence(run.trace).steps
        given = [GivenCall(step.tool.call.name, json.loads(step.tool.input_text)) for step in steps]
        found.append(
            Expectation(
                run.labels["category"],
                run.is_good,
                match_calls(given, expected).is_right,
                match_calls(given, expected, same_text=same_text).is_right,
            )
        )
    return found


def classify_valid(judged: Sequence[Judged], draws: int) -> list[dict[str, Any]]:
    """The tool-use score of answers whose right calls are at hand, as a classifier of ``valid``, by
    category, with the length of the answer beside it."""
    labelled = [item for item in judged if item.run.trace.expected_calls is not None]
    by_category: dict[str, list[Judged]] = {}
    for item in labelled:
        by_category.setdefault(item.run.labels["category"], []).append(item)
    found = []
    for name, rows in [*sorted(by_category.items()), ("all", labelled)]:
        scored = [item for item in rows if item.values["tool_use"] is not None]
        found.append(
            {
                "category": name,
                "answers": len(rows),
                "scored": len(scored),
                "shorter": _baseline(scored, "output tokens", draws)["estimate"],
                **_auroc(scored, [item.values["tool_use"] or 0.0 for item in scored], draws),
            }
        )
    return found


def measure_sessions(traces: Iterable[SessionTrace]) -> dict[str, Any]:
    """Real sessions without a verdict: what can be scored, and what the evaluators found there."""
    evaluators = default_evaluators()
    scored, reasons = Counter[str](), Counter[tuple[str, str]]()
    verdicts, sessions, claims_in = Counter[str](), 0, Counter[str]()
    for trace in traces:
        sessions += 1
        for evaluator in evaluators:
            score = evaluator.evaluate(trace)
            scored[evaluator.name] += score.is_scored
            if not score.is_scored:
                reasons[evaluator.name, score.unscored_reason] += 1
            if evaluator.name == "faithfulness":
                found = Counter(finding.verdict for finding in score.findings)
                verdicts.update(found)
                claims_in.update(found.keys())
    return {
        "sessions": sessions,
        "scored": dict(scored),
        "unscored": [
            {"evaluator": name, "reason": reason, "runs": count}
            for (name, reason), count in reasons.most_common()
        ],
        "verdicts": [
            {"verdict": name, "claims": verdicts[name], "sessions": claims_in[name]}
            for name in sorted(verdicts)
        ],
    }


def _agreement(expectations: Sequence[Expectation]) -> list[dict[str, Any]]:
    by_category: dict[str, list[Expectation]] = {}
    for item in expectations:
        by_category.setdefault(item.category, []).append(item)
    return [
        {
            "category": name,
            "answers": len(rows),
            "valid_share": float(np.mean([row.is_valid for row in rows])),
            "exactly": float(np.mean([row.exactly == row.is_valid for row in rows])),
            "loosely": float(np.mean([row.loosely == row.is_valid for row in rows])),
        }
        for name, rows in [*sorted(by_category.items()), ("all", list(expectations))]
    ]


def measure_calls(
    judged: Sequence[Judged], expectations: Sequence[Expectation], draws: int
) -> dict[str, Any]:
    """The tool-use evaluator as a classifier of valid calls. It has nothing to go by but the tools'
    schemas, so a score is a flag: what it scores, it scores low."""
    by_category: dict[str, list[Judged]] = {}
    for item in judged:
        by_category.setdefault(item.run.labels["category"], []).append(item)
    total = _flags(judged)
    return {
        "agreement": _agreement(expectations),
        "answers": len(judged),
        "questions": len({item.run.group for item in judged}),
        "valid": sum(item.run.is_good for item in judged),
        "all": total,
        "categories": [
            {"category": name, **_flags(rows)} for name, rows in sorted(by_category.items())
        ],
        "errors": _errors(judged),
        "unscored": [row for row in _unscored_reasons(judged) if row["evaluator"] == "tool_use"],
        "baselines": [
            {"predictor": f"fewer: {name}", **_baseline(judged, name, draws)}
            for name in judged[0].run.baselines
        ],
    }


def _flags(rows: Sequence[Judged]) -> dict[str, Any]:
    scored = [item for item in rows if item.values["tool_use"] is not None]
    invalid = [item for item in rows if not item.run.is_good]
    right = sum(not item.run.is_good for item in scored)
    return {
        "answers": len(rows),
        "valid_share": float(np.mean([item.run.is_good for item in rows])),
        "functions_known": sum(item.run.labels["functions known"] == "yes" for item in rows),
        "scored": len(scored),
        "scored_and_invalid": right,
        "invalid": len(invalid),
    }


def _errors(judged: Sequence[Judged]) -> dict[str, Any]:
    """What kind the checker's refusals are of, and how many a check of signatures could see."""
    errors = Counter(item.run.labels["error"] for item in judged if not item.run.is_good)
    kinds = Counter[str]()
    for name, count in errors.items():
        kinds[_error_kind(name)] += count
    named = ("seen_in_signature", "no_call_to_read", "wrong_number_of_calls")
    return {
        "by_kind": dict(errors.most_common()),
        **{kind: kinds[kind] for kind in (*named, "call_where_none_fits", "other")},
        "invalid": sum(errors.values()),
    }


def _error_kind(name: str) -> str:
    if name.startswith(SIGNATURE_ERRORS):
        return "seen_in_signature"
    if "decoder_failed" in name:
        return "no_call_to_read"
    if name.endswith(("wrong_count", "exec_result_count")):
        return "wrong_number_of_calls"
    return "call_where_none_fits" if name.startswith("relevance_error") else "other"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--draws", type=int, default=1_000, help="bootstrap draws")
    options = parser.parse_args(arguments)
    data = data_folder(parser, options)
    answer: dict[str, Any] = {
        "machine": machine(),
        "evaluators": {item.name: item.version for item in default_evaluators()},
        "sets": {},
    }
    for name, read in READERS.items():
        say(name)
        answer["sets"][name] = measure_runs(judge(read(data)), options.draws)
    say("bfcl")
    calls = bfcl_calls(data)
    unlabelled = [replace(run, trace=replace(run.trace, expected_calls=None)) for run in calls]
    answer["bfcl"] = measure_calls(judge(unlabelled), compare_with_labels(calls), options.draws)
    answer["bfcl"]["valid_by_category"] = classify_valid(judge(calls), options.draws)
    answer["texts"] = {}
    for name, read_texts in TEXT_SETS.items():
        say(name)
        answer["texts"][name] = measure_texts(read_texts(data), options.draws)
    say("claude_code_sessions")
    answer["sessions"] = measure_sessions(session_traces(data))
    text = report(answer)
    write_results("public_evaluators", answer, text)
    print(text)


if __name__ == "__main__":
    main()
