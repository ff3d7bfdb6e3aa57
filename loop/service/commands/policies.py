"""``turnwise policy``: versions, their gate and their moves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from loop.domain.errors import BadInput
from loop.domain.policies import BUCKETS
from loop.service.api_client import ApiClient
from loop.service.commands import actor_option, reads, reason_option
from loop.service.commands.replays import REACH_COLUMNS
from loop.service.printing import Column, print_json, print_lines, print_rows, show, talk

_POLICY_COLUMNS = (
    Column("version", "version", "count"),
    Column("name", "name"),
    Column("state", "state"),
    Column("measure", "measure"),
    Column("unit", "unit"),
    Column("proposer", "proposer"),
    Column("created_at_us", "proposed (UTC)", "time"),
)


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
    document = _read_object(file)
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
    "rollback": "Take a version out of service now: the stable one serves all again.",
}.items():
    policy.add_command(_move(_verb, _doc))


@policy.command("publish")
@click.argument("version", type=int)
@click.option(
    "--plan",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A JSON file with the plan's fields that differ from the settings (docs/rollouts.md).",
)
@click.option(
    "--override-quarantine",
    is_flag=True,
    help="Start it although its document is in quarantine or the channel is frozen.",
)
@reason_option
@actor_option
@reads
def publish_policy(
    client: ApiClient, version: int, plan: Path | None, as_json: bool, **options: Any
) -> None:
    """Start the rollout of an approved version: its first canary stage.

    JSON: the version, as `policy show`.
    """
    if plan is not None:
        options["plan"] = _read_object(plan)
    answer = client.post(f"/v1/policies/{version}/publish", options)
    if as_json:
        return print_json(answer)
    print_lines(f"Version {version} is now {answer['state'].replace('_', ' ')}.")
    return None


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


def _read_object(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise BadInput(f"{file} holds no JSON.", why=str(error)) from error


def _share(arm: str) -> tuple[str, float]:
    version, _, share = arm.partition("=")
    try:
        return version, float(share)
    except ValueError as error:
        raise BadInput(f"{arm!r} is no arm.", fix="Write VERSION=SHARE, as in 3=0.2.") from error
