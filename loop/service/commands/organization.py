"""``turnwise org``: the organization, its developers, content modes and attribution rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from loop.domain.content_modes import CONTENT_MODES
from loop.domain.errors import BadInput
from loop.domain.organization import KINDS
from loop.domain.organization_csv import NODE_COLUMNS, write_csv
from loop.service.access_desk import INHERIT
from loop.service.api_client import ApiClient
from loop.service.commands import actor_option, reads
from loop.service.commands.tokens import why_option
from loop.service.printing import Column, print_json, print_lines, print_rows, show, talk

effective_option = click.option(
    "--effective", metavar="DAY", help="First day it holds, YYYY-MM-DD (UTC; default: today)."
)
past_option = click.option(
    "--allow-past",
    is_flag=True,
    help="Let it hold from a past day: recorded, and turns since then are attributed anew.",
)
dry_option = click.option("--dry-run", is_flag=True, help="Only say what would change.")
file_argument = click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))


def changes(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that changes the organization."""
    for option in (dry_option, past_option, effective_option, why_option, actor_option):
        command = option(command)
    return command


@click.group()
def org() -> None:
    """The organization: who is charged, from which day on."""


@org.command("list")
@click.option("--day", help="As of this day, YYYY-MM-DD (UTC; default: today).")
@reads
def list_nodes(client: ApiClient, day: str | None, as_json: bool) -> None:
    """The nodes in force on a day. JSON: {"rows": [...], "day", "next": null}."""
    answer = client.get("/v1/org", day=day)
    if as_json:
        return print_json(answer)
    columns = [
        Column("path", "path"),
        Column("node_id", "node"),
        Column("kind", "kind"),
        Column("owner", "owner"),
        Column("valid_from", "since"),
    ]
    print_rows(answer["rows"], columns, "No organization yet: `turnwise org import FILE`.")
    return None


@org.command("show")
@click.argument("node_id")
@reads
def show_node(client: ApiClient, node_id: str, as_json: bool) -> None:
    """What was and will be said of a node. JSON: {"node_id", "spans", "paths"}."""
    answer = client.get(f"/v1/org/nodes/{node_id}")
    if as_json:
        return print_json(answer)
    columns = [Column("path", "path"), Column("valid_from", "from"), Column("valid_to", "until")]
    print_rows(answer["paths"], columns, "It never was in force.")
    return None


@org.command("export")
@click.option("--day", help="As of this day, YYYY-MM-DD (UTC; default: today).")
@reads
def export_nodes(client: ApiClient, day: str | None, as_json: bool) -> None:
    """The nodes in force on a day as CSV, as `org import` reads it. JSON: as `org list`."""
    answer = client.get("/v1/org", day=day)
    if as_json:
        return print_json(answer)
    rows = [[row[name] for name in NODE_COLUMNS] for row in answer["rows"]]
    print_lines(write_csv(NODE_COLUMNS, rows).rstrip("\n"))
    return None


@org.command("import")
@file_argument
@changes
@reads
def import_nodes(client: ApiClient, file: Path, as_json: bool, **options: Any) -> None:
    """Add or change the nodes of a CSV file: node_id,name,kind,parent_id,owner.

    Nodes that the file does not name stay. JSON: {"changes", "dry_run", "attributed"}.
    """
    _print_changes(client.post("/v1/org", options | {"csv": _read(file)}), as_json=as_json)


@org.command("add")
@click.argument("node_id")
@click.option("--name", required=True, help="Its name in paths.")
@click.option("--kind", required=True, type=click.Choice(KINDS), help="What it is.")
@click.option("--parent", "parent_id", default="", help="Node it lies under; none for an org.")
@click.option("--owner", default="", help="Who answers for it.")
@changes
@reads
def add_node(client: ApiClient, node_id: str, as_json: bool, **options: Any) -> None:
    """Add one node. JSON: {"changes", "dry_run", "attributed"}."""
    _change(client, node_id, "add", options, as_json=as_json)


@org.command("move")
@click.argument("node_id")
@click.option("--under", "parent_id", required=True, help="Its new parent.")
@changes
@reads
def move_node(client: ApiClient, node_id: str, as_json: bool, **options: Any) -> None:
    """Move a node with all below it; days before stay as they were charged.

    JSON: {"changes", "dry_run", "attributed"}.
    """
    _change(client, node_id, "move", options, as_json=as_json)


@org.command("rename")
@click.argument("node_id")
@click.argument("name")
@changes
@reads
def rename_node(client: ApiClient, node_id: str, as_json: bool, **options: Any) -> None:
    """Give a node another name from a day on. JSON: {"changes", "dry_run", "attributed"}."""
    _change(client, node_id, "rename", options, as_json=as_json)


@org.command("assign")
@click.argument("node_id")
@click.argument("owner")
@changes
@reads
def assign_node(client: ApiClient, node_id: str, as_json: bool, **options: Any) -> None:
    """Give a node another owner from a day on. JSON: {"changes", "dry_run", "attributed"}."""
    _change(client, node_id, "assign", options, as_json=as_json)


@org.command("close")
@click.argument("node_id")
@changes
@reads
def close_node(client: ApiClient, node_id: str, as_json: bool, **options: Any) -> None:
    """End a node before a day; nothing may hang on it then.

    JSON: {"changes", "dry_run", "attributed"}.
    """
    _change(client, node_id, "close", options, as_json=as_json)


@org.group()
def developer() -> None:
    """The directory: which node a developer is in."""


@developer.command("list")
@reads
def list_developers(client: ApiClient, as_json: bool) -> None:
    """Who is where since when. JSON: {"rows": [{developer, node_id, from}], "next": null}."""
    answer = client.get("/v1/org/developers")
    if as_json:
        return print_json(answer)
    columns = [Column("developer", "developer"), Column("node_id", "node"), Column("from", "from")]
    print_rows(answer["rows"], columns, "No developers yet: `turnwise org developer import FILE`.")
    return None


@developer.command("import")
@file_argument
@changes
@reads
def import_developers(client: ApiClient, file: Path, as_json: bool, **options: Any) -> None:
    """Put developers into nodes by a CSV file: developer,node_id,from.

    A developer is an e-mail address or an id as the client states it; an empty node_id takes one
    out. JSON: {"changes", "dry_run", "attributed"}.
    """
    answer = client.post("/v1/org/developers", options | {"csv": _read(file)})
    _print_changes(answer, as_json=as_json)


@org.command("unattributed")
@click.option("--since", metavar="DAY", help="Only turns from this day on, YYYY-MM-DD (UTC).")
@reads
def show_unattributed(client: ApiClient, since: str | None, as_json: bool) -> None:
    """What nobody is charged for, and the values that could say who it is.

    JSON: {"turns", "sessions", "sessions_looked_at", "cost_microusd", "rows", "next": null}.
    """
    answer = client.get("/v1/org/unattributed", since=since)
    if as_json:
        return print_json(answer)
    print_lines(
        f"{answer['turns']:,} turns of {answer['sessions']:,} sessions, "
        f"{show(answer['cost_microusd'], 'money')}, are charged to nobody.",
        "",
    )
    columns = [
        Column("attribute", "attribute"),
        Column("value", "value"),
        Column("turns", "turns", "count"),
        Column("sessions", "sessions", "count"),
        Column("cost_microusd", "cost", "money"),
    ]
    print_rows(answer["rows"], columns, "Nothing in the records says who it is.")
    return None


@org.command("records")
@reads
def list_records(client: ApiClient, as_json: bool) -> None:
    """Every change of who may do what and who is charged, after checking its hash chain.

    JSON: {"rows": [...], "next": null}.
    """
    answer = client.get("/v1/org/records")
    if as_json:
        return print_json(answer)
    columns = [
        Column("sequence", "number", "count"),
        Column("at_us", "at (UTC)", "time"),
        Column("verb", "change"),
        Column("subject", "of"),
        Column("actor", "by"),
        Column("reason", "reason"),
    ]
    print_rows(answer["rows"], columns, "Nothing was changed yet.")
    return None


@org.group("content-mode")
def content_mode() -> None:
    """What is stored of texts, by node: all, no personal data, hashes, nothing."""


@content_mode.command("show")
@reads
def show_content_modes(client: ApiClient, as_json: bool) -> None:
    """The mode of each node today and where it comes from: a node or the settings.

    JSON: {"rows": [...], "day", "default", "next": null}.
    """
    answer = client.get("/v1/org/content-modes")
    if as_json:
        return print_json(answer)
    columns = [
        Column("path", "path"),
        Column("node_id", "node"),
        Column("mode", "mode"),
        Column("mode_from", "from"),
    ]
    print_rows(answer["rows"], columns, f"No organization: all is stored as {answer['default']}.")
    return None


@content_mode.command("set")
@click.argument("node_id")
@click.argument("mode", type=click.Choice([*CONTENT_MODES, INHERIT]))
@why_option
@actor_option
@reads
def set_content_mode(client: ApiClient, as_json: bool, **options: Any) -> None:
    """Say what is stored of texts of a node and of those below it that say nothing themselves.

    `inherit` takes the node's own mode away. Running collectors follow within seconds; what is
    stored already stays. JSON: {"node_id", "changed", "mode", "mode_from"}.
    """
    answer = client.post("/v1/org/content-modes", options)
    if as_json:
        return print_json(answer)
    change = "is stored as" if answer["changed"] else "was stored already as"
    print_lines(f"{answer['node_id']} {change} {answer['mode']}, from {answer['mode_from']}.")
    return None


@org.group()
def rule() -> None:
    """Rules that resolve what is unattributed."""


@rule.command("list")
@reads
def list_rules(client: ApiClient, as_json: bool) -> None:
    """The rules in the order in which they are asked. JSON: {"rows": [...], "next": null}."""
    answer = client.get("/v1/org/rules")
    if as_json:
        return print_json(answer)
    columns = [Column("rule_id", "rule", "count"), Column("words", "says")]
    print_rows(answer["rows"], columns, "No rules yet: `turnwise org rule add`.")
    return None


@rule.command("add")
@click.option(
    "--match",
    "conditions",
    multiple=True,
    required=True,
    metavar="ATTRIBUTE=PATTERN",
    help="A condition, such as user.email_domain=acme.example or cwd=*/shop; all must match.",
)
@click.option("--node", "node_id", default="", help="Node that is charged.")
@click.option("--developer", default="", help="Developer that it is.")
@click.option("--repository", default="", help="Repository that it is.")
@click.option("--from", "valid_from", metavar="DAY", help="First day (UTC; default: today).")
@dry_option
@why_option
@actor_option
@reads
def add_rule(
    client: ApiClient,
    conditions: tuple[str, ...],
    valid_from: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Resolve what is unattributed; past turns since the rule's day are attributed anew.

    JSON: the rule with "words", "sessions", "turns", "cost_microusd" and "rows".
    """
    match = {}
    for condition in conditions:
        name, separator, pattern = condition.partition("=")
        if not separator:
            raise BadInput(f"{condition!r} is no condition.", fix="Write ATTRIBUTE=PATTERN.")
        match[name.strip()] = pattern.strip()
    document = options | {"match": match} | ({"valid_from": valid_from} if valid_from else {})
    answer = client.post("/v1/org/rules", document)
    if as_json:
        return print_json(answer)
    print_lines(
        answer["words"],
        f"It {'would resolve' if options['dry_run'] else 'resolves'} {answer['turns']:,} turns of "
        f"{answer['sessions']:,} sessions, {show(answer['cost_microusd'], 'money')}.",
    )
    columns = [
        Column("org_path", "org path"),
        Column("developer", "developer"),
        Column("repository", "repository"),
        Column("turns", "turns", "count"),
        Column("cost_microusd", "cost", "money"),
    ]
    print_rows(answer["rows"], columns, "No turn so far matches it.")
    return None


@rule.command("end")
@click.argument("rule_id", type=int)
@past_option
@effective_option
@why_option
@actor_option
@reads
def end_rule(client: ApiClient, rule_id: int, as_json: bool, **options: Any) -> None:
    """End a rule before a day. JSON: the rule."""
    answer = client.post(f"/v1/org/rules/{rule_id}/end", options)
    if as_json:
        return print_json(answer)
    print_lines(answer["words"])
    return None


def _change(
    client: ApiClient, node_id: str, verb: str, options: dict[str, Any], *, as_json: bool
) -> None:
    answer = client.post(f"/v1/org/nodes/{node_id}/{verb}", options)
    _print_changes(answer, as_json=as_json)


def _print_changes(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    print_lines(*(answer["changes"] or ["Nothing changes."]))
    if answer["changes"] and not answer["dry_run"] and not answer["attributed"]:
        talk.print("The server attributes the turns since then anew within seconds.")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} can't be read.", why=str(error)) from error
