"""The figures of the public evaluator benchmark as tables."""

from __future__ import annotations

from typing import Any

KINDS = (
    ("seen_in_signature", "against the function's signature"),
    ("no_call_to_read", "nothing that reads as a call"),
    ("wrong_number_of_calls", "wrong number of calls"),
    ("call_where_none_fits", "a call where no function fits"),
    ("other", "other: wrong values, no matching call, a failed execution"),
)


def report(answer: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in answer["evaluators"].items())
    lines = [
        "# Evaluators on public data",
        "",
        "Written by `python -m bench.public_evaluators`; `docs/benchmarks/evaluators.md` explains "
        f"it. Evaluator versions: {versions}. Python {answer['machine']['python']}.",
        "",
    ]
    for name, found in answer["sets"].items():
        lines += _runs(name, found)
    lines += _calls(answer["bfcl"])
    for name, found in answer["texts"].items():
        lines += _texts(name, found)
    return "\n".join(lines + _sessions(answer["sessions"])) + "\n"


def _runs(name: str, found: dict[str, Any]) -> list[str]:
    lines = [
        f"## {name}",
        "",
        f"{found['runs']} runs of {found['groups']} tasks, {found['good']} "
        f"({found['good'] / found['runs']:.0%}) judged good.",
        "",
        "| predictor | runs scored | AUROC (95 %) | fewer turns on the same runs |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:
        beside = row.get("turns_on_same_rows")
        lines.append(
            f"| {row['predictor']} | {row['rows']} ({row['coverage']:.0%}) | {_area(row)} | "
            f"{'–' if beside is None else f'{beside:.3f}'} |"
        )
    if found["findings"]:
        lines += [
            "",
            "Runs in which faithfulness gave a verdict at least once:",
            "",
            "| verdict | of good runs | of bad runs |",
            "|---|---|---|",
        ]
        bad = found["runs"] - found["good"]
        for row in found["findings"]:
            lines.append(
                f"| {row['verdict']} | {_share(row['good_runs'], found['good'])} | "
                f"{_share(row['bad_runs'], bad)} |"
            )
    return [*lines, "", *_reasons(found["unscored"])]


def _reasons(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = ["| unscored by | reason | rows |", "|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['evaluator']} | {row['reason']} | {row['runs']:,} |")
    return [*lines, ""]


def _area(row: dict[str, Any]) -> str:
    if row["estimate"] is None:
        return "too few"
    return f"{row['estimate']:.3f} ({row['low']:.3f}–{row['high']:.3f})"


def _share(count: int, of: int) -> str:
    return f"{count} ({count / of:.0%})" if of else "–"


def _calls(found: dict[str, Any]) -> list[str]:
    lines = [
        "## bfcl",
        "",
        f"{found['answers']:,} answers of 12 model configurations to {found['questions']} "
        f"questions, {found['valid'] / found['answers']:.1%} valid. A score of tool_use is a flag "
        "here: it has nothing to go by but the functions and their schemas.",
        "",
        "| category | answers | valid | functions at hand | flagged | of these invalid | "
        "of the invalid flagged |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in [*found["categories"], {"category": "all", **found["all"]}]:
        lines.append(
            f"| {row['category']} | {row['answers']:,} | {row['valid_share']:.1%} | "
            f"{row['functions_known']:,} | {row['scored']} | {row['scored_and_invalid']} | "
            f"{_share(row['scored_and_invalid'], row['invalid'])} |"
        )
    lines += [
        "",
        "With the answers that are right at hand, is a call judged as the checker judged it?",
        "",
        "| category | answers | valid | agreement, texts as they are | as BFCL compares texts |",
        "|---|---|---|---|---|",
        *(
            f"| {row['category']} | {row['answers']:,} | {row['valid_share']:.1%} | "
            f"{row['exactly']:.1%} | {row['loosely']:.1%} |"
            for row in found["agreement"]
        ),
    ]
    lines += [
        "",
        "The score of tool_use where the right answers are at hand, as a classifier of `valid`:",
        "",
        "| category | answers | scored | AUROC (95 %) | fewer output tokens |",
        "|---|---|---|---|---|",
        *(
            f"| {row['category']} | {row['answers']:,} | {row['scored']:,} | {_area(row)} | "
            f"{'–' if row['shorter'] is None else format(row['shorter'], '.3f')} |"
            for row in found["valid_by_category"]
        ),
    ]
    errors = found["errors"]
    lines += [
        "",
        "| why the checker refused | answers |",
        "|---|---|",
        *(f"| {words} | {_share(errors[name], errors['invalid'])} |" for name, words in KINDS),
        f"| all | {errors['invalid']:,} |",
        "",
        "| baseline | answers | AUROC (95 %) |",
        "|---|---|---|",
    ]
    for row in found["baselines"]:
        lines.append(f"| {row['predictor']} | {row['rows']:,} | {_area(row)} |")
    return [*lines, "", *_reasons(found["unscored"])]


def _texts(name: str, found: dict[str, Any]) -> list[str]:
    lines = [
        f"## {name}",
        "",
        f"{found['texts']:,} texts, {found['good']:,} ({found['good'] / found['texts']:.0%}) "
        f"judged good. faithfulness scored {found['scored']:,}.",
        "",
        "| predictor | texts | AUROC (95 %) |",
        "|---|---|---|",
        *(f"| {row['predictor']} | {row['rows']:,} | {_area(row)} |" for row in found["rows"]),
        "",
    ]
    if found["tasks"]:
        lines += ["| part | texts | good | scored |", "|---|---|---|---|"]
        for row in found["tasks"]:
            lines.append(
                f"| {row['task']} | {row['texts']:,} | {row['good_share']:.0%} | {row['scored']} |"
            )
        lines.append("")
    if found["verdicts"]:
        lines += ["| verdict | in good texts | in bad texts |", "|---|---|---|"]
        for row in found["verdicts"]:
            lines.append(f"| {row['verdict']} | {row['in_good']} | {row['in_bad']} |")
        lines.append("")
    return [*lines, *_reasons(found["unscored"])]


def _sessions(found: dict[str, Any]) -> list[str]:
    lines = [
        "## claude_code_sessions",
        "",
        f"{found['sessions']} sessions of people at work, no verdict on any.",
        "",
        "| evaluator | sessions scored |",
        "|---|---|",
        *(
            f"| {name} | {_share(count, found['sessions'])} |"
            for name, count in found["scored"].items()
        ),
        "",
        "| verdict of faithfulness | claims | in sessions |",
        "|---|---|---|",
        *(
            f"| {row['verdict']} | {row['claims']:,} | {row['sessions']} |"
            for row in found["verdicts"]
        ),
        "",
    ]
    return [*lines, *_reasons(found["unscored"])]
