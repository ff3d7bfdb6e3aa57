"""Statements and reconciliation, as the API and the command line show and make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from loop.access.view import ALL_ROWS, View
from loop.domain.errors import BadInput, NotFound
from loop.ledger.admin_api import AdminApi
from loop.ledger.billing_reports import BillingReport, ReportKind
from loop.ledger.reconciliation import Reconciliation, reconcile
from loop.ledger.statement_formats import StatementFormat, check_format, render
from loop.ledger.statements import Month
from loop.service.assemble import Parts
from loop.service.documents import person, text

KINDS: tuple[ReportKind, ...] = ("usage", "cost")


class StatementDesk:
    """Reads and closes statements; each method returns what the API answers."""

    def __init__(self, parts: Parts, sees: Callable[[], View] = lambda: ALL_ROWS) -> None:
        """``sees`` gives what the caller may see: a node sees statements of its own paths."""
        self._parts = parts
        self._sees = sees

    def list_closed(self) -> dict[str, Any]:
        rows = [
            row
            for row in self._parts.statements.statements()
            if self._owns(row["org_path"], Month.parse(row["month"]))
        ]
        return {"rows": rows, "next": None}

    def show(self, month: str, org_path: str) -> dict[str, Any]:
        """The document of a month: as it was closed, or a draft of now."""
        parsed = Month.parse(month)
        org_path = self._path(org_path, parsed)
        if not self._owns(org_path, parsed):
            return self._part(parsed, org_path)
        found = self._parts.statements.find(parsed, org_path)
        billed = self._billed(parsed, org_path)
        return found or self._parts.statements.draft(parsed, org_path, billed)

    def printed(self, month: str, org_path: str, kind: str) -> str:
        """The statement's text in a format; a closed one byte for byte as it was."""
        parsed = Month.parse(month)
        chosen = cast(StatementFormat, kind)  # the store refuses others
        org_path = self._path(org_path, parsed)
        if not self._owns(org_path, parsed):
            return render(self._part(parsed, org_path), check_format(chosen))
        billed = self._billed(parsed, org_path)
        return self._parts.statements.printed(parsed, org_path, chosen, billed)

    def close(self, document: Mapping[str, Any]) -> dict[str, Any]:
        month = Month.parse(text(document, "month"))
        org_path = document.get("org") or ""
        if not isinstance(org_path, str):
            raise BadInput("org must be an organization path.")
        org_path = org_path.strip("/")
        billed = self._billed(month, org_path)
        return self._parts.statements.close(month, org_path, person(document).name, billed)

    def take_report(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps a report of the provider's that was read from a file."""
        report = document.get("report")
        if not isinstance(report, dict):
            raise BadInput("report must be a billing report.")
        return self._keep(BillingReport.from_document(report), person(document).name)

    def fetch(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Asks the Admin API for usage and cost of a month, and keeps both."""
        month, author = Month.parse(text(document, "month")), person(document).name
        workspaces = document.get("workspaces") or []
        if not isinstance(workspaces, list) or not all(isinstance(w, str) for w in workspaces):
            raise BadInput("workspaces must be a list of workspace ids.")
        settings = self._parts.settings
        with AdminApi(settings.billing_base_url, settings.admin_api_key) as api:
            kinds = KINDS if not workspaces else KINDS[:1]  # cost has no such filter
            reports = [api.fetch(kind, month, tuple(workspaces)) for kind in kinds]
        return {"rows": [self._keep(report, author) for report in reports], "next": None}

    def reconcile(self, month: str, limit: str | None = None) -> dict[str, Any]:
        """The residual of a month; ``exceeded`` says whether it is more than the limit."""
        share = self._parts.settings.reconciliation_limit_share
        if limit is not None:
            try:
                share = float(limit)
            except ValueError as error:
                raise BadInput(f"limit={limit!r} is no share.") from error
            if not 0 <= share <= 1:
                raise BadInput("The limit is a share between 0 and 1.")
        found = self._reconcile(Month.parse(month))
        if not found.usage_days and not found.cost_days:
            raise BadInput(
                f"No report of {month} was taken in.",
                fix="Give one by --report FILE, or --fetch it from the Admin API.",
            )
        return {
            "month": month,
            **found.summary(),
            "usage_days": len(found.usage_days),
            "residual_share": found.residual_share,
            "limit_share": share,
            "exceeded": found.exceeds(share),
            "rows": found.rows,
            "next": None,
        }

    def _path(self, org_path: str, month: Month) -> str:
        """The path that is meant; a node's own one where it names none.

        Raises :class:`NotFound` for a path that is not the caller's at any time of the month.
        """
        spans = self._sees().spans
        if spans is None:
            return org_path
        own = [
            span.path
            for span in spans
            if span.valid_from < month.end_day
            and (not span.valid_to or span.valid_to > month.first_day)
        ]
        if own and not org_path:
            return own[-1]
        if not any(f"{org_path}/".startswith(f"{path}/") for path in own):
            raise NotFound(
                f"Nothing was charged to {org_path or 'your node'} in {month.name}.",
                fix="`turnwise spend by org` shows the paths.",
            )
        return org_path

    def _owns(self, org_path: str, month: Month) -> bool:
        """Whether all that the statement of a path tells is the caller's: the path was its own, or
        below it, on every day of the month and of those that adjustments go back to."""
        view = self._sees()
        if view.sees_all:
            return True
        closed = [
            Month.parse(row["month"])
            for row in self._parts.statements.statements()
            if row["org_path"] == org_path and row["month"] < month.name
        ]
        return all(view.admits(org_path, day) for one in [*closed, month] for day in one.days())

    def _part(self, month: Month, org_path: str) -> dict[str, Any]:
        """What is the caller's own of a path that was not its own all the time."""
        return self._parts.statements.draft_part(month, org_path, self._sees().condition())

    def _billed(self, month: Month, org_path: str) -> Mapping[str, Any] | None:
        """The provider bills the whole organization: no path of it has a bill."""
        if org_path or not self._parts.billing.lines(month, "cost"):
            return None
        return self._reconcile(month).summary()

    def _reconcile(self, month: Month) -> Reconciliation:
        parts = self._parts
        usage, cost = (parts.billing.lines(month, kind) for kind in KINDS)
        return reconcile(parts.lake, parts.price_books, month, usage, cost)

    def _keep(self, report: BillingReport, author: str) -> dict[str, Any]:
        number = self._parts.billing.add(report, author)
        return {
            "report": number,
            "kind": report.kind,
            "source": report.source,
            "days": len(report.days),
            "lines": len(report.lines),
        }
