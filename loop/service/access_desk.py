"""Credentials, the organization, its directory and rules, for the API and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loop.access.attribution_rules import parse_rule
from loop.access.callers import current_caller
from loop.access.credentials import DEFAULT_OVERLAP_SECONDS, Credential
from loop.access.records import Author
from loop.access.verbs import Verb, parse_verbs
from loop.domain.content_modes import parse_mode
from loop.domain.errors import BadInput, NotFound, Refused
from loop.domain.organization import NodeSpan, OrganizationTree, check_day
from loop.domain.organization_changes import NodeRow
from loop.domain.organization_csv import MemberRow, read_members, read_nodes
from loop.service.assemble import Parts
from loop.service.attribution_stage import attribute_now, preview_rule, unattributed
from loop.service.documents import flag

DAY_US = 86_400 * 1_000_000
CHANGES = {"move": "parent_id", "rename": "name", "assign": "owner"}
INHERIT = "inherit"
MAX_DAYS = 36_500


class AccessDesk:
    """Each method answers as the API does. Credentials of a node deal with what lies below it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    # -- credentials -------------------------------------------------------------------------

    def list_tokens(self) -> dict[str, Any]:
        now_us = self._parts.access_log.now_us()
        rows = [
            credential.to_document(now_us)
            for credential in self._parts.credentials.list_all()
            if self._manages(credential.node_id)
        ]
        return {"rows": rows, "next": None}

    def create_token(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Answers the token once. Nobody gives more than its own credential has."""
        caller = current_caller.get()
        node_id = _text(document, "node_id") or caller.node_id
        tree = self._parts.organization.tree()
        if node_id and node_id not in tree.on(self._today()):
            known = tree.spans_of(node_id) if node_id in tree and not caller.node_id else ()
            begins = [span.valid_from for span in known if span.valid_from > self._today()]
            raise NotFound(
                f"There is no node {node_id!r} today.",
                why=f"It begins on {begins[0]}." if begins else "",
                fix="`turnwise org list`.",
            )
        self._check_manages(node_id)
        verbs = parse_verbs(_texts(document, "verbs"))
        if not verbs <= caller.verbs:
            raise Refused(
                f"The credential {caller.name!r} can't give verbs that it has not.",
                why=f"It has {', '.join(sorted(caller.verbs))}.",
            )
        days = _whole(document, "expires_days")
        now_us = self._parts.access_log.now_us()
        token, credential = self._parts.credentials.create(
            _text(document, "name"),
            sorted(verbs),
            _author(document),
            node_id=node_id,
            developer=_text(document, "developer"),
            expires_at_us=None if days is None else now_us + days * DAY_US,
        )
        return {"token": token, **credential.to_document(now_us)}

    def change_token(self, token_id: str, verb: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """``rotate`` (``overlap_seconds``; answers the new token once) or ``revoke``."""
        old = self._managed(token_id)
        if verb == "revoke":
            revoked = self._parts.credentials.revoke(token_id, _author(document))
            return revoked.to_document(self._parts.access_log.now_us())
        if verb != "rotate":
            raise NotFound(f"A token has no verb {verb!r}.", fix="One of rotate, revoke.")
        if not old.verbs <= current_caller.get().verbs:
            raise Refused("This credential has verbs that yours has not.")
        seconds = _whole(document, "overlap_seconds")
        overlap = DEFAULT_OVERLAP_SECONDS if seconds is None else seconds
        token, fresh = self._parts.credentials.rotate(
            token_id, _author(document), overlap_seconds=overlap
        )
        return {"token": token, **fresh.to_document(self._parts.access_log.now_us())}

    # -- the tree ----------------------------------------------------------------------------

    def list_nodes(self, day: str | None) -> dict[str, Any]:
        """The nodes in force on a day (today), from the caller's down, in order of their paths."""
        tree, on_day = self._parts.organization.tree(), check_day(day or self._today())
        within = current_caller.get().node_id
        rows = [
            _node_row(tree, node, on_day)
            for node in tree.on(on_day).values()
            if tree.is_within(node.node_id, within, on_day)
        ]
        rows.sort(key=lambda row: row["path"])
        return {"rows": rows, "day": on_day, "next": None}

    def show_node(self, node_id: str) -> dict[str, Any]:
        """What was and will be said of one node, and its paths."""
        tree = self._parts.organization.tree()
        within = current_caller.get().node_id
        if within and not tree.is_within(node_id, within, self._today()):
            raise NotFound(f"The organization has no node {node_id!r}.")
        spans = [_span(span) for span in tree.spans_of(node_id)]
        paths = [
            {"path": path.path, "valid_from": path.valid_from, "valid_to": path.valid_to}
            for path in tree.paths_of(node_id)
        ]
        return {"node_id": node_id, "spans": spans, "paths": paths}

    def import_nodes(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """``csv``, ``effective``; ``dry_run``, ``allow_past``."""
        rows = read_nodes(_text(document, "csv"))
        lines = self._parts.organization.import_nodes(
            rows, self._effective(document), _author(document), **_switches(document)
        )
        return self._changed(lines, document)

    def change_node(self, node_id: str, verb: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """``add``, ``move``, ``rename``, ``assign`` or ``close``."""
        store, day, author = self._parts.organization, self._effective(document), _author(document)
        if verb == "close":
            lines = store.close_node(node_id, day, author, **_switches(document))
        elif verb == "add":
            row = NodeRow(
                node_id,
                _text(document, "name"),
                _text(document, "kind"),
                _text(document, "parent_id"),
                _text(document, "owner"),
            )
            lines = store.import_nodes([row], day, author, **_switches(document))
        elif verb in CHANGES:
            fields = {CHANGES[verb]: _text(document, CHANGES[verb])}
            lines = store.change_node(verb, node_id, fields, day, author, **_switches(document))
        else:
            raise NotFound(
                f"A node has no verb {verb!r}.", fix=f"One of add, close, {', '.join(CHANGES)}."
            )
        return self._changed(lines, document)

    # -- developers --------------------------------------------------------------------------

    def list_members(self) -> dict[str, Any]:
        rows = [
            {"developer": row.developer, "node_id": row.node_id, "from": row.valid_from}
            for row in self._parts.organization.members()
        ]
        return {"rows": rows, "next": None}

    def assign_members(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """``csv`` with ``effective``, or one ``developer`` and ``node_id``."""
        day = self._effective(document)
        if "csv" in document:
            rows = read_members(_text(document, "csv"), day)
        else:
            developer = _text(document, "developer")
            if not developer:
                raise BadInput("Name the developer.", fix='Send "developer".')
            rows = [MemberRow(developer, _text(document, "node_id"), day)]
        lines = self._parts.organization.assign_developers(
            rows, _author(document), **_switches(document)
        )
        return self._changed(lines, document)

    # -- content modes -----------------------------------------------------------------------

    def list_content_modes(self) -> dict[str, Any]:
        """The mode of each node in force today, with the node or "settings" that it comes from."""
        modes, day = self._parts.content_modes(), self._today()
        answer = self.list_nodes(day)
        for row in answer["rows"]:
            row["mode"], row["mode_from"] = modes.of_node(row["node_id"], day)
        return answer | {"default": modes.default}

    def set_content_mode(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """``node_id`` and ``mode``; "inherit" takes the node's own away."""
        node_id, said = _text(document, "node_id"), _text(document, "mode")
        mode = None if said == INHERIT else parse_mode(said, "mode")
        changed = self._parts.content_mode_store.set_mode(node_id, mode, _author(document))
        now, source = self._parts.content_modes().of_node(node_id, self._today())
        return {"node_id": node_id, "changed": changed, "mode": now, "mode_from": source}

    # -- rules -------------------------------------------------------------------------------

    def list_rules(self) -> dict[str, Any]:
        rows = [
            rule.to_document() | {"words": rule.words()}
            for rule in self._parts.organization.rules()
        ]
        return {"rows": rows, "next": None}

    def add_rule(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """A rule and what it resolves; with ``dry_run`` nothing is written."""
        rule = parse_rule({"valid_from": self._today(), **document})
        shown = preview_rule(self._parts, rule)
        if not flag(document, "dry_run"):
            rule = self._parts.organization.add_rule(rule, _author(document))
            shown["attributed"] = attribute_now(self._parts)
        return rule.to_document() | shown

    def end_rule(self, rule_id: int, document: Mapping[str, Any]) -> dict[str, Any]:
        day = self._effective(document)
        self._parts.organization.end_rule(
            rule_id, day, _author(document), allow_past=flag(document, "allow_past")
        )
        attribute_now(self._parts)
        (ended,) = [row for row in self._parts.organization.rules() if row.rule_id == rule_id]
        return ended.to_document() | {"words": ended.words()}

    def unattributed(self, since: str | None) -> dict[str, Any]:
        return unattributed(self._parts, None if since is None else check_day(since, "since"))

    def records(self) -> dict[str, Any]:
        """Every change that was made here, the newest first; the chain is checked before."""
        self._parts.access_log.verify()
        rows = [
            record.to_document() | {"hash": record.hash}
            for record in reversed(self._parts.access_log.records())
        ]
        return {"rows": rows, "next": None}

    def _changed(self, lines: list[str], document: Mapping[str, Any]) -> dict[str, Any]:
        dry_run = flag(document, "dry_run")
        attributed = attribute_now(self._parts) if lines and not dry_run else False
        return {"changes": lines, "dry_run": dry_run, "attributed": attributed}

    def _today(self) -> str:
        return self._parts.organization.today()

    def _effective(self, document: Mapping[str, Any]) -> str:
        return check_day(_text(document, "effective") or self._today(), "effective")

    def _manages(self, node_id: str) -> bool:
        own = current_caller.get().node_id
        tree = self._parts.directories.current().tree
        return not own or tree.is_within(node_id, own, self._today())

    def _check_manages(self, node_id: str) -> None:
        if not self._manages(node_id):
            raise Refused(
                f"{node_id or 'The whole installation'} lies outside of your credential's node.",
                fix="Use a credential of the installation, or of a node above.",
            )

    def _managed(self, token_id: str) -> Credential:
        credential = self._parts.credentials.get(token_id)
        if not self._manages(credential.node_id):
            raise NotFound(f"There is no credential {token_id!r}.", fix="`turnwise token list`.")
        return credential


def _node_row(tree: OrganizationTree, node: NodeSpan, day: str) -> dict[str, Any]:
    return _span(node) | {
        "path": tree.path(node.node_id, day),
        "level": len(tree.lineage(node.node_id, day)),
    }


def _span(span: NodeSpan) -> dict[str, Any]:
    return {name: getattr(span, name) for name in span.__slots__}


def _author(document: Mapping[str, Any]) -> Author:
    author = Author(_text(document, "actor"), reason=_text(document, "reason"))
    return replace(author, credential=current_caller.get().credential)


def _switches(document: Mapping[str, Any]) -> dict[str, bool]:
    return {name: flag(document, name) for name in ("allow_past", "dry_run")}


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{name} must be a text, not {value!r}.")
    return value or ""


def _texts(document: Mapping[str, Any], name: str) -> list[str]:
    value = document.get(name)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise BadInput(f"{name} must be a list of texts.", fix=f"One or more of {', '.join(Verb)}.")


def _whole(document: Mapping[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_DAYS * 86_400:
        raise BadInput(f"{name}={value!r} is no whole number in its range.")
    return value
