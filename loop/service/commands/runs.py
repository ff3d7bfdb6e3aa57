"""``turnwise optimize`` and ``run``: searches for a policy, and what each found."""

from __future__ import annotations

import time
from typing import Any

import click

from loop.service.api_client import ApiClient
from loop.service.commands import actor_option, reads
from loop.service.printing import Column, print_json, print_lines, print_rows, show, talk

POLL_SECONDS = 0.5


@click.command()
@click.option(
    "--trials",
    type=click.IntRange(1, 100_000),
    default=200,
    show_default=True,
    help="Policies to try.",
)
@click.option("--seconds", type=float, help="Stop after so many seconds.")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="The same seed and data give the same trials.",
)
@click.option(
    "--margin",
    type=float,
    default=0.05,
    show_default=True,
    help="Largest loss of quality that is tolerated, in points of the 0 to 1 score.",
)
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "nsga2"]),
    default="tpe",
    show_default=True,
    help="How Optuna proposes policies.",
)
@click.option("--patience", type=int, help="Stop after so many trials without a gain (150).")
@click.option("--max-usd", type=float, help="Stop when its processors have cost so much.")
@click.option(
    "--min-cell-sessions",
    type=int,
    help="Randomised sessions that the log must hold of each change that a policy makes (100).",
)
@click.option("--cluster", help="Search where this cluster happens (`turnwise cluster list`).")
@click.option("--propose", is_flag=True, help="Propose the policy found as a new version.")
@actor_option
@reads
def optimize(client: ApiClient, as_json: bool, **options: Any) -> None:
    """Search for a routing policy that saves money at no loss of quality.

    Ends with "no better policy found" where that is so. JSON: the run, as `run show`.
    """
    run = client.post("/v1/runs", options)
    total = options["trials"]
    with talk.status("Searching …") as status:
        while run["state"] == "running":
            time.sleep(POLL_SECONDS)
            run = client.get(f"/v1/runs/{run['run_id']}")
            status.update(f"Searching: {run['trials_done']} of {total} trials")
    if as_json:
        return print_json(run)
    _print_run(run)
    return None


@click.group()
def run() -> None:
    """Optimization runs."""


@run.command("list")
@reads
def list_runs(client: ApiClient, as_json: bool) -> None:
    """The runs, newest first. JSON: {"rows": [...], "next": null}."""
    answer = client.get("/v1/runs")
    if as_json:
        return print_json(answer)
    columns = [
        Column("run_id", "run"),
        Column("state", "state"),
        Column("started_at_us", "started (UTC)", "time"),
        Column("trials_done", "trials", "count"),
        Column("outcome", "outcome"),
    ]
    print_rows(answer["rows"], columns, "No runs yet: `turnwise optimize` makes one.")
    return None


@run.command("show")
@click.argument("run_id")
@reads
def show_run(client: ApiClient, run_id: str, as_json: bool) -> None:
    """One run: what was searched, what was found, and how it does on untouched sessions.

    JSON: {run_id, state, started_at_us, finished_at_us, outcome, trials_done, seed, settings,
    importance, spent_usd, table_versions, tombstones, incumbent, found, found_words, selection,
    test, trials, proposed_version, is_part}.
    """
    answer = client.get(f"/v1/runs/{run_id}")
    if as_json:
        return print_json(answer)
    _print_run(answer)
    return None


def _print_run(run: dict[str, Any]) -> None:
    print_lines(f"run      {run['run_id']}  {run['state']}", f"outcome  {run['outcome']}")
    for name, title in (
        ("selection", "on the sessions that chose it"),
        ("test", "on later sessions"),
    ):
        if run.get(name):
            print_lines("", f"Estimate {title}:", *estimate_lines(run[name]))
    scope = run["settings"].get("scope")
    if scope:
        print_lines("", f"Searched in {', '.join(scope['repositories'])} only.")
    if run.get("proposed_version"):
        print_lines("", f"Proposed as version {run['proposed_version']}.")


def estimate_lines(estimate: dict[str, Any]) -> list[str]:
    """An estimate in words and numbers."""
    lines = [
        f"  sessions {estimate['sessions']:,}, turns {estimate['turns']:,}, "
        f"rerouted {estimate['rerouted_turns']:,}",
        f"  cost     {show(estimate['incumbent_cost_microusd'], 'money')} → "
        f"{show(estimate['candidate_cost_microusd'], 'money')} "
        f"(saving {show(estimate['saving_share'], 'share')}; a replay that ignores the cache "
        f"would say {show(estimate['naive_cost_microusd'], 'money')})",
        f"  replay of the served routes differs from the bill by "
        f"{show(estimate['calibration_residual'], 'share')}",
    ]
    lines += [f"  length   {line}" for line in estimate["length_words"]]
    quality = estimate["quality"]
    if quality["difference"]:
        gap = quality["difference"]
        lines.append(
            f"  quality  {gap['estimate']:+.3f} against the incumbent "
            f"(95 % interval {gap['low']:+.3f} to {gap['high']:+.3f}; "
            f"effective sample size {quality['effective_sample_size']:.0f})"
        )
    lines += [f"  quality  no answer: {reason}" for reason in quality["refusals"]]
    cost = (estimate.get("session_cost_usd") or {}).get("difference")
    if cost:
        lines.append(
            f"  bills    {cost['estimate']:+.4f} USD a session, off-policy "
            f"(95 % interval {cost['low']:+.4f} to {cost['high']:+.4f})"
        )
    lines += [
        f"  worse    {part['dimension']} {part['name']}: {part['difference']['estimate']:+.3f} "
        f"(adjusted p {part['p_worse_holm']:.3f})"
        for part in estimate.get("slices") or ()
        if part["p_worse_holm"] is not None and part["p_worse_holm"] < 0.05
    ]
    return lines
