"""Statements as people and finance systems read them: a table, CSV, JSON and HTML.

Each is a pure function of the statement's document. The CSV's texts can't become formulas of a
spreadsheet, and the HTML page is complete in itself, has no script and prints.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from html import escape
from typing import Any, Literal, get_args

from loop.domain.errors import BadInput
from loop.ledger.statements import AMOUNTS, KEYS

StatementFormat = Literal["table", "csv", "json", "html"]
FORMATS: tuple[StatementFormat, ...] = get_args(StatementFormat)
CONTENT_TYPES: Mapping[str, str] = {
    "table": "text/plain; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "html": "text/html; charset=utf-8",
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_WORDS = {
    "turns": "turns",
    "unpriced_turns": "unpriced",
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_tokens": "cache read",
    "cache_creation_5m_tokens": "write 5m",
    "cache_creation_1h_tokens": "write 1h",
    "cost_microusd": "cost USD",
}
_SECTIONS = (
    ("by_org", "By organization", ("org_path",)),
    ("by_developer", "By developer", ("developer",)),
    ("by_repository", "By repository", ("repository",)),
    ("by_model", "By model", ("model",)),
)
_CSV_COLUMNS = ("section", "month", *KEYS, *AMOUNTS, "cost_usd", "note")
_CONTROL = (
    ("opening_microusd", "Opening: stated so far"),
    ("charges_microusd", "Charges of this month (estimated)"),
    ("adjustments_microusd", "Adjustments of earlier months"),
    ("total_microusd", "Total of this statement"),
    ("closing_microusd", "Closing"),
)


def check_format(kind: StatementFormat) -> StatementFormat:
    """Raises :class:`BadInput` for what is none of :data:`FORMATS`."""
    if kind not in FORMATS:
        raise BadInput(f"There is no format {kind!r}.", fix=f"One of {', '.join(FORMATS)}.")
    return kind


def render(document: Mapping[str, Any], kind: StatementFormat) -> str:
    """The statement in a format; the same document always gives the same text."""
    return _RENDERERS[kind](document)


def dollars(microusd: int | None) -> str:
    """Exact, with six decimals; unknown is not zero."""
    return "unpriced" if microusd is None else f"{Decimal(microusd) / 1_000_000:.6f}"


def notes_of(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What identifies the statement and says how its figures came about."""
    charges = ", ".join(str(version) for version in document["charge_versions"]) or "none"
    tables = ", ".join(f"{name} {n}" for name, n in sorted(document["table_versions"].items()))
    return [
        ("Statement", f"{document['statement_id']} ({document['state']})"),
        ("Month", f"{document['month']} (UTC, {document['from']} until {document['until']})"),
        ("Organization", document["org_path"] or "all"),
        ("Content hash", f"sha256 {document['content_hash']}"),
        ("Price versions", ", ".join(document["price_versions"]) or "none"),
        ("Charge versions", charges),
        ("Table versions", tables),
        (
            "Figures",
            "ESTIMATED: tokens as reported, times the price book. BILLED is what the provider's "
            "report says, where there is one.",
        ),
    ]


def billed_of(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The provider's figures beside ours, or why there are none."""
    billed = document["billed"]
    if billed is None and document["org_path"]:
        return [("Billed", "not known: the provider's report is of the whole organization")]
    if billed is None:
        return [("Billed", "not known: no cost report of this month was taken in")]
    return [
        ("Billed", dollars(billed["billed_microusd"])),
        ("Estimated for the days reported", dollars(billed["estimated_microusd"])),
        ("Residual (billed less estimated)", dollars(billed["residual_microusd"])),
        ("Days reported", f"{billed['days']} of {billed['days_of_month']}"),
        *((f"of it: {row['reason']}", dollars(row["microusd"])) for row in billed["reasons"]),
    ]


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _csv(document: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_CSV_COLUMNS)
    month = document["month"]

    def write(section: str, row: Mapping[str, Any], note: str = "") -> None:
        cells: dict[str, Any] = {"section": section, "month": month, "note": note} | dict(row)
        if "cost_microusd" in row:
            cells["cost_usd"] = dollars(row["cost_microusd"])
        writer.writerow([_cell(cells.get(name)) for name in _CSV_COLUMNS])

    for name, value in notes_of(document):
        write("statement", {}, f"{name}: {value}")
    write("total", document["totals"])
    for key, _, _ in _SECTIONS:
        for row in document[key]:
            write(key, row, f"level {row['level']}" if "level" in row else "")
    for row in document["lines"]:
        write("line", row)
    for row in document["unpriced"]:
        amounts = {"model": row["model"], "turns": row["turns"], "unpriced_turns": row["turns"]}
        write("unpriced", amounts, row["reason"])
    for row in document["adjustments"]:
        write("adjustment", row, row["cause"])
    for name, words in _CONTROL:
        write("control", {"cost_microusd": document["control"][name]}, words)
    for name, value in billed_of(document):
        write("billed", {}, f"{name}: {value}")
    return text.getvalue()


def _cell(value: Any) -> str:
    """Numbers as they are; a text that a spreadsheet would run as a formula gets an apostrophe."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return str(value)
    is_number = value.removeprefix("-").replace(".", "", 1).isdecimal() and value.isascii()
    return f"'{value}" if value.startswith(_FORMULA) and not is_number else value


def _table(document: Mapping[str, Any]) -> str:
    blocks = [_aligned([*notes_of(document)])]
    for key, title, names in _SECTIONS:
        rows = document[key]
        blocks.append(f"{title}\n{_grid(names, rows)}")
    if document["unpriced"]:
        lines = [(f"{row['turns']:,}", row["reason"]) for row in document["unpriced"]]
        blocks.append("Unpriced turns\n" + _aligned(lines))
    if document["adjustments"]:
        grid = _grid(("month", *KEYS), document["adjustments"])
        blocks.append("Adjustments\n" + grid)
    control = [(words, dollars(document["control"][name])) for name, words in _CONTROL]
    blocks.append("Control totals, USD\n" + _aligned(control))
    blocks.append("Billed by the provider, USD\n" + _aligned(billed_of(document)))
    return "\n\n".join(blocks) + "\n"


def _grid(names: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> str:
    table = [[*names, *(_WORDS[name] for name in AMOUNTS)]]
    for row in rows:
        table.append([*(_plain(row[name]) for name in names), *(_amount(row, n) for n in AMOUNTS)])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < len(names) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )


def _aligned(pairs: Iterable[tuple[str, str]]) -> str:
    pairs = [(_plain(name), _plain(value)) for name, value in pairs]
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in pairs)


def _plain(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else "�" for char in str(text))


def _amount(row: Mapping[str, Any], name: str) -> str:
    return dollars(row[name]) if name == "cost_microusd" else f"{row[name]:,}"


_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;color:#1b1b1b;max-width:70rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;break-after:avoid}
table{border-collapse:collapse;width:100%}thead{display:table-header-group}tr{break-inside:avoid}
th,td{padding:.25rem .5rem;border-bottom:1px solid #ccc;text-align:left;overflow-wrap:anywhere}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
@media print{body{margin:0;max-width:none;font-size:9pt}@page{size:A4 landscape;margin:12mm}}
"""


def _html(document: Mapping[str, Any]) -> str:
    title = f"Statement {document['month']}: {document['org_path'] or 'all'}"
    parts = [_html_pairs(notes_of(document))]
    totals = [{"total": "all", **document["totals"]}]
    parts.append(f"<h2>Total, estimated</h2>{_html_grid(('total',), totals)}")
    for key, heading, names in _SECTIONS:
        parts.append(f"<h2>{escape(heading)}</h2>{_html_grid(names, document[key])}")
    if document["unpriced"]:
        lines = [(f"{row['turns']:,} turns", row["reason"]) for row in document["unpriced"]]
        parts.append(f"<h2>Unpriced turns</h2>{_html_pairs(lines)}")
    if document["adjustments"]:
        grid = _html_grid(("month", *KEYS, "cause"), document["adjustments"])
        parts.append(f"<h2>Adjustments of earlier months</h2>{grid}")
    control = [(words, dollars(document["control"][name])) for name, words in _CONTROL]
    parts.append(f"<h2>Control totals, USD</h2>{_html_pairs(control)}")
    parts.append(f"<h2>Billed by the provider, USD</h2>{_html_pairs(billed_of(document))}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n" + "\n".join(parts) + "</main></body></html>\n"
    )


def _html_grid(names: tuple[str, ...], rows: Iterable[Mapping[str, Any]]) -> str:
    head = "".join(f'<th scope="col">{escape(name.replace("_", " "))}</th>' for name in names)
    head += "".join(f'<th scope="col" class="n">{escape(_WORDS[name])}</th>' for name in AMOUNTS)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{escape(str(row[name]))}</td>" for name in names)
        + "".join(f'<td class="n">{escape(_amount(row, name))}</td>' for name in AMOUNTS)
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in pairs
    )
    return f"<table><tbody>{rows}</tbody></table>"


_RENDERERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "table": _table,
    "csv": _csv,
    "json": _json,
    "html": _html,
}
