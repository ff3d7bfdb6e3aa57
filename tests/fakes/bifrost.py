"""A fake of Bifrost's routing API over a real socket, written from its published OpenAPI.

It keeps rules in memory, answers as documented and refuses what the schema of a rule refuses.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_TARGET = {
    "type": "object",
    "required": ["weight"],
    "properties": {
        "provider": {"type": ["string", "null"]},
        "model": {"type": ["string", "null"]},
        "weight": {"type": "number", "exclusiveMinimum": 0},
    },
    "additionalProperties": False,
}
_FIELDS: dict[str, Any] = {
    "name": {"type": "string"},
    "description": {"type": "string"},
    "enabled": {"type": "boolean"},
    "cel_expression": {"type": "string"},
    "targets": {"type": "array", "minItems": 1, "items": _TARGET},
    "fallbacks": {"type": "array", "items": {"type": "string"}},
    "priority": {"type": "integer"},
}
_SCOPED = {"scope": {"enum": ["global", "team", "customer", "virtual_key"]}}
CREATE = Draft202012Validator(
    {
        "type": "object",
        "required": ["name", "cel_expression", "scope", "priority", "targets"],
        "properties": {**_FIELDS, **_SCOPED, "scope_id": {"type": ["string", "null"]}},
        "additionalProperties": False,
        "oneOf": [
            {"properties": {"scope": {"const": "global"}}},
            {
                "properties": {"scope": {"not": {"const": "global"}}},
                "required": ["scope_id"],
            },
        ],
    }
)
UPDATE = Draft202012Validator(
    {"type": "object", "properties": _FIELDS, "additionalProperties": False}
)


@dataclass
class FakeBifrost:
    """``rules`` by id; ``calls``: method and path of everything but reads."""

    token: str = ""
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def app(self) -> Starlette:
        path = "/api/routing/rules"
        return Starlette(
            routes=[
                Route(path, self._list, methods=["GET"]),
                Route(path, self._create, methods=["POST"]),
                Route(f"{path}/{{rule_id}}", self._change, methods=["PUT", "DELETE"]),
            ]
        )

    def add(self, rule: dict[str, Any]) -> str:
        rule_id = f"rule-{next(self._numbers)}"
        kept = {"scope_id": None, "chain_rule": False, **rule, "id": rule_id}
        self.rules[rule_id] = {**kept, "fallbacks": rule.get("fallbacks") or None}
        return rule_id

    def in_order(self) -> list[dict[str, Any]]:
        return sorted(self.rules.values(), key=lambda rule: rule["priority"])

    async def _list(self, request: Request) -> Response:
        if refusal := self._unauthorised(request):
            return refusal
        scope, scope_id = request.query_params.get("scope"), request.query_params.get("scope_id")
        rules = [
            rule
            for rule in self.rules.values()
            if rule["scope"] == scope and (rule["scope_id"] or None) == (scope_id or None)
        ]
        return JSONResponse({"rules": rules, "count": len(rules)})

    async def _create(self, request: Request) -> Response:
        if refusal := self._unauthorised(request):
            return refusal
        rule = await request.json()
        if problems := [error.message for error in CREATE.iter_errors(rule)]:
            return JSONResponse({"error": problems}, status_code=400)
        if any(one["name"] == rule["name"] for one in self.rules.values()):
            return JSONResponse({"error": "the name is taken"}, status_code=409)
        self.calls.append("POST")
        return JSONResponse({"rule": self.rules[self.add(rule)]}, status_code=201)

    async def _change(self, request: Request) -> Response:
        if refusal := self._unauthorised(request):
            return refusal
        rule_id = request.path_params["rule_id"]
        if rule_id not in self.rules:
            return JSONResponse({"error": "no such rule"}, status_code=404)
        self.calls.append(f"{request.method} {rule_id}")
        if request.method == "DELETE":
            del self.rules[rule_id]
            return JSONResponse({"message": "deleted"})
        changes = await request.json()
        if problems := [error.message for error in UPDATE.iter_errors(changes)]:
            return JSONResponse({"error": problems}, status_code=400)
        self.rules[rule_id] |= changes
        return JSONResponse({"rule": self.rules[rule_id]})

    def _unauthorised(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "")
        if self.token and given != f"Bearer {self.token}":
            return JSONResponse({"error": "who are you?"}, status_code=401)
        return None
