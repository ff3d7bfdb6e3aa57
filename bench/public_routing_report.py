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
    lines += _sessions(answer["sessions"])
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


def _sessions(real: dict[str, Any]) -> list[str]:
    about = real["about"]
    lines = [
        "## Public Claude Code sessions",
        "",
        f"{about['requests']:,} requests of {about['sessions']} sessions, "
        f"{about['user_turns']:,} user turns, {about['model_switches']} model switches inside an "
        f"agent; ${about['bill_usd']:,.0f} at list prices, {about['unpriced_requests']} requests "
        "without a price.",
        "",
        "The classic rule (under 10,000 input tokens to Haiku):",
        "",
        "| input size read as | requests | of the main loop | of subagents | sessions touched | "
        "dollars |",
        "|---|---|---|---|---|---|",
    ]
    for row in real["reach"]:
        lines.append(
            f"| {row['measure']} | {row['turn_share']:.2%} | {row['main_turn_share']:.2%} | "
            f"{row['subagent_turn_share']:.2%} | {row['session_share']:.1%} | "
            f"{row['cost_share']:.3%} |"
        )
    lines += [
        "",
        "Under T total input tokens to Haiku 4.5 (never above 150,000), else as requested:",
        "",
        "| decided per | T | requests moved | naive saving | cache-true saving (95 %) |",
        "|---|---|---|---|---|",
    ]
    for row in real["savings"]:
        lines.append(
            f"| {row['unit']} | {row['tokens']:,} | {row['rerouted_share']:.2%} | "
            f"{row['naive_saving']:.2%} | {row['true_saving']:.2%} "
            f"({row['true_saving_low']:.2%} to {row['true_saving_high']:.2%}) |"
        )
    return lines + _calibration(real["calibration"]) + _cost_searches(real["searches"])


def _calibration(found: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "### Cache reads, predicted and logged, request by request",
        "",
        "*Blind*: from lengths, times and lifetimes alone. *Replay*: compactions taken from the "
        "log, as the replay does. Right: within 5 % of the cacheable prompt.",
        "",
        "| since the model's last request | requests | read: logged | blind | replay | "
        "right: blind | replay | mean error, tokens: blind | replay | off the bill |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["by_pause"]:
        blind, known = row["blind"], row["replay"]
        if not row["requests"]:
            continue
        lines.append(
            f"| {row['pause']} | {row['requests']:,} | {row['logged_read_share']:.1%} | "
            f"{blind['read_share']:.1%} | {known['read_share']:.1%} | "
            f"{blind['within_5_percent']:.1%} | {known['within_5_percent']:.1%} | "
            f"{blind['mean_error_tokens']:,.0f} | {known['mean_error_tokens']:,.0f} | "
            f"{row['bill_error_share']:+.2%} |"
        )
    equal = "gives back the bill" if found["as_served_equals_bill"] else "does NOT give the bill"
    return [
        *lines,
        "",
        f"The models as served, replayed: {equal} to the micro-dollar. The cache model on every "
        f"request is {found['bill_residual']:+.1%} off the bill; "
        f"{found['turn_cost_within_5_percent']:.1%} of the requests cost within 5 % of their "
        "bill.",
    ]


def _cost_searches(runs: list[dict[str, Any]]) -> list[str]:
    lines = [
        "",
        "### The search on cost alone",
        "",
        "| seed | trials | policy | saving where it was chosen | on later sessions | there, with "
        "every model held to its window | requests that a model's window can't hold | quality |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        quality = "a number" if run["quality_is_estimated"] else "inconclusive"
        if not run["policy"]:
            lines.append(f"| {run['seed']} | {run['trials']} | none found | – | – | – | – | – |")
            continue
        lines.append(
            f"| {run['seed']} | {run['trials']} | {run['policy']} | "
            f"{run['selection_saving']:.1%} | {run['test_saving']:.1%} | "
            f"{run['test_saving_inside_windows']:.1%} | {run['moved_above_window']:.1%} | "
            f"{quality} |"
        )
    reasons = sorted({reason for run in runs for reason in run["refusals"]})
    return [*lines, "", *(f"Why inconclusive: {reason}." for reason in reasons)]
