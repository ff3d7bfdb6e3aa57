"""The replay's results in words and tables."""

from __future__ import annotations

from typing import Any


def report(answer: dict[str, Any]) -> str:
    """The results as Markdown."""
    machine = answer["machine"]
    lines = [
        "# Replay",
        "",
        f"Python {machine['python']}, NumPy {machine['numpy']}, {machine['processors']} "
        f"processors under a load of {machine['load']:.1f}. Seconds are processor time of one "
        "thread, the best of three (`bench/bench_replay.py` says how).",
        "",
        "## One policy over synthetic sessions of 25 turns",
        "",
        "| policy | turns | seconds | million turns/s | rerouted | saving |",
        "|---|---|---|---|---|---|",
    ]
    for item in answer["replay"]:
        lines.append(
            f"| {item['policy']} | {item['turns']:,} | {item['seconds']:.3f} | "
            f"{item['turns_per_second'] / 1e6:.1f} | {item['rerouted_share']:.1%} | "
            f"{item['saving_share']:.1%} |"
        )
    lines += [
        "",
        "Beside it: what one size takes once (the caches of a frame; the first replay, which also "
        "prices every turn on every model that it meets), one DuckDB scan that sums ten of the "
        "columns that a replay reads (one thread, from memory), and the peak memory of the run so "
        "far, frame included.",
        "",
        "| turns | caches, s | first replay, s | scan, s | a replay in scans | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for size in answer["sizes"]:
        replays = [item["seconds"] for item in answer["replay"] if item["turns"] == size["turns"]]
        lines.append(
            f"| {size['turns']:,} | {size['preparation_seconds']:.2f} | "
            f"{size['first_replay_seconds']:.2f} | {size['scan_seconds']:.3f} | "
            f"{min(replays) / size['scan_seconds']:.1f} to "
            f"{max(replays) / size['scan_seconds']:.1f} | {size['peak_memory_mib']:,} |"
        )
    if "shared" in answer:
        lines += [
            "",
            "Where the log shows that sessions share a system prompt:",
            "",
            "| policy | turns | seconds | million turns/s | rerouted | saving |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {item['policy']} | {item['turns']:,} | {item['seconds']:.3f} | "
            f"{item['turns_per_second'] / 1e6:.1f} | {item['rerouted_share']:.1%} | "
            f"{item['saving_share']:.1%} |"
            for item in answer["shared"]
        ]
    lines += [
        "",
        f"## Against a plain Python loop on {answer['loop'][0]['turns']:,} of the same turns",
        "",
        "The costs are equal to the micro-dollar.",
    ]
    for title, rows in (
        ("each session with a system prompt of its own", answer["loop"]),
        ("one system prompt for all sessions", answer["shared_loop"]),
    ):
        lines += [
            "",
            f"| {title} | loop, turns/s | columns, turns/s | ratio |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {item['policy']} | {item['loop_turns_per_second']:,.0f} | "
            f"{item['columns_turns_per_second']:,.0f} | {item['ratio']:.0f} |"
            for item in rows
        ]
    found = answer["search"]
    lines += [
        "",
        f"A search of {found['trials']:,} trials ({found['policies']:,} different policies) over "
        f"{found['turns']:,} turns took {found['seconds']:.0f} seconds of processor time, "
        f"{found['wall_seconds']:.0f} by the clock.",
    ]
    if "sessions" in answer:
        lines += _report_sessions(answer["sessions"])
    return "\n".join(lines) + "\n"


def _report_sessions(real: dict[str, Any]) -> list[str]:
    lines = [
        "",
        f"## Public Claude Code sessions ({real['turns']:,} requests, {real['sessions']} sessions)",
        "",
        "List prices. Where the log has only a placeholder for the output length, output counts "
        "for next to nothing, on both sides. `prompt_tokens` can't be read from this set.",
        "",
        "The classic rule, under 10,000 input tokens:",
        "",
        "| input size read as | turns | dollars |",
        "|---|---|---|",
    ]
    for item in real["classic_rule_reach"]:
        lines.append(f"| {item['measure']} | {item['turn_share']:.2%} | {item['cost_share']:.3%} |")
    lines += [
        "",
        "Under T total input tokens to Haiku 4.5 (never above 150,000), else as requested; the "
        "last column also takes Opus 4.7's tokenizer to make 30 % more tokens of a text:",
        "",
        "| T | decided | rerouted | naive saving | cache-true saving | with tokenizer ratio |",
        "|---|---|---|---|---|---|",
    ]
    for item in real["thresholds"]:
        lines.append(
            f"| {item['tokens']:,} | per {item['unit']} | {item['rerouted_share']:.2%} | "
            f"{item['naive_saving_share']:.2%} | {item['cache_true_saving_share']:.2%} | "
            f"{item['cache_true_with_tokenizer_ratio']:.2%} |"
        )
    lines += [
        "",
        "Calibration: the cache model on the logged routes is "
        f"{real['calibration_residual']:+.1%} off the bill and reads "
        f"{real['modelled_to_logged_cache_reads']:.1%} of what was read from caches "
        f"({real['unpriced_turns']} requests have no price). A policy's replay uses the model "
        "for altered turns only.",
    ]
    return lines
