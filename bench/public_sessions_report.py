"""The figures of the benchmark on public sessions as tables."""

from __future__ import annotations

from typing import Any


def report(real: dict[str, Any]) -> str:
    about = real["about"]
    lines = [
        "# Public Claude Code sessions",
        "",
        "Written by `python -m bench.public_sessions`; `docs/benchmarks/routing.md` explains it. "
        f"Python {real['machine']['python']}.",
        "",
        f"{about['requests']:,} requests of {about['sessions']} sessions, "
        f"{about['user_turns']:,} user turns, {about['model_switches']} model switches inside an "
        f"agent; ${about['bill_usd']:,.0f} at list prices, {about['unpriced_requests']} requests "
        "without a price.",
        "",
        "The classic rule (under 10,000 input tokens to Haiku):",
        "",
        "| input size read as | requests | of the main loop | of subagents | sessions touched | "
        "tokens | dollars |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in real["reach"]:
        lines.append(
            f"| {row['measure']} | {row['turn_share']:.2%} | {row['main_turn_share']:.2%} | "
            f"{row['subagent_turn_share']:.2%} | {row['session_share']:.1%} | "
            f"{row['token_share']:.3%} | {row['cost_share']:.3%} |"
        )
    lines += [
        "",
        "Under T total input tokens to Haiku 4.5 (never above 150,000), else as requested:",
        "",
        "| decided per | T | requests moved | naive saving | cache-true saving (95 %) | "
        "if the API looked back without limit | left out |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in real["savings"]:
        lines.append(
            f"| {row['unit']} | {row['tokens']:,} | {row['rerouted_share']:.2%} | "
            f"{row['naive_saving']:.2%} | {row['true_saving']:.2%} "
            f"({row['true_saving_low']:.2%} to {row['true_saving_high']:.2%}) | "
            f"{row['unlimited_lookback_saving']:.2%} | {row['unpriced_turns']} |"
        )
    lines += _calibration(real["calibration"]) + _cost_searches(real["searches"])
    return "\n".join(lines) + "\n"


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
        "",
        "By served model and class:",
        "",
        "| model | class | requests | billed | off the bill | cache reads: logged | modelled | "
        "cache writes: logged | modelled | reads right | cost right |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {row['model']} | {row['request_class']} | {row['requests']:,} | "
            f"${row['billed_cost_microusd'] / 1e6:,.2f} | {row['residual']:+.1%} | "
            f"{row['logged_cache_read_tokens']:,} | {row['modelled_cache_read_tokens']:,} | "
            f"{row['logged_cache_write_tokens']:,} | {row['modelled_cache_write_tokens']:,} | "
            f"{row['reads_close_share']:.1%} | {row['cost_close_share']:.1%} |"
            for row in found["by_model"]
            if row["residual"] is not None and row["reads_close_share"] is not None
        ),
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
