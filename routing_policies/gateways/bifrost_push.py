"""Writes a policy's rules into a running Bifrost, over its routing API.

Bifrost pulls nothing; its rules take effect as they are written. The rules of one name are made to
be those given: what is the same is left alone, so pushing twice changes nothing. It is one call a
rule and no transaction: while a push is under way a request may meet old rules beside new ones.
Old rules are deleted last, so that none falls through to no rule at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from loop.domain.errors import Refused, Unavailable
from routing_policies.exports.bifrost import BifrostRules
from routing_policies.service_connection import ServiceConnection

RULES_PATH = "/api/routing/rules"
TIMEOUT_SECONDS = 10.0
_WRITTEN = ("name", "description", "enabled", "cel_expression", "targets", "fallbacks", "priority")


@dataclass(frozen=True, slots=True)
class Pushed:
    """How many rules were written, and how many were as they should be."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0


def push_rules(
    wanted: BifrostRules,
    *,
    name: str,
    url: str,
    scope: str = "global",
    scope_id: str = "",
    token: str = "",
    dry_run: bool = False,
) -> Pushed:
    """Makes the rules of a scope whose names begin with ``name`` and a space be the wanted ones.

    Rules of other names and scopes are never touched. Raises :class:`Unavailable`, and
    :class:`Refused` with Bifrost's reason when it refuses a rule; what was written until then
    stays, and the next push goes on from there.
    """
    connection = ServiceConnection(url, token)
    found = _owned(connection, name, scope, scope_id)
    created = updated = unchanged = 0
    for rule in wanted.rules:
        old = found.pop(rule["name"], None)
        if old is not None and _same(rule, old):
            unchanged += 1
            continue
        created, updated = created + (old is None), updated + (old is not None)
        if dry_run:
            continue
        if old is None:
            _call(connection, "POST", RULES_PATH, rule)
        else:
            body = {key: rule[key] for key in _WRITTEN}
            _call(connection, "PUT", f"{RULES_PATH}/{quote(str(old['id']), safe='')}", body)
    if not dry_run:
        for old in found.values():
            _call(connection, "DELETE", f"{RULES_PATH}/{quote(str(old['id']), safe='')}")
    return Pushed(created, updated, len(found), unchanged)


def _owned(
    connection: ServiceConnection, name: str, scope: str, scope_id: str
) -> dict[str, Mapping[str, Any]]:
    query = urlencode({"scope": scope} | ({"scope_id": scope_id} if scope_id else {}))
    rules = _call(connection, "GET", f"{RULES_PATH}?{query}").get("rules") or ()
    return {
        str(rule["name"]): rule
        for rule in rules
        if str(rule.get("name", "")).startswith(f"{name} ")
    }


def _same(rule: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Bifrost answers empty fields as null or not at all."""
    plain = [(rule[key] or None, old.get(key) or None) for key in _WRITTEN if key != "targets"]
    targets = [
        [
            {key: value for key, value in target.items() if value}
            for target in one.get("targets", ())
        ]
        for one in (rule, old)
    ]
    return all(new == known for new, known in plain) and targets[0] == targets[1]


def _call(
    connection: ServiceConnection, method: str, path: str, body: object = None
) -> dict[str, Any]:
    answer = connection.request(
        method,
        path,
        body=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
        timeout_seconds=TIMEOUT_SECONDS,
    )
    if not 200 <= answer.status < 300:
        text = answer.body[:500].decode("utf-8", "replace")
        message = f"Bifrost answered {answer.status} to {method} {path.partition('?')[0]}."
        if answer.status in (400, 401, 403, 404, 409, 422):
            raise Refused(message, why=text)
        raise Unavailable(message, why=text)
    try:
        document = json.loads(answer.body or b"{}")
    except ValueError as error:
        raise Unavailable(f"Bifrost's answer to {method} is not JSON.") from error
    return document if isinstance(document, dict) else {}
