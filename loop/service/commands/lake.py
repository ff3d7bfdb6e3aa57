"""``turnwise lake``: what the tables hold, and keeping them."""

from __future__ import annotations

from typing import Any

import click

from loop.service.api_client import ApiClient
from loop.service.commands import actor_option, reads
from loop.service.printing import Column, print_json, print_lines, print_rows, talk

yes_option = click.option("--yes", is_flag=True, help="Do it. Without it: show what would be done.")
tables_option = click.option(
    "--table", "tables", multiple=True, help="Only this table (repeatable)."
)


@click.group()
def lake() -> None:
    """The tables: status, compaction, verification, restoring, erasing, legal holds."""


@lake.command()
@reads
def status(client: ApiClient, as_json: bool) -> None:
    """What each table holds, and what compaction has left to do.

    JSON: {"rows": [{table, version, files, rows, bytes, small_files, open_rows, old_files,
    old_bytes, oldest_day, newest_day, oldest_version, last_commit_at_us, last_compaction_at_us,
    last_vacuum_at_us, min_reader_version, min_writer_version, features}], policy,
    unfinished_erasures, "next": null}.
    """
    answer = client.get("/v1/lake")
    if as_json:
        return print_json(answer)
    columns = [
        Column("table", "table"),
        Column("version", "version", "count"),
        Column("files", "files", "count"),
        Column("small_files", "small", "count"),
        Column("rows", "rows", "count"),
        Column("open_rows", "open", "count"),
        Column("bytes", "bytes", "count"),
        Column("old_bytes", "old bytes", "count"),
        Column("oldest_day", "from"),
        Column("newest_day", "to"),
        Column("last_compaction_at_us", "compacted (UTC)", "time"),
    ]
    print_rows(answer["rows"], columns, "There are no tables yet.")
    for erasure in answer["unfinished_erasures"]:
        talk.print(f"{erasure} was cut off: `turnwise lake erase --resume --yes` ends it.")
    return None


@lake.command()
@tables_option
@reads
def compact(client: ApiClient, tables: tuple[str, ...], as_json: bool) -> None:
    """Join small files and settle days. Safe beside a running server.

    JSON: {"rows": [{table, files_saved}], "next": null}.
    """
    answer = watch(client, "/v1/lake/compact", {"tables": list(tables)})
    if as_json:
        return print_json(answer)
    columns = [Column("table", "table"), Column("files_saved", "files saved", "count")]
    print_rows(answer["rows"], columns, "There are no tables yet.")
    return None


@lake.command()
@tables_option
@reads
@click.pass_context
def verify(
    context: click.Context, client: ApiClient, tables: tuple[str, ...], as_json: bool
) -> None:
    """Read every file and compare it with what the tables' logs, and each other, say.

    Exit code 1 if anything is wrong. JSON: {"ok", "rows": [{table, what, file}], orphans,
    "next": null}; orphans are files that no version names: they do no harm.
    """
    answer = watch(client, "/v1/lake/verify", {"tables": list(tables)})
    if as_json:
        print_json(answer)
    else:
        columns = [
            Column("table", "table"),
            Column("what", "what is wrong"),
            Column("file", "file"),
        ]
        print_rows(answer["rows"], columns, "Nothing is wrong.")
        for name, files in answer["orphans"].items():
            talk.print(f"{name}: {len(files)} files that no version names")
    context.exit(0 if answer["ok"] else 1)


@lake.command()
@click.argument("table", default="")
@click.option("--version", type=click.IntRange(min=0), help="To this version of the TABLE.")
@click.option("--at", metavar="TIME", help="To what was newest then (ISO, UTC by default).")
@yes_option
@reads
def restore(
    client: ApiClient, table: str, version: int | None, at: str | None, yes: bool, as_json: bool
) -> None:
    """Make a TABLE (default: all, with --at) say again what it said before, as a new version.

    The versions in between stay, so a restore can be undone by another. What was erased can't come
    back. JSON: {dry_run, "rows": [{table, from_version, to_version, rows_now, rows_then,
    committed}], "next": null}.
    """
    document = {"table": table, "version": version, "at": at, "dry_run": not yes}
    answer = watch(client, "/v1/lake/restore", document)
    if as_json:
        return print_json(answer)
    columns = [
        Column("table", "table"),
        Column("from_version", "now at", "count"),
        Column("to_version", "to", "count"),
        Column("rows_now", "rows now", "count"),
        Column("rows_then", "rows then", "count"),
        Column("committed", "as version", "count"),
    ]
    print_rows(answer["rows"], columns, "There is nothing to restore.")
    say_dry_run(answer)
    return None


@lake.command()
@click.argument("developer", default="")
@click.option("--reason", default="", help="Why; kept, so it must not name the person.")
@click.option("--resume", is_flag=True, help="End erasures that were cut off.")
@actor_option
@yes_option
@reads
def erase(
    client: ApiClient,
    developer: str,
    reason: str,
    resume: bool,
    actor: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase one DEVELOPER for good: every row, in every version, in every table.

    What they were charged stays, without the person, under the developer `erased`. This can't be
    undone. JSON: {erasure_id, dry_run, sessions, "rows": [{table, rows, quotations,
    files_rewritten, old_files_deleted, version}], still_named_in, "next": null}.
    """
    if resume:
        answer = watch(client, "/v1/lake/erasures/resume", {"dry_run": not yes})
        if as_json:
            return print_json(answer)
        done = "cut off" if answer["dry_run"] else "ended"
        print_lines(*(f"{row['erasure_id']} {done}" for row in answer["rows"]))
        return say_dry_run(answer)
    document = {"developer": developer, "reason": reason, "actor": actor, "dry_run": not yes}
    answer = watch(client, "/v1/lake/erasures", document)
    if as_json:
        return print_json(answer)
    columns = [
        Column("table", "table"),
        Column("rows", "rows", "count"),
        Column("quotations", "quotations", "count"),
        Column("files_rewritten", "files rewritten", "count"),
        Column("old_files_deleted", "old files deleted", "count"),
    ]
    print_rows(answer["rows"], columns, "There are no tables yet.")
    talk.print(f"{answer['sessions']} sessions. {answer['erasure_id']}")
    for place in answer["still_named_in"]:
        talk.print(f"Still named in a setting: {place}. Remove it by the command that set it.")
    say_dry_run(answer)
    return None


@lake.group()
def hold() -> None:
    """Legal holds: what they cover can't be erased."""


@hold.command("add")
@click.argument("kind")
@click.argument("value")
@click.option("--reason", required=True, help="Why; it is kept with the hold.")
@actor_option
@reads
def add_hold(
    client: ApiClient, kind: str, value: str, reason: str, actor: str, as_json: bool
) -> None:
    """Hold what a KIND (developer, session, repository, org) of that VALUE covers.

    JSON: {hold_id, kind, value, reason, placed_by, placed_at_us, released_by, released_at_us}.
    """
    document = {"kind": kind, "value": value, "reason": reason, "actor": actor}
    answer = client.post("/v1/lake/holds", document)
    return print_json(answer) if as_json else print_lines(f"{answer['hold_id']} is in force.")


@hold.command("list")
@reads
def list_holds(client: ApiClient, as_json: bool) -> None:
    """All holds, the released ones too.

    JSON: {"rows": [{hold_id, kind, value, reason, placed_by, placed_at_us, released_by,
    released_at_us}], "next": null}.
    """
    answer = client.get("/v1/lake/holds")
    if as_json:
        return print_json(answer)
    columns = [
        Column("hold_id", "hold"),
        Column("kind", "on"),
        Column("value", "value"),
        Column("reason", "reason"),
        Column("placed_by", "by"),
        Column("placed_at_us", "since (UTC)", "time"),
        Column("released_at_us", "released (UTC)", "time"),
    ]
    print_rows(answer["rows"], columns, "There are no holds.")
    return None


@hold.command("release")
@click.argument("hold_id")
@actor_option
@reads
def release_hold(client: ApiClient, hold_id: str, actor: str, as_json: bool) -> None:
    """End a hold. It stays in the list, with who released it.

    JSON: {hold_id, kind, value, reason, placed_by, placed_at_us, released_by, released_at_us}.
    """
    answer = client.post(f"/v1/lake/holds/{hold_id}/release", {"actor": actor})
    return print_json(answer) if as_json else print_lines(f"{hold_id} is released.")


def watch(client: ApiClient, path: str, document: dict[str, Any]) -> dict[str, Any]:
    """Sends it and tells on stderr what it is at."""
    return client.watch(path, document, lambda step: talk.print(step), "/v1/lake/work")


def say_dry_run(answer: dict[str, Any]) -> None:
    if answer["dry_run"]:
        talk.print("Nothing was changed. Add --yes to do it.")
