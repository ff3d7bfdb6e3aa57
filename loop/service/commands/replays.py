"""``turnwise replay``: what a policy would have cost on the logged turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from loop.domain.errors import BadInput
from loop.service.api_client import ApiClient
from loop.service.commands import reads
from loop.service.printing import Column, print_json, print_lines, print_rows, show

REACH_COLUMNS = (
    Column("rule_id", "rule"),
    Column("measure", "measure of input size"),
    Column("turns", "turns", "count"),
    Column("turn_share", "of turns", "share"),
    Column("session_share", "of sessions", "share"),
    Column("token_share", "of tokens", "share"),
    Column("cost_share", "of dollars", "share"),
)
_CALIBRATION_COLUMNS = (
    Column("model", "served model"),
    Column("request_class", "class"),
    Column("requests", "requests", "count"),
    Column("billed_cost_microusd", "billed", "money"),
    Column("modelled_cost_microusd", "modelled", "money"),
    Column("residual", "residual", "share"),
    Column("reads_close_share", "reads right", "share"),
    Column("cost_close_share", "cost right", "share"),
)


@click.group()
def replay() -> None:
    """What a policy would have cost on the logged turns, prompt caches included."""


@replay.command("policy")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@reads
def replay_policy(client: ApiClient, file: Path, as_json: bool) -> None:
    """Replay the policy document in FILE, without proposing it.

    Ends in an error, not in a number, for a model without a price and for a log without turns.
    JSON: {sessions, turns, logged_cost_microusd, incumbent_cost_microusd,
    candidate_cost_microusd, naive_cost_microusd, saving_share, naive_saving_share,
    rerouted_turns, altered_turns, unpriced_turns, too_long_turns, modelled_cost_microusd,
    calibration_residual, reach, reach_words, output_lengths, length_words, policy_digest}.
    """
    try:
        document = json.loads(file.read_text())
    except ValueError as error:
        raise BadInput(f"{file} holds no JSON.", why=str(error)) from error
    answer = client.post("/v1/replay", {"policy": document})
    if as_json:
        return print_json(answer)
    print_lines(*_replay_lines(answer), "")
    print_rows(answer["reach"], REACH_COLUMNS, "")
    print_lines("", *answer["reach_words"])
    return None


@replay.command("calibration")
@reads
def show_calibration(client: ApiClient, as_json: bool) -> None:
    """How far the replay's cache model is off the bill, by served model and request class.

    JSON: {"rows": [{model, request_class, requests, billed_cost_microusd, modelled_cost_microusd,
    residual, logged_cache_read_tokens, modelled_cache_read_tokens, logged_cache_write_tokens,
    modelled_cache_write_tokens, reads_close_share, cost_close_share}], "next": null, "as_served":
    {billed_cost_microusd, replayed_cost_microusd}, "words"}; as_served is null without turns.
    """
    answer = client.get("/v1/replay/calibration")
    if as_json:
        return print_json(answer)
    print_rows(answer["rows"], _CALIBRATION_COLUMNS, "There are no turns yet.")
    if answer["as_served"]:
        print_lines("", as_served_line(answer["as_served"]))
    return None


def as_served_line(as_served: dict[str, int]) -> str:
    """The replay of the models as served, beside the bill."""
    return (
        f"The models as served replay to {show(as_served['replayed_cost_microusd'], 'money')}; "
        f"billed were {show(as_served['billed_cost_microusd'], 'money')}."
    )


def _replay_lines(answer: dict[str, Any]) -> list[str]:
    left_out = []
    if answer["too_long_turns"]:
        left_out.append(f"{answer['too_long_turns']:,} do not fit the model they would go to")
    if unpriced := answer["unpriced_turns"] - answer["too_long_turns"]:
        left_out.append(f"{unpriced:,} have no price")
    lines = [
        f"sessions {answer['sessions']:,}, turns {answer['turns']:,}, "
        f"rerouted {answer['rerouted_turns']:,}, priced by the cache model "
        f"{answer['altered_turns']:,}",
        f"cost     {show(answer['incumbent_cost_microusd'], 'money')} → "
        f"{show(answer['candidate_cost_microusd'], 'money')} "
        f"(saving {show(answer['saving_share'], 'share')}; a replay that ignores the cache "
        f"would say {show(answer['naive_saving_share'], 'share')})",
        "the cache model on the logged routes is "
        f"{show(answer['calibration_residual'], 'share')} off the bill",
    ]
    lines += [f"length   {line}" for line in answer["length_words"]]
    if left_out:
        lines.append(f"left out on both sides: of the turns, {'; '.join(left_out)}")
    return lines
