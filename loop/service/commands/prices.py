"""``turnwise prices``: price books, and pricing anew."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from loop.domain.errors import BadInput
from loop.service.api_client import ApiClient
from loop.service.commands import actor_option, reads
from loop.service.printing import Column, print_json, print_lines, print_rows, show, talk

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show the difference, change nothing."
)
_LEFT_OUT_SHOWN = 15


@click.group()
def prices() -> None:
    """What tokens cost: versions of the price book, and pricing anew."""


@prices.command("list")
@reads
def list_books(client: ApiClient, as_json: bool) -> None:
    """Every price book that was in force, the newest first.

    JSON: {"rows": [{price_version, author, reason, at_us, digest}], "next": null}.
    """
    answer = client.get("/v1/prices")
    if as_json:
        return print_json(answer)
    columns = [
        Column("price_version", "price version"),
        Column("at_us", "since (UTC)", "time"),
        Column("author", "by"),
        Column("reason", "reason"),
    ]
    print_rows(answer["rows"], columns, "No price book yet.")
    return None


@prices.command("show")
@click.argument("version", default="latest")
@click.option("--model", help="Only the prices of this model, under any of its names.")
@reads
def show_book(client: ApiClient, version: str, model: str | None, as_json: bool) -> None:
    """The prices of a VERSION (default: the one in force), dollars per million tokens.

    JSON: {price_version, "rows": [{model, effective_from, input, output, cache_read,
    cache_creation_5m, cache_creation_1h, …, words}], "next": null}.
    """
    answer = client.get(f"/v1/prices/{version}", model=model)
    if as_json:
        return print_json(answer)
    print_lines(f"price book {answer['price_version']}", "")
    for row in answer["rows"]:
        print_lines(f"{row['model']} from {row['effective_from']}: {row['words']}")
        if row.get("aliases"):
            print_lines(f"    also {', '.join(row['aliases'])}")
    if not answer["rows"]:
        talk.print("No such price.")
    return None


@prices.command("set")
@click.argument("model")
@click.option("--effective", required=True, metavar="DAY", help="First day, YYYY-MM-DD (UTC).")
@click.option("--input", "input_", required=True, help="Dollars per million input tokens.")
@click.option("--output", required=True, help="Dollars per million output tokens.")
@click.option("--cache-read", required=True, help="Dollars per million tokens read from cache.")
@click.option("--write-5m", required=True, help="Dollars per million 5-minute cache writes.")
@click.option("--write-1h", required=True, help="Dollars per million 1-hour cache writes.")
@click.option("--batch", help="Multiplier of batches, such as 0.5.")
@click.option("--fast", help="Multiplier of fast mode, such as 2.")
@click.option("--us", help="Multiplier of inference in the US only, such as 1.1.")
@click.option("--reason", required=True, help="Why: it is kept with the version.")
@dry_run_option
@actor_option
@reads
def set_price(
    client: ApiClient,
    model: str,
    effective: str,
    reason: str,
    dry_run: bool,
    actor: str,
    as_json: bool,
    **given: str | None,
) -> None:
    """Set the price of a MODEL from a day on; older days keep theirs.

    Multipliers that are not given stay as they were.
    What was charged stays as it is: `turnwise prices reprice` charges past days anew. Prices with
    long-input rates or aliases: `turnwise prices import book FILE`. JSON: {price_version, before,
    changed, same, "rows": [{model, effective_from, change, words}]}.
    """
    names = {
        "input_": "input",
        "output": "output",
        "cache_read": "cache_read",
        "write_5m": "cache_creation_5m",
        "write_1h": "cache_creation_1h",
    }
    entry: dict[str, Any] = {"model": model, "effective_from": effective, "source": "set by hand"}
    entry |= {name: _dollars(option, given[option]) for option, name in names.items()}
    for option, key, word in (
        ("batch", "service_tiers", "batch"),
        ("fast", "speeds", "fast"),
        ("us", "inference_geos", "us"),
    ):
        if given[option] is not None:
            entry[key] = {word: _dollars(option, given[option])}
    answer = _change(client, [entry], actor=actor, reason=reason, dry_run=dry_run, keep_terms=True)
    _tell(answer, as_json=as_json, dry_run=dry_run)


@prices.group("import")
def import_prices() -> None:
    """Take prices over from a file."""


@import_prices.command("book")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--reason", help="Why (default: the file's name).")
@dry_run_option
@actor_option
@reads
def import_book(
    client: ApiClient, file: Path, reason: str | None, dry_run: bool, actor: str, as_json: bool
) -> None:
    """Take over the prices of a FILE in turnwise's own form (docs/chargeback.md).

    JSON: {price_version, before, changed, same, "rows": [{model, effective_from, change, words}]}.
    """
    from loop.ledger.prices import read_document, write_entry

    version, found, _ = read_document(_read(file), str(file))
    entries = [write_entry(price) for price in found.values()]
    reason = reason or f"{file.name}, version {version}"
    answer = _change(client, entries, actor=actor, reason=reason, dry_run=dry_run, keep_terms=False)
    _tell(answer, as_json=as_json, dry_run=dry_run)


@import_prices.command("litellm")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--effective", required=True, metavar="DAY", help="First day, YYYY-MM-DD (UTC).")
@click.option(
    "--models", default="*claude*", show_default=True, help="Only names that match this pattern."
)
@click.option("--reason", help="Why (default: the file's name).")
@dry_run_option
@actor_option
@reads
def import_litellm(
    client: ApiClient,
    file: Path,
    effective: str,
    models: str,
    reason: str | None,
    dry_run: bool,
    actor: str,
    as_json: bool,
) -> None:
    """Take over LiteLLM's price map (model_prices_and_context_window.json) from a day on.

    Shows what changes against the book in force, in words. What can't be represented is listed
    with its reason and left out. JSON: {price_version, before, changed, same, "rows": [{model,
    effective_from, change, words}], "left_out": [{name, reason, entirely}]}.
    """
    from loop.ledger.litellm_prices import read_litellm_map
    from loop.ledger.prices import is_day, write_entry

    if not is_day(effective):
        raise BadInput(f"{effective!r} is no day.", fix="Write YYYY-MM-DD.")
    found = read_litellm_map(_read(file), effective, source=f"LiteLLM: {file.name}", models=models)
    entries = [write_entry(price) for price in found.prices]
    reason = reason or f"LiteLLM's price map {file.name}, from {effective}"
    answer = _change(client, entries, actor=actor, reason=reason, dry_run=dry_run, keep_terms=True)
    answer["left_out"] = [
        {"name": row.name, "reason": row.reason, "entirely": row.entirely} for row in found.left_out
    ]
    _tell(answer, as_json=as_json, dry_run=dry_run)
    if as_json:
        return
    for entirely, words in ((True, "left out"), (False, "taken over without")):
        rows = [row for row in found.left_out if row.entirely is entirely]
        for row in rows[:_LEFT_OUT_SHOWN]:
            talk.print(f"{words}: {row.name}: {row.reason}", markup=False, soft_wrap=True)
        if len(rows) > _LEFT_OUT_SHOWN:
            talk.print(f"{words}: {len(rows) - _LEFT_OUT_SHOWN} more; --json lists all.")


@prices.command("export")
@click.argument("version", default="latest")
@reads
def export_book(client: ApiClient, version: str, as_json: bool) -> None:
    """Print a price book as a JSON document that TURNWISE_PRICE_BOOK and `import book` take.

    JSON: {schema, version, replace, "prices": [{model, effective_from, input, output, …}]}.
    """
    print_json(client.get(f"/v1/prices/{version}/document"))


@prices.command("charges")
@reads
def list_charge_versions(client: ApiClient, as_json: bool) -> None:
    """The re-pricings, the newest first. Version 0 is the first pricing of every turn.

    JSON: {"rows": [{charge_version, from, until, price_version, author, reason, begun_at_us,
    finished_at_us, outcome}], "next": null}.
    """
    answer = client.get("/v1/charge-versions")
    if as_json:
        return print_json(answer)
    columns = [
        Column("charge_version", "version", "count"),
        Column("from", "from"),
        Column("until", "until"),
        Column("price_version", "price version"),
        Column("author", "by"),
        Column("reason", "reason"),
        Column("finished_at_us", "finished (UTC)", "time"),
    ]
    print_rows(answer["rows"], columns, "Nothing was priced anew.")
    return None


@prices.command("reprice")
@click.option("--from", "from_day", required=True, metavar="DAY", help="First day (UTC).")
@click.option("--until", required=True, metavar="DAY", help="Day to stop before (UTC).")
@click.option("--book", default="latest", show_default=True, help="Price version to charge by.")
@click.option("--reason", help="Why: it is kept. Needed unless --dry-run.")
@dry_run_option
@actor_option
@reads
def reprice(
    client: ApiClient,
    from_day: str,
    until: str,
    book: str,
    reason: str | None,
    dry_run: bool,
    actor: str,
    as_json: bool,
) -> None:
    """Charge past days anew: a new charge version; the old one can still be read.

    A closed statement never changes: the difference stands in the next one as an adjustment. How
    far it is stands on stderr.
    JSON: {from, until, price_version, charge_version, sessions, turns, changed, before_microusd,
    after_microusd, unpriced_before, unpriced_after, "rows": [{model, …}]}.
    """
    if not dry_run and not reason:
        raise BadInput("Say why the days are charged anew.", fix="Give --reason.")
    document = {
        "from": from_day,
        "until": until,
        "book": book,
        "dry_run": dry_run,
        "actor": actor,
        "reason": reason or "dry run",
    }
    answer = client.watch(
        "/v1/charge-versions", document, lambda step: talk.print(step), "/v1/lake/work"
    )
    if as_json:
        return print_json(answer)
    columns = [
        Column("model", "model"),
        Column("turns", "turns", "count"),
        Column("changed", "changed", "count"),
        Column("before_microusd", "before", "money"),
        Column("after_microusd", "after", "money"),
        Column("unpriced_before", "unpriced before", "count"),
        Column("unpriced_after", "unpriced after", "count"),
    ]
    print_rows(answer["rows"], columns, "No turns on these days.")
    print_lines(
        f"{answer['changed']} of {answer['turns']} turns: "
        f"{show(answer['before_microusd'], 'money')} → {show(answer['after_microusd'], 'money')} "
        f"by {answer['price_version']}"
    )
    done = answer["charge_version"]
    print_lines("Nothing was changed." if done is None else f"This is charge version {done}.")
    return None


def _change(
    client: ApiClient,
    entries: list[dict[str, Any]],
    *,
    actor: str,
    reason: str,
    dry_run: bool,
    keep_terms: bool,
) -> dict[str, Any]:
    document = {
        "prices": entries,
        "actor": actor,
        "reason": reason,
        "dry_run": dry_run,
        "keep_terms": keep_terms,
    }
    return client.post("/v1/prices", document)


def _tell(answer: dict[str, Any], *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        return print_json(answer)
    for row in answer["rows"]:
        print_lines(
            f"{row['model']} from {row['effective_from']} ({row['change']}): {row['words']}"
        )
    print_lines(f"{answer['changed']} prices change, {answer['same']} are as they were.")
    if dry_run:
        print_lines("Nothing was changed.")
    elif answer["changed"]:
        print_lines(f"Price book {answer['price_version']} is in force.")
    return None


def _dollars(name: str, value: str | None) -> float | int:
    try:
        number = Decimal(value or "")
    except InvalidOperation as error:
        raise BadInput(f"--{name.strip('_')} {value!r} is no number.") from error
    return int(number) if number == number.to_integral_value() else float(number)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} can't be read.", why=str(error)) from error
