"""``turnwise lake retention``: how long rows are kept, and the removal of those past that."""

from __future__ import annotations

import click

from loop.domain.retention import RULE_KINDS
from loop.service.api_client import ApiClient
from loop.service.commands import actor_option, reads
from loop.service.commands.lake import say_dry_run, watch, yes_option
from loop.service.printing import Column, print_json, print_rows, talk


@click.group()
def retention() -> None:
    """How long rows are kept, by class; what is past that goes, but for legal holds."""


@retention.command()
@reads
def show(client: ApiClient, as_json: bool) -> None:
    """The classes, the rules that put sessions into them, and every change with its author.

    JSON: {classes, rules, is_written, unfinished, "rows": [{sequence, at_us, change, actor,
    reason, previous_hash, hash}], "next": null}.
    """
    answer = client.get("/v1/lake/retention")
    if as_json:
        return print_json(answer)
    classes = [{"class": name, "days": days} for name, days in sorted(answer["classes"].items())]
    print_rows(classes, [Column("class", "class"), Column("days", "days", "count")], "")
    columns = [
        Column("kind", "on"),
        Column("value", "value"),
        Column("class_name", "class"),
        Column("contents_class", "texts"),
    ]
    print_rows(answer["rules"], columns, "No rules: everything is of the class default.")
    if not answer["is_written"]:
        talk.print("Nobody has written a policy: nothing is removed.")
    for name in answer["unfinished"]:
        talk.print(f"{name} was cut off: `turnwise lake retention apply --yes` ends it.")
    return None


@retention.command("set")
@click.option("--class", "class_name", help="The class: with --days of so many, else of the rule.")
@click.option("--days", type=click.IntRange(1, 36_525), help="How long the class keeps rows.")
@click.option("--on", "kind", type=click.Choice(RULE_KINDS), help="A rule on this kind.")
@click.option("--value", default="", help="Which: a pattern of repositories, a path, a developer.")
@click.option("--contents-class", default="", help="Class of the texts, if theirs is shorter.")
@click.option("--end", is_flag=True, help="End the rule.")
@click.option("--reason", required=True, help="Why; kept with the change.")
@actor_option
@reads
def set_retention(
    client: ApiClient,
    class_name: str | None,
    days: int | None,
    kind: str | None,
    value: str,
    contents_class: str,
    end: bool,
    reason: str,
    actor: str,
    as_json: bool,
) -> None:
    """Set the days of a class, or put what a rule covers into one.

    \b
    turnwise lake retention set --class sox --days 2557 --reason "SOX 802"
    turnwise lake retention set --on repository --value 'acme/ledger*' --class sox \\
        --contents-class short --reason "audit"

    From the first change on, the server applies the policy every day. JSON: as `show`.
    """
    change: dict[str, object]
    if kind is None:
        if class_name is None or days is None or value or contents_class or end:
            raise click.UsageError("Give --class and --days, or a rule: --on, --value, --class.")
        change = {"class": class_name, "days": days}
    elif days is not None:
        raise click.UsageError("--days belong to a class; a rule names one.")
    elif end:
        change = {"kind": kind, "value": value, "end": True}
    else:
        change = {"kind": kind, "value": value, "class": class_name or ""}
        change["contents_class"] = contents_class
    document = {"change": change, "actor": actor, "reason": reason}
    answer = client.post("/v1/lake/retention", document)
    if as_json:
        return print_json(answer)
    talk.print(f"Change {len(answer['rows'])} is in force. `retention apply` shows what goes.")
    return None


@retention.command()
@yes_option
@reads
def apply(client: ApiClient, yes: bool, as_json: bool) -> None:
    """Remove the rows past their class's age, in every version. What is held stays.

    What was charged stays for finance: summed up, without developer and session. This can't be
    undone. JSON: {retention_id, dry_run, sessions, sessions_without_texts, held: [{hold_id,
    sessions}], "rows": [{table, class_name, rows, stripped, bytes, first_day, last_day}],
    "next": null}; stripped are events that lose their texts.
    """
    answer = watch(client, "/v1/lake/retention/apply", {"dry_run": not yes})
    if as_json:
        return print_json(answer)
    columns = [
        Column("table", "table"),
        Column("class_name", "class"),
        Column("rows", "rows", "count"),
        Column("stripped", "stripped", "count"),
        Column("bytes", "bytes", "count"),
        Column("first_day", "from"),
        Column("last_day", "to"),
    ]
    print_rows(answer["rows"], columns, "Nothing is past its age.")
    for row in answer["held"]:
        talk.print(f"{row['hold_id']} holds {row['sessions']} sessions that are past their age.")
    say_dry_run(answer)
    return None
