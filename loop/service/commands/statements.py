"""``turnwise spend statement`` and ``reconcile``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loop.domain.errors import BadInput
from loop.service.api_client import ApiClient
from loop.service.commands import actor_option, reads
from loop.service.printing import Column, print_json, print_lines, print_rows, show, talk

FORMATS = ("table", "csv", "json", "html")
_SHOWN_ROWS = 40


@click.command("statement")
@click.option("--month", required=True, metavar="YYYY-MM", help="Month (UTC).")
@click.option("--org", default="", help="Only this organization path and below.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How to print it.",
)
@click.option("--close", "closing", is_flag=True, help="Close the month: it never changes again.")
@actor_option
@reads
def statement(
    client: ApiClient,
    month: str,
    org: str,
    kind: str,
    closing: bool,
    actor: str,
    as_json: bool,
) -> None:
    """What a month cost, by every level of the organization, developer, repository and model.

    A month that is not closed is printed as a draft; a closed one byte for byte as it was. --json
    is --format json. JSON: {statement_id, content_hash, state, month, org_path, price_versions,
    charge_versions, table_versions, totals, by_org, by_developer, by_repository, by_model, lines,
    unpriced, adjustments, billed, control}.
    """
    if closing:
        document = {"month": month, "org": org, "actor": actor}
        made = client.request("POST", "/v1/statements", json=document, timeout=None)
        talk.print(f"Statement {made['statement_id']} is closed.", markup=False)
    kind = "json" if as_json else kind
    text = client.text(f"/v1/statements/{month}/{kind}", org=org or None)
    click.echo(text.encode("utf-8"), nl=False)  # bytes: a terminal's newlines change nothing


@click.command("reconcile")
@click.option("--month", required=True, metavar="YYYY-MM", help="Month (UTC).")
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A usage or cost report: the console's CSV or the Admin API's JSON. Repeatable.",
)
@click.option("--fetch", is_flag=True, help="Ask the Admin API (ANTHROPIC_ADMIN_KEY) for both.")
@click.option(
    "--workspace", "workspaces", multiple=True, help="With --fetch: only usage of this workspace."
)
@click.option("--limit", type=float, help="Share of the bill that the residual may be (0 to 1).")
@click.option("--all", "everything", is_flag=True, help="Every line, not the largest only.")
@actor_option
@reads
def reconcile(
    client: ApiClient,
    month: str,
    reports: tuple[Path, ...],
    fetch: bool,
    workspaces: tuple[str, ...],
    limit: float | None,
    everything: bool,
    actor: str,
    as_json: bool,
) -> None:
    """Compare a month with the provider's usage and cost report. Exits with 1 beyond the limit.

    Reports are kept; for each day the newest rules. JSON: {month, billed_microusd,
    estimated_microusd, residual_microusd, residual_share, limit_share, exceeded, days, reasons,
    "rows": [{day, model, class, our_tokens, billed_tokens, residual_tokens, estimated_microusd,
    billed_microusd, residual_microusd, reasons}]}.
    """
    for file in reports:
        _take(client, file, actor)
    if fetch:
        asked = {"month": month, "workspaces": list(workspaces), "actor": actor}
        with talk.status("Asking the Admin API …"):
            client.request("POST", "/v1/billing-reports/fetch", json=asked, timeout=None)
    answer = client.get("/v1/reconciliation", month=month, limit=limit)
    if as_json:
        print_json(answer)
    else:
        _print(answer, everything=everything)
    if answer["exceeded"]:
        raise click.exceptions.Exit(1)


def _take(client: ApiClient, file: Path, actor: str) -> None:
    # Imported here: other commands read no reports.
    from loop.ledger.billing_reports import read_report

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} can't be read.", why=str(error)) from error
    report = read_report(text, file.name).to_document()
    made = client.post("/v1/billing-reports", {"report": report, "actor": actor})
    talk.print(f"{file.name}: {made['kind']} of {made['days']} days is kept.", markup=False)


def _print(answer: dict[str, Any], *, everything: bool) -> None:
    rows = [row | {"why": "; ".join(row["reasons"])} for row in answer["rows"] if row["reasons"]]
    rows.sort(key=lambda row: -abs(row["residual_microusd"] or row["residual_tokens"] or 0))
    columns = [
        Column("day", "day"),
        Column("model", "model"),
        Column("class", "class"),
        Column("our_tokens", "ours", "count"),
        Column("billed_tokens", "billed", "count"),
        Column("estimated_microusd", "estimated", "money"),
        Column("billed_microusd", "billed", "money"),
        Column("residual_microusd", "residual", "money"),
        Column("why", "why"),
    ]
    print_rows(rows if everything else rows[:_SHOWN_ROWS], columns, "Nothing differs.")
    if len(rows) > _SHOWN_ROWS and not everything:
        talk.print(f"{len(rows) - _SHOWN_ROWS} more lines differ: --all shows them.")
    print_lines(
        "",
        f"billed     {show(answer['billed_microusd'], 'money')} "
        f"({answer['days']} of {answer['days_of_month']} days reported)",
        f"estimated  {show(answer['estimated_microusd'], 'money')}",
        f"residual   {show(answer['residual_microusd'], 'money')} "
        f"({show(answer['residual_share'], 'share')} of the bill; limit "
        f"{show(answer['limit_share'], 'share')})",
        *(f"  {show(row['microusd'], 'money')}  {row['reason']}" for row in answer["reasons"]),
    )
