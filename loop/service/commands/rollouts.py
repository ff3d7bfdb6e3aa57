"""``turnwise rollout``: canaries, looked at and steered."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from loop.service.api_client import ApiClient
from loop.service.commands import actor_option, reads, reason_option
from loop.service.printing import Column, print_json, print_lines, print_rows


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
    completed_at_us, looked_at_us, gateways, report, log, rollback_complete, is_part}.
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
        line = json.dumps(answer) if as_json else _watch_line(answer)
        if line != shown:
            print_lines(line)
            shown = line
        if answer["finished"]:
            return
        time.sleep(every)


def _watch_line(answer: dict[str, Any]) -> str:
    lines = [f"{answer['state']}  {answer['sentence']}", *_gateway_lines(answer["gateways"])]
    return "\n  ".join(lines)


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


_GUARDRAIL_COLUMNS = (
    Column("name", "guardrail"),
    Column("kind", "kind"),
    Column("verdict", "verdict"),
    Column("action", "does"),
    Column("reason", "because"),
)


def _print_rollout(answer: dict[str, Any]) -> None:
    print_lines(
        f"rollout {answer['rollout_id']}  version {answer['version']}  {answer['state']}",
        answer["sentence"],
        *_gateway_lines(answer["gateways"]),
    )
    if answer["report"]:
        print_lines("")
        print_rows(answer["report"]["guardrails"], _GUARDRAIL_COLUMNS, "")


def _gateway_lines(gateways: dict[str, Any]) -> list[str]:
    """Who has not applied what must be in force, by name."""
    words = {
        "behind": "has not applied it yet",
        "rejected": "rejects it",
        "stale": "has gone silent, and may serve an earlier serial until that expires",
    }
    return [
        f"serial {gateways['serial']}: {instance} {words[kind]}"
        for kind in words
        for instance in gateways[kind]
    ]
