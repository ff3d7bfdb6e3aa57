"""What the provider reports: usage and cost by day, model and class of tokens.

Read from the Admin API's answers (``/v1/organizations/usage_report/messages`` and
``/v1/organizations/cost_report``, also as saved files) and from the CSV files that the provider's
console exports. Amounts of the API are in *cents*, those of the CSV in dollars; both stay exact.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from loop.domain.errors import BadInput
from loop.domain.model_names import plain_name
from loop.ledger.prices import is_day

ReportKind = Literal["usage", "cost"]
TOKEN_CLASSES = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_5m_tokens",
    "cache_creation_1h_tokens",
)
_API_CLASSES = {
    "uncached_input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_input_tokens": "cache_read_tokens",
    "cache_creation.ephemeral_5m_input_tokens": "cache_creation_5m_tokens",
    "cache_creation.ephemeral_1h_input_tokens": "cache_creation_1h_tokens",
}
_CSV_USAGE = {
    "usage_input_tokens_no_cache": "input_tokens",
    "usage_output_tokens": "output_tokens",
    "usage_input_tokens_cache_read": "cache_read_tokens",
    "usage_input_tokens_cache_write_5m": "cache_creation_5m_tokens",
    "usage_input_tokens_cache_write_1h": "cache_creation_1h_tokens",
}
_CSV_COST = {
    "input_no_cache": "input_tokens",
    "output": "output_tokens",
    "input_cache_read": "cache_read_tokens",
    "input_cache_write_5m": "cache_creation_5m_tokens",
    "input_cache_write_1h": "cache_creation_1h_tokens",
}
_TOKENS = ("", "token", "tokens")
_LARGEST = 10**18


@dataclass(frozen=True, slots=True)
class BilledLine:
    """Tokens (of usage) or dollars (of cost) of one class on one UTC day.

    ``kind`` is a class of tokens, ``web_search``, or what else the provider charges for.
    """

    day: str
    model: str  # plain name; "" where the line has none
    kind: str
    service_tier: str
    tokens: int  # searches for web_search; 0 in a cost report
    usd: str  # exact decimal; "0" in a usage report


@dataclass(frozen=True, slots=True)
class BillingReport:
    """``days`` are all that the report speaks for, also those without any line."""

    kind: ReportKind
    source: str
    days: tuple[str, ...]
    lines: tuple[BilledLine, ...]

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> BillingReport:
        """Raises :class:`BadInput`."""
        try:
            kind, source = document["kind"], document["source"]
            days = tuple(str(day) for day in document["days"])
            lines = tuple(_checked(BilledLine(**line)) for line in document["lines"])
        except (KeyError, TypeError, ValueError, InvalidOperation) as error:
            raise BadInput("This is no billing report.", why=repr(error)) from error
        if kind not in ("usage", "cost") or not isinstance(source, str):
            raise BadInput("A billing report is of usage or of cost, from a named source.")
        if bad := [day for day in days if not is_day(day)]:
            raise BadInput(f"{bad[0]!r} is no day.")
        return cls(kind, source, tuple(sorted(set(days))), _summed(lines))


def read_report(text: str, source: str) -> BillingReport:
    """A report from a file. Raises :class:`BadInput` naming what can't be read."""
    if text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        try:
            document = json.loads(text, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{source}: this is no JSON.", why=str(error)) from error
        pages = document if isinstance(document, list) else [document]
        return read_pages(pages, source)
    try:
        return _read_csv(text, source)
    except csv.Error as error:
        raise BadInput(f"{source}: this is no CSV.", why=str(error)) from error


def read_pages(pages: Iterable[Any], source: str, kind: ReportKind | None = None) -> BillingReport:
    """A report from the pages of the Admin API. ``kind`` is needed where nothing was used."""
    days: list[str] = []
    lines: list[BilledLine] = []
    for page in pages:
        if not isinstance(page, Mapping) or not isinstance(page.get("data"), list):
            raise BadInput(f'{source}: a page must be an object with a list "data".')
        for bucket in page["data"]:
            try:
                day = str(bucket["starting_at"])[:10]
                results = list(bucket["results"])
            except (KeyError, TypeError) as error:
                raise BadInput(f"{source}: a bucket can't be read.", why=repr(error)) from error
            if not is_day(day):
                raise BadInput(f"{source}: {bucket['starting_at']!r} is no time.")
            days.append(day)
            for result in results:
                found: ReportKind = "cost" if "amount" in result else "usage"
                if kind not in (None, found):
                    raise BadInput(f"{source}: it mixes usage and cost.")
                kind = found
                read = _api_cost if kind == "cost" else _api_usage
                lines += _read_lines(read, result, day, source)
    if kind is None:
        raise BadInput(f"{source}: it has no line, so it can't be told what it reports.")
    return BillingReport(kind, source, tuple(sorted(set(days))), _summed(lines))


def _read_lines(read: Any, result: Any, day: str, source: str) -> list[BilledLine]:
    try:
        return [_checked(line) for line in read(result, day)]
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation) as error:
        raise BadInput(f"{source}: a line of {day} can't be read.", why=repr(error)) from error


def _api_usage(result: Mapping[str, Any], day: str) -> Iterator[BilledLine]:
    model, tier = _model(result.get("model")), result.get("service_tier") or ""
    creation = result.get("cache_creation") or {}
    for name, kind in _API_CLASSES.items():
        part = name.partition(".")[2]
        tokens = creation.get(part) if part else result.get(name)
        if tokens:
            yield BilledLine(day, model, kind, tier, int(tokens), "0")
    searches = (result.get("server_tool_use") or {}).get("web_search_requests")
    if searches:
        yield BilledLine(day, model, "web_search", tier, int(searches), "0")


def _api_cost(result: Mapping[str, Any], day: str) -> Iterator[BilledLine]:
    if result.get("currency") not in (None, "USD"):
        raise ValueError(f"the currency {result['currency']}")
    token_type, cost_type = result.get("token_type"), result.get("cost_type") or ""
    kind = _API_CLASSES[token_type] if token_type else cost_type
    usd = Decimal(str(result["amount"])) / 100
    tier = result.get("service_tier") or ""
    yield BilledLine(day, _model(result.get("model")), kind or "tokens", tier, 0, _plain(usd))


def _read_csv(text: str, source: str) -> BillingReport:
    rows = csv.DictReader(io.StringIO(text.lstrip("\ufeff")))
    columns = set(rows.fieldnames or ())
    kind: ReportKind = "cost" if "cost_usd" in columns else "usage"
    if "usage_date_utc" not in columns or (kind == "usage" and not columns & _CSV_USAGE.keys()):
        raise BadInput(
            f"{source}: this is no usage or cost export.",
            why=f"Its columns are {', '.join(sorted(columns)) or 'none'}.",
            fix="Export it as CSV from the Usage or the Cost page of the provider's console.",
        )
    read = _csv_cost if kind == "cost" else _csv_usage
    lines: list[BilledLine] = []
    days = []
    for number, row in enumerate(rows, start=2):
        day = str(row["usage_date_utc"])[:10]
        if not is_day(day):
            raise BadInput(f"{source}, line {number}: {row['usage_date_utc']!r} is no day.")
        days.append(day)
        lines += _read_lines(read, row, day, f"{source}, line {number}")
    return BillingReport(kind, source, tuple(sorted(set(days))), _summed(lines))


def _csv_usage(row: Mapping[str, str], day: str) -> Iterator[BilledLine]:
    model, tier = _model(row.get("model_version") or row.get("model")), row.get("usage_type") or ""
    for name, kind in _CSV_USAGE.items():
        if tokens := int(row.get(name) or 0):
            yield BilledLine(day, model, kind, tier, tokens, "0")
    if searches := int(row.get("web_search_count") or 0):
        yield BilledLine(day, model, "web_search", tier, searches, "0")


def _csv_cost(row: Mapping[str, str], day: str) -> Iterator[BilledLine]:
    token_type, cost_type = row.get("token_type") or "", row.get("cost_type") or ""
    kind = _CSV_COST[token_type] if cost_type in _TOKENS and token_type else cost_type or "tokens"
    usd = _plain(Decimal(row["cost_usd"] or "0"))
    yield BilledLine(day, _model(row.get("model")), kind, row.get("usage_type") or "", 0, usd)


def _model(name: Any) -> str:
    """The plain name; the console's display names by their one rule: ``Claude Opus 4.5``."""
    text = str(name or "").strip()
    if " " in text:
        text = text.lower().replace(" ", "-").replace(".", "-")
    return plain_name(text)


def _plain(usd: Decimal) -> str:
    return format(usd, "f")


def _checked(line: BilledLine) -> BilledLine:
    usd = Decimal(line.usd)
    if not is_day(line.day) or isinstance(line.tokens, bool) or not isinstance(line.tokens, int):
        raise ValueError(f"{line} is no line")
    if not usd.is_finite() or abs(usd) > _LARGEST or not 0 <= line.tokens < _LARGEST:
        raise ValueError(f"{line} has an amount that can't be")
    return line


def _summed(lines: Iterable[BilledLine]) -> tuple[BilledLine, ...]:
    """One line for each day, model, kind and tier: keys and workspaces are not told apart."""
    tokens: dict[tuple[str, str, str, str], int] = {}
    usd: dict[tuple[str, str, str, str], Decimal] = {}
    for line in lines:
        key = (line.day, line.model, line.kind, line.service_tier)
        tokens[key] = tokens.get(key, 0) + line.tokens
        usd[key] = usd.get(key, Decimal(0)) + Decimal(line.usd)
    return tuple(BilledLine(*key, tokens[key], _plain(usd[key])) for key in sorted(tokens))
