"""The figures of the public routing benchmark as tables."""

from __future__ import annotations

from typing import Any


def report(answer: dict[str, Any]) -> str:
    lines = [
        "# Routing on public data",
        "",
        "Written by `python -m bench.public_routing`; `docs/benchmarks/routing.md` explains it. "
        f"Python {answer['machine']['python']}.",
        "",
        "## Routers on prompts whose outcome on both models is known",
        "",
    ]
    for item in answer["sets"]:
        lines += _routers(item)
    lines += _coverage(answer)
    lines += _rule_chosen(answer["sets"])
    lines += _searches(answer["sets"])
    return "\n".join(lines) + "\n"


def _routers(item: dict[str, Any]) -> list[str]:
    lines = [
        f"**{item['name']}**: {item['prompts']:,} prompts, {item['domains']} "
        f"{'domains' if item['domains'] > 1 else 'domain'}; "
        f"{item['strong']} {item['strong_quality']:.1%}, {item['weak']} "
        f"{item['weak_quality']:.1%}.",
        "",
        "| router | APGR (95 %) | CPT(50 %) | CPT(80 %) | above the bar (95 %) |",
        "|---|---|---|---|---|",
    ]
    for router in item["routers"]:
        above = router["above_bar"]
        apart = (
            "the bar" if above is None else f"{above[0]:+.3f} ({above[1]:+.3f} to {above[2]:+.3f})"
        )
        lines.append(
            f"| {router['router']} | {router['apgr']:.3f} ({router['apgr_low']:.3f}–"
            f"{router['apgr_high']:.3f}) | {router['cpt50']:.0%} | {router['cpt80']:.0%} | "
            f"{apart} |"
        )
    return [*lines, ""]


def _coverage(answer: dict[str, Any]) -> list[str]:
    lines = [
        "## Estimates against the truth",
        "",
        f"{answer['resamplings']} logs a row; all candidates of a set together.",
        "",
        "| set | sessions | to strong | estimates | refused | 95 % interval of the value covers | "
        "worst candidate | of the difference covers | bias | width | width of the difference |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for item in answer["sets"]:
        for row in item["coverage"]:
            lines.append(
                f"| {row['set_name']} | {row['sessions']:,} | {row['strong_share']:.0%} | "
                f"{row['estimates']:,} | {row['refused']:,} | {row['value_covered']:.1%} | "
                f"{row['least_value_covered']:.1%} | {row['difference_covered']:.1%} | "
                f"{row['bias']:+.4f} | {row['mean_width']:.3f} | {row['difference_width']:.3f} |"
            )
    return [*lines, ""]


def _rule_chosen(sets: list[dict[str, Any]]) -> list[str]:
    lines = [
        "A log in which the length of the prompt chose the model, asked about the weak model on "
        "everything:",
        "",
        "| set | mean of the weak model's logged sessions | truth | turnwise |",
        "|---|---|---|---|",
    ]
    for item in sets:
        row = item["rule_chosen"]
        answer = "refused" if row["refusals"] else "a number"
        lines.append(
            f"| {row['set_name']} | {row['logged_mean_of_weak']:.1%} | {row['truth_of_weak']:.1%} "
            f"| {answer} |"
        )
    return [*lines, ""]


def _searches(sets: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## What the search finds",
        "",
        "| set | searches | found a policy | saving on later sessions, median (least to most) | "
        "calls to strong, median | gap recovered, median | "
        "true difference in quality, median (worst) | truly beyond the margin of -0.02 | "
        "interval covers the truth |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for item in sets:
        runs = item["searches"]
        if not runs:
            continue
        found = sorted((run for run in runs if run["policy"]), key=lambda run: run["saving"])
        if not found:
            lines.append(f"| {item['name']} | {len(runs)} | 0 | – | – | – | – | – | – |")
            continue
        savings = [run["saving"] for run in found]
        differences = sorted(run["true_difference"] for run in found)
        gap = item["strong_quality"] - item["weak_quality"]
        recovered = [1 + value / gap for value in differences]
        calls = [run["strong_share"] for run in found]
        judged = [run for run in found if run["estimated_difference"]]
        covered = sum(
            run["estimated_difference"][1] <= run["true_difference"]
            <= run["estimated_difference"][2]
            for run in judged
        )  # fmt: skip
        lines.append(
            f"| {item['name']} | {len(runs)} | {len(found)} | {_middle(savings):.1%} "
            f"({savings[0]:.1%} to {savings[-1]:.1%}) | {_middle(calls):.0%} | "
            f"{_middle(recovered):.0%} | {_middle(differences):+.3f} "
            f"({differences[0]:+.3f}) | {sum(value < -0.02 for value in differences)} | "
            f"{covered} of {len(judged)} |"
        )
    return [*lines, ""]


def _middle(values: list[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
