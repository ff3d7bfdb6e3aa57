"""``turnwise intake``, ``conflict`` and ``quarantine``: what came in and what became of it."""

from __future__ import annotations

from typing import Any

import click

from loop.service.api_client import ApiClient
from loop.service.commands import reads
from loop.service.printing import Column, print_json, print_lines, print_rows, show

_GROUPINGS = ("source", "hour", "day", "hour,source")


@click.command()
@click.option("--by", type=click.Choice(_GROUPINGS), default="source", help="What to count by.")
@click.option("--since", metavar="DAY", help="First day (YYYY-MM-DD).")
@click.option("--until", metavar="DAY", help="Day after the last.")
@reads
def intake(client: ApiClient, by: str, since: str | None, until: str | None, as_json: bool) -> None:
    """What was received, and what became of it, to the record.

    Received = stored + duplicates + conflicts + rejected. Exits with 1 when that does not hold.
    JSON: {"rows": [...], "next": null, "total": {received, stored, duplicates, conflicts, rejected,
    bodies, bodies_quarantined, bodies_refused, balanced}}.
    """
    answer = client.get("/v1/intake", by=by, since=since, until=until)
    if as_json:
        print_json(answer)
    else:
        own = {
            "source": [
                Column("kind", "kind"),
                Column("content_type", "encoding"),
                Column("credential", "credential"),
            ],
            "hour": [Column("hour_us", "hour", "time")],
            "day": [Column("day", "day")],
        }
        counts = ("received", "stored", "duplicates", "conflicts")
        columns = [
            *(column for part in by.split(",") for column in own[part]),
            *(Column(name, name, "count") for name in counts),
            Column("rejected", "rejected"),
            Column("bodies_quarantined", "quarantined"),
            Column("bodies_refused", "refused"),
        ]
        rows = [_with_reasons(row) for row in answer["rows"]]
        print_rows(rows, columns, "Nothing was received yet.")
        if not answer["total"]["balanced"]:
            print_lines("What was received does not equal what became of it.")
    if not answer["total"]["balanced"]:
        raise click.exceptions.Exit(1)


def _with_reasons(row: dict[str, Any]) -> dict[str, Any]:
    told = {
        name: ", ".join(f"{count} {reason}" for reason, count in row[name].items()) or "–"
        for name in ("rejected", "bodies_quarantined", "bodies_refused")
    }
    return row | told


@click.group()
def conflict() -> None:
    """Records of one identity that say different things. All are kept; one rules."""


@conflict.command("list")
@click.option("--since", metavar="DAY", help="First day of notice (default: 30 days ago).")
@reads
def list_conflicts(client: ApiClient, since: str | None, as_json: bool) -> None:
    """The conflicts, the latest first. JSON: {"rows": [...], "next": null}."""
    answer = client.get("/v1/conflicts", since=since)
    if as_json:
        return print_json(answer)
    columns = [
        Column("conflict_id", "conflict"),
        Column("session_id", "session"),
        Column("name", "record"),
        Column("versions", "versions", "count"),
        Column("tokens", "tokens (the first rules)"),
        Column("differs_in", "differs in"),
    ]
    print_rows(answer["rows"], columns, "No records disagree.")
    return None


@conflict.command("show")
@click.argument("conflict_id")
@reads
def show_conflict(client: ApiClient, conflict_id: str, as_json: bool) -> None:
    """One conflict: what its records say differently, and which one rules.

    JSON: the fields of `conflict list` and records: [{event_id, rules, at_us, received_at_us,
    credential, tokens, attributes}], the one that rules first.
    """
    answer = client.get(f"/v1/conflicts/{conflict_id}")
    if as_json:
        return print_json(answer)
    print_lines(f"{answer['name']} of session {answer['session_id']}", "")
    for record in answer["records"]:
        word = "rules" if record["rules"] else "kept"
        received = show(record["received_at_us"], "time")
        sender = record["credential"] or "no credential"
        print_lines(f"{word}: {record['event_id']}  received {received} from {sender}")
        for name, value in record["attributes"].items():
            print_lines(f"    {name} = {value}")
    return None


@click.group()
def quarantine() -> None:
    """What could not be stored, set aside with the reason."""


@quarantine.command("list")
@reads
def list_quarantine(client: ApiClient, as_json: bool) -> None:
    """Everything set aside, the oldest first.

    JSON: {"rows": [{name, kind, reason, at_us, bytes, session_id, credential, received_at_us}],
    "next": null, "bytes", "max_bytes"}.
    """
    answer = client.get("/v1/quarantine")
    if as_json:
        return print_json(answer)
    columns = [
        Column("name", "entry"),
        Column("kind", "kind"),
        Column("at_us", "set aside", "time"),
        Column("bytes", "bytes", "count"),
        Column("reason", "reason"),
    ]
    print_rows(answer["rows"], columns, "Nothing is set aside.")
    if answer["rows"]:
        most = f" of at most {answer['max_bytes']:,}" if answer["max_bytes"] else ""
        print_lines(f"{answer['bytes']:,}{most} bytes")
    return None


@quarantine.command("show")
@click.argument("name")
@reads
def show_quarantined(client: ApiClient, name: str, as_json: bool) -> None:
    """One entry: why it is there, what its records are, and the file that keeps them.

    The bodies themselves may hold secrets: only the service's user can read the file.
    JSON: {name, kind, reason, at_us, bytes, session_id, credential, received_at_us, damage, path,
    records: [{kind, content_type, credential, received_at_us, bytes}]}.
    """
    answer = client.get(f"/v1/quarantine/{name}")
    if as_json:
        return print_json(answer)
    print_lines(f"{answer['name']} ({answer['kind']})", answer["reason"])
    if answer["path"]:
        print_lines(f"kept in {answer['path']}, {answer['bytes']:,} bytes")
    for record in answer["records"]:
        received = show(record["received_at_us"], "time")
        print_lines(
            f"  {record['kind']} as {record['content_type']}, {record['bytes']:,} bytes, received "
            f"{received} from {record['credential'] or 'no credential'}"
        )
    return None


@quarantine.command("replay")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every entry.")
@reads
def replay(client: ApiClient, names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Take entries in once more, as after a fix. What is stored then leaves the quarantine.

    Doing so twice stores nothing twice. Exits with 1 when an entry stays.

    JSON: {"rows": [{name, outcome, reason}], "next": null}; outcome is stored, quarantined or
    waiting.
    """
    answer = client.post("/v1/quarantine/replay", _chosen(names, everything))
    if as_json:
        print_json(answer)
    else:
        columns = [Column("name", "entry"), Column("outcome", "now"), Column("reason", "reason")]
        print_rows(answer["rows"], columns, "Nothing to replay.")
    if any(row["outcome"] == "quarantined" for row in answer["rows"]):
        raise click.exceptions.Exit(1)


@quarantine.command("drop")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every entry.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@reads
def drop(
    client: ApiClient, names: tuple[str, ...], everything: bool, yes: bool, as_json: bool
) -> None:
    """Delete entries for good. JSON: {"rows": [{name}], "next": null}."""
    chosen = _chosen(names, everything)
    if not yes:
        what = "every entry" if everything else f"{len(names)} entries"
        click.confirm(f"Delete {what} of the quarantine for good?", abort=True, err=True)
    answer = client.post("/v1/quarantine/drop", chosen)
    if as_json:
        return print_json(answer)
    print_lines(f"{len(answer['rows'])} entries deleted.")
    return None


def _chosen(names: tuple[str, ...], everything: bool) -> dict[str, Any]:
    if bool(names) == everything:
        raise click.UsageError("Name entries, or give --all.")
    return {"all": True} if everything else {"names": list(names)}
