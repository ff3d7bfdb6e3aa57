"""The organization tree, the developer directory and the attribution rules: their one writer.

What holds on days that are past can be changed only when that is asked for (``allow_past``), and
the record of the change says so. The days before a change are never touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)

from loop.access.attribution_rules import AttributionRule, parse_rule
from loop.access.credentials import credentials
from loop.access.records import AccessLog, Author
from loop.control.store import metadata
from loop.domain.errors import BadInput, Conflict, NotFound, Refused
from loop.domain.organization import NodeSpan, OrganizationTree, check_day
from loop.domain.organization_changes import (
    NodeRow,
    add_nodes,
    change_node,
    changed_nodes,
    close_node,
    describe_change,
)
from loop.domain.organization_csv import MemberRow

organization_spans = Table(
    "organization_spans",
    metadata,
    Column("node_id", String(64), primary_key=True),
    Column("valid_from", String(10), primary_key=True),
    Column("valid_to", String(10), nullable=False),
    Column("name", String(100), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("parent_id", String(64), nullable=False),
    Column("owner", String(255), nullable=False),
)
developer_memberships = Table(
    "developer_memberships",
    metadata,
    Column("developer", String(255), primary_key=True),
    Column("valid_from", String(10), primary_key=True),
    Column("node_id", String(64), nullable=False),  # "" from then on: in no node
)
attribution_rules = Table(
    "attribution_rules",
    metadata,
    Column("rule_id", Integer, primary_key=True, autoincrement=False),
    Column("document", Text, nullable=False),
    Column("valid_to", String(10), nullable=False),
)

_SPAN = ("node_id", "name", "kind", "parent_id", "owner", "valid_from", "valid_to")


class OrganizationStore:
    """Changes the tree, the directory and the rules. Each change is one transaction and one
    record; with ``dry_run`` nothing is written and the words are the same."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log

    def tree(self) -> OrganizationTree:
        with self._log.reading() as connection:
            return load_tree(connection)

    def members(self) -> list[MemberRow]:
        """The directory in order of developer and day."""
        with self._log.reading() as connection:
            return load_members(connection)

    def rules(self) -> list[AttributionRule]:
        """In the order in which they are asked; ended ones too."""
        with self._log.reading() as connection:
            return load_rules(connection)

    def import_nodes(
        self,
        rows: Sequence[NodeRow],
        day: str,
        author: Author,
        *,
        allow_past: bool = False,
        dry_run: bool = False,
    ) -> list[str]:
        """Adds or changes the nodes of the rows from a day on; returns what changes, in words."""
        return self._change(
            "tree.import",
            f"{len(rows)} nodes",
            lambda tree: add_nodes(tree, rows, day),
            day,
            author,
            allow_past=allow_past,
            dry_run=dry_run,
        )

    def change_node(
        self,
        verb: str,
        node_id: str,
        fields: Mapping[str, str],
        day: str,
        author: Author,
        *,
        allow_past: bool = False,
        dry_run: bool = False,
    ) -> list[str]:
        """Moves, renames or hands on a node from a day on; returns what changes, in words."""
        return self._change(
            f"node.{verb}",
            node_id,
            lambda tree: change_node(tree, node_id, fields, day),
            day,
            author,
            allow_past=allow_past,
            dry_run=dry_run,
        )

    def close_node(
        self,
        node_id: str,
        day: str,
        author: Author,
        *,
        allow_past: bool = False,
        dry_run: bool = False,
    ) -> list[str]:
        """Ends a node before a day. Raises :class:`Conflict` while anything hangs on it then."""
        with self._log.reading() as connection:
            _check_unused(connection, node_id, day, self._log.now_us())
        return self._change(
            "node.close",
            node_id,
            lambda tree: close_node(tree, node_id, day),
            day,
            author,
            allow_past=allow_past,
            dry_run=dry_run,
        )

    def assign_developers(
        self,
        rows: Sequence[MemberRow],
        author: Author,
        *,
        allow_past: bool = False,
        dry_run: bool = False,
    ) -> list[str]:
        """Puts developers into nodes from their days on; returns what changes, in words."""
        if not rows:
            return []
        first_day = min(row.valid_from for row in rows)
        with self._log.writing() as connection:
            tree = load_tree(connection)
            known = {(row.developer, row.valid_from): row for row in load_members(connection)}
            problems, lines, changed = [], [], []
            for row in rows:
                place = f"line {row.line}: " if row.line else ""
                if row.node_id and tree.node(row.node_id, row.valid_from) is None:
                    problems.append(f"{place}there is no node {row.node_id} on {row.valid_from}.")
                developer = row.developer.casefold()
                before = known.get((developer, row.valid_from))
                if before is not None and before.node_id == row.node_id:
                    continue
                changed.append(row)
                known[developer, row.valid_from] = row
                path = tree.path(row.node_id, row.valid_from) or "no node"
                lines.append(f"{row.developer} is in {path} from {row.valid_from} on.")
            if problems:
                raise BadInput("The directory can't be changed so.", why=" ".join(problems[:20]))
            past = self._check_past(first_day, allow_past) if changed else False
            if changed and not dry_run:
                for row in changed:
                    key = (developer_memberships.c.developer == row.developer.casefold()) & (
                        developer_memberships.c.valid_from == row.valid_from
                    )
                    connection.execute(delete(developer_memberships).where(key))
                    connection.execute(
                        insert(developer_memberships).values(
                            developer=row.developer.casefold(),
                            valid_from=row.valid_from,
                            node_id=row.node_id,
                        )
                    )
                details = {
                    "from": first_day,
                    "past": past,
                    "developers": [
                        [row.developer.casefold(), row.node_id, row.valid_from] for row in changed
                    ],
                }
                self._log.append(
                    connection,
                    "developers.assign",
                    f"{len(changed)} developers",
                    author,
                    details,
                )
        return lines

    def add_rule(self, rule: AttributionRule, author: Author) -> AttributionRule:
        """Adds a rule behind those there are. It may reach back: it fills only what is open.

        Raises :class:`BadInput` for a node that is not in force on the rule's first day.
        """
        with self._log.writing() as connection:
            tree = load_tree(connection)
            if rule.node_id and tree.node(rule.node_id, rule.valid_from) is None:
                raise BadInput(
                    f"There is no node {rule.node_id} on {rule.valid_from}.",
                    fix="`turnwise org list --day DAY` shows those of a day.",
                )
            last = connection.scalar(select(func.max(attribution_rules.c.rule_id))) or 0
            document = rule.to_document() | {"rule_id": last + 1}
            added = parse_rule(document, last + 1)
            connection.execute(
                insert(attribution_rules).values(
                    rule_id=last + 1, document=json.dumps(document), valid_to=""
                )
            )
            details = {"from": rule.valid_from, "rule": document}
            self._log.append(connection, "rule.add", str(last + 1), author, details)
        return added

    def end_rule(self, rule_id: int, day: str, author: Author, *, allow_past: bool = False) -> None:
        """Ends a rule before a day. Raises :class:`NotFound`, :class:`Conflict` when it ended."""
        past = self._check_past(check_day(day), allow_past)
        with self._log.writing() as connection:
            found = [rule for rule in load_rules(connection) if rule.rule_id == rule_id]
            if not found:
                raise NotFound(f"There is no rule {rule_id}.", fix="`turnwise org rule list`.")
            if found[0].valid_to:
                raise Conflict(f"Rule {rule_id} ends before {found[0].valid_to} already.")
            connection.execute(
                update(attribution_rules)
                .where(attribution_rules.c.rule_id == rule_id)
                .values(valid_to=max(day, found[0].valid_from))
            )
            details = {"from": day, "past": past, "rule": found[0].to_document()}
            self._log.append(connection, "rule.end", str(rule_id), author, details)

    def today(self) -> str:
        """The UTC day that it is."""
        return datetime.fromtimestamp(self._log.now_us() / 1e6, UTC).date().isoformat()

    def _change(
        self,
        verb: str,
        subject: str,
        change: Any,
        day: str,
        author: Author,
        *,
        allow_past: bool,
        dry_run: bool,
    ) -> list[str]:
        check_day(day, "effective")
        with self._log.writing() as connection:
            before = load_tree(connection)
            after: OrganizationTree = change(before)
            nodes = changed_nodes(before, after)
            lines = describe_change(before, after, day)
            past = self._check_past(day, allow_past) if nodes else False
            if nodes and not dry_run:
                _write_spans(connection, after, nodes)
                details = {
                    "from": day,
                    "past": past,
                    "changes": lines,
                    "before": [_said(span) for span in before.spans if span.node_id in nodes],
                    "after": [_said(span) for span in after.spans if span.node_id in nodes],
                }
                self._log.append(connection, verb, subject, author, details)
        return lines

    def _check_past(self, day: str, allowed: bool) -> bool:
        """Whether the day is past. Raises :class:`Refused` unless that was asked for."""
        past = day < self.today()
        if past and not allowed:
            raise Refused(
                f"{day} is past: turns of that day were charged already.",
                fix="Choose today or a later day, or ask for it (--allow-past): it is recorded, "
                "and the turns since then are attributed anew.",
            )
        return past


def load_tree(connection: Connection) -> OrganizationTree:
    rows = connection.execute(select(organization_spans)).all()
    return OrganizationTree(
        NodeSpan(**{name: getattr(row, name) for name in _SPAN}) for row in rows
    )


def load_members(connection: Connection) -> list[MemberRow]:
    table = developer_memberships
    query = select(table).order_by(table.c.developer, table.c.valid_from)
    return [
        MemberRow(row.developer, row.node_id, row.valid_from) for row in connection.execute(query)
    ]


def load_rules(connection: Connection) -> list[AttributionRule]:
    query = select(attribution_rules).order_by(attribution_rules.c.rule_id)
    found = []
    for row in connection.execute(query):
        rule = parse_rule(json.loads(row.document), row.rule_id)
        found.append(
            AttributionRule(
                rule.rule_id,
                rule.conditions,
                rule.node_id,
                rule.developer,
                rule.repository,
                rule.valid_from,
                row.valid_to,
            )
        )
    return found


def _check_unused(connection: Connection, node_id: str, day: str, now_us: int) -> None:
    """Raises :class:`Conflict` while a credential or a developer is in the node from a day on."""
    live = [
        row.name
        for row in connection.execute(select(credentials).where(credentials.c.node_id == node_id))
        if row.revoked_at_us is None and (row.expires_at_us is None or row.expires_at_us > now_us)
    ]
    latest: dict[str, str] = {}
    later: set[str] = set()
    for member in load_members(connection):
        if member.valid_from <= day:
            latest[member.developer] = member.node_id
        elif member.node_id == node_id:
            later.add(member.developer)
    developers = sorted({name for name, where in latest.items() if where == node_id} | later)
    hanging = [f"credential {name}" for name in live] + developers
    if hanging:
        raise Conflict(
            f"Node {node_id} can't end on {day}: {', '.join(hanging[:10])} "
            f"{'are' if len(hanging) > 1 else 'is'} in it.",
            fix="Revoke the credentials and move the developers first.",
        )


def _write_spans(connection: Connection, tree: OrganizationTree, nodes: Iterable[str]) -> None:
    for node_id in nodes:
        connection.execute(
            delete(organization_spans).where(organization_spans.c.node_id == node_id)
        )
    rows = [_said(span) for span in tree.spans if span.node_id in set(nodes)]
    if rows:
        connection.execute(insert(organization_spans), rows)


def _said(span: NodeSpan) -> dict[str, str]:
    return {name: getattr(span, name) for name in _SPAN}
