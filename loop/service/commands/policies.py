"""``turnwise optimize``, ``run``, ``policy`` and ``rollout``."""

from __future__ import annotations

import getpass
import json
import time
from pathlib import Path
from typing import Any

import click

from loop.domain.errors import BadInput
from loop.domain.policies import BUCKETS
from loop.service.api_client import ApiClient
from loop.service.commands import reads
from loop.service.commands.replays import REACH_COLUMNS
from loop.service.printing import Column, print_json, print_lines, print_rows, show, talk

POLL_SECONDS = 0.5
actor_option = click.option(
    "--as", "actor", default=getpass.getuser, help="Who does it (default: the user name)."
)
reason_option = click.option("--reason", required=True, help="Why: it is kept with the move.")
_POLICY_COLUMNS = (
    Column("version", "version", "count"),
    Column("name", "name"),
    Column("state", "state"),
    Column("measure", "measure"),
    Column("unit", "unit"),
    Column("proposer", "proposer"),
    Column("created_at_us", "proposed (UTC)", "time"),
)


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
    test, trials, proposed_version}.
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


@click.group()
def policy() -> None:
    """Routing policies: propose, judge, publish, roll back."""


@policy.command("list")
@reads
def list_policies(client: ApiClient, as_json: bool) -> None:
    """The versions, newest first. JSON: {"rows": [...], "next": null}."""
    answer = client.get("/v1/policies")
    if as_json:
        return print_json(answer)
    print_rows(answer["rows"], _POLICY_COLUMNS, "No policies yet: `turnwise policy propose FILE`.")
    return None


@policy.command("show")
@click.argument("version", type=int)
@reads
def show_policy(client: ApiClient, version: int, as_json: bool) -> None:
    """One version: the document, each rule's reach, the gate's checks and every transition.

    JSON: {version, name, digest, state, proposer, created_at_us, run_id, parent_version,
    review_cycle, measure, unit, words, document, transitions, gate, reach,
    reach_words}.
    """
    answer = client.get(f"/v1/policies/{version}")
    if as_json:
        return print_json(answer)
    print_lines(
        f"version {answer['version']}  {answer['name']}  {answer['state']}", *answer["words"]
    )
    print_lines("")
    print_rows(answer["reach"], REACH_COLUMNS, "")
    print_lines("", *answer["reach_words"])
    if answer["gate"]:
        print_lines("", *answer["gate"]["lines"])
    print_lines("")
    for move in answer["transitions"]:
        when = show(move["at_us"], "time")
        print_lines(f"{when}  {move['from']} → {move['to']}  by {move['actor']}: {move['reason']}")
    return None


@policy.command("reach")
@reads
def classic_reach(client: ApiClient, as_json: bool) -> None:
    """What the classic policy (under 10K input tokens to claude-haiku-4-5) would match.

    Under each measure of input size, before it is proposed (optimizers/classic_policy.json).
    JSON: {"rows": [{rule_id, measure, turns, turn_share, cost_share, ...}], "next": null, "words"}.
    """
    answer = client.get("/v1/reach")
    if as_json:
        return print_json(answer)
    print_rows(answer["rows"], REACH_COLUMNS, "")
    print_lines("", *answer["words"])
    return None


@policy.command("diff")
@click.argument("before", type=int)
@click.argument("after", type=int)
@reads
def diff_policies(client: ApiClient, before: int, after: int, as_json: bool) -> None:
    """What changes between two versions, in words. JSON: {from, to, words, documents}."""
    answer = client.get(f"/v1/policies/{before}...{after}")
    if as_json:
        return print_json(answer)
    print_lines(*answer["words"])
    return None


@policy.command("propose")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@actor_option
@reads
def propose_policy(client: ApiClient, file: Path, actor: str, as_json: bool) -> None:
    """Propose the policy document in FILE as a new version.

    JSON: the version, as `policy show`.
    """
    try:
        document = json.loads(file.read_text())
    except ValueError as error:
        raise BadInput(f"{file} holds no JSON.", why=str(error)) from error
    answer = client.post("/v1/policies", {"policy": document, "actor": actor})
    if as_json:
        return print_json(answer)
    print_lines(f"Version {answer['version']} is proposed: judge it with `turnwise policy gate`.")
    return None


@policy.command("gate")
@click.argument("version", type=int)
@reads
def gate_policy(client: ApiClient, version: int, as_json: bool) -> None:
    """Judge a proposed version against the written limits.

    Exits with 0 when it passed, 1 when it failed, 5 when inconclusive, 4 on an error. JSON:
    {policy_digest, verdict, checks, lines}, a check {name, value, limit, verdict, reason}.
    """
    answer = client.post(f"/v1/policies/{version}/gate")
    if as_json:
        print_json(answer)
    else:
        print_lines(*answer["lines"])
    raise click.exceptions.Exit({"passed": 0, "failed": 1, "error": 4}.get(answer["verdict"], 5))


def _move(verb: str, doc: str) -> click.Command:
    @click.argument("version", type=int)
    @click.option("--cycle", "review_cycle", type=int, help="The review cycle that you looked at.")
    @reason_option
    @actor_option
    @reads
    def command(client: ApiClient, version: int, as_json: bool, **options: Any) -> None:
        answer = client.post(f"/v1/policies/{version}/{verb}", options)
        if as_json:
            return print_json(answer)
        print_lines(f"Version {version} is now {answer['state'].replace('_', ' ')}.")
        return None

    command.__doc__ = f"{doc}\n\nJSON: the version, as `policy show`."
    return click.command(verb)(command)


for _verb, _doc in {
    "submit": "Hand a version that the gate did not fail to review.",
    "approve": "Approve a version under review. Not for its proposer.",
    "reject": "Reject a version under review.",
    "publish": "Start the rollout of an approved version: its first canary stage.",
    "rollback": "Take a version out of service now: the stable one serves all again.",
}.items():
    policy.add_command(_move(_verb, _doc))


@policy.command("explore")
@click.argument("arms", nargs=-1, required=True, metavar="VERSION=SHARE...")
@reason_option
@actor_option
@reads
def explore(
    client: ApiClient, arms: tuple[str, ...], reason: str, actor: str, as_json: bool
) -> None:
    """Randomise whole policies over sessions, so that the log can answer for them.

    Each approved VERSION gets its SHARE of sessions (0.3 is 30 %); the active version keeps the
    rest. JSON: {"serial", "arms": [{name, weight, policy_version}]}, weights in 1/10,000.
    """
    shares = dict(_share(arm) for arm in arms)
    if len(shares) < len(arms):
        raise BadInput("A version may have one arm only.")
    answer = client.post("/v1/explorations", {"arms": shares, "reason": reason, "actor": actor})
    if as_json:
        return print_json(answer)
    columns = [
        Column("name", "arm"),
        Column("policy_version", "version", "count"),
        Column("share", "of sessions", "share"),
    ]
    rows = [arm | {"share": arm["weight"] / BUCKETS} for arm in answer["arms"]]
    print_rows(rows, columns, "")
    talk.print(f"Published as serial {answer['serial']}.")
    return None


def _share(arm: str) -> tuple[str, float]:
    version, _, share = arm.partition("=")
    try:
        return version, float(share)
    except ValueError as error:
        raise BadInput(f"{arm!r} is no arm.", fix="Write VERSION=SHARE, as in 3=0.2.") from error


@click.group()
def rollout() -> None:
    """Canaries under watch."""


@rollout.command("status")
@click.argument("rollout_id", required=False)
@reads
def rollout_status(client: ApiClient, rollout_id: str | None, as_json: bool) -> None:
    """One rollout (the newest if none is named): stage, numbers and the verdict in a sentence.

    JSON: {rollout_id, channel, version, stable_version, state, finished, stage, canary_weights,
    sentence, step, plan, started_by, started_at_us, stage_started_at_us, ended_at_us, end_reason,
    completed_at_us, looked_at_us, gateways, report, log, rollback_complete}.
    """
    answer = client.get(f"/v1/rollouts/{rollout_id or 'latest'}")
    if as_json:
        return print_json(answer)
    _print_rollout(answer)
    return None


@rollout.command("list")
@reads
def list_rollouts(client: ApiClient, as_json: bool) -> None:
    """The rollouts, newest first. JSON: {"rows": [...], "next": null}."""
    answer = client.get("/v1/rollouts")
    if as_json:
        return print_json(answer)
    columns = [
        Column("rollout_id", "rollout"),
        Column("version", "version", "count"),
        Column("state", "state"),
        Column("sentence", "verdict"),
    ]
    print_rows(answer["rows"], columns, "No rollouts yet: `turnwise policy publish VERSION`.")
    return None


@rollout.command("watch")
@click.argument("rollout_id", required=False)
@click.option("--every", type=float, default=2.0, show_default=True, help="Seconds between looks.")
@reads
def watch_rollout(client: ApiClient, rollout_id: str | None, every: float, as_json: bool) -> None:
    """Follow a rollout until it ends: a line for each change.

    JSON: one object a line, each as `rollout status`.
    """
    shown = ""
    while True:
        answer = client.get(f"/v1/rollouts/{rollout_id or 'latest'}")
        rollout_id = answer["rollout_id"]
        line = json.dumps(answer) if as_json else f"{answer['state']}  {answer['sentence']}"
        if line != shown:
            print_lines(line)
            shown = line
        if answer["finished"]:
            return
        time.sleep(every)


def _steer(verb: str, doc: str) -> click.Command:
    @click.argument("rollout_id")
    @reason_option
    @actor_option
    @reads
    def command(client: ApiClient, rollout_id: str, as_json: bool, **options: Any) -> None:
        answer = client.post(f"/v1/rollouts/{rollout_id}/{verb}", options)
        if as_json:
            return print_json(answer)
        _print_rollout(answer)
        return None

    command.__doc__ = f"{doc}\n\nJSON: the rollout, as `rollout status`."
    return click.command(verb)(command)


for _verb, _doc in {
    "pause": "Hold a rollout at its stage.",
    "resume": "Let a paused rollout go on.",
    "rollback": "End a rollout now: the stable version serves all again.",
}.items():
    rollout.add_command(_steer(_verb, _doc))


def _print_rollout(answer: dict[str, Any]) -> None:
    print_lines(
        f"rollout {answer['rollout_id']}  version {answer['version']}  {answer['state']}",
        answer["sentence"],
    )
