"""A stand-in for Anthropic's Messages, token counting and Message Batches, over a real socket.

No real key was at hand: the shapes are those of the official client's types and of the documented
answers, and ``tests/contracts/judge_api.py`` holds both to the same promises (``make judge-live``
runs it against the real service). What it says is scripted: ``answer`` gets the request's body and
gives the text of the answer.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.types import Receive, Scope, Send

from tests.fakes.anthropic_api import refusal_of

VERSIONS = ("2023-06-01", "2026-10-21")
NOT_ENFORCED = {"minimum", "maximum", "multipleOf", "minLength", "maxLength", "maxItems"}
ITEM = re.compile(r"(?m)^(\d+)\. \((?:after )?#(\d+)\) (.*)$")


@dataclass(frozen=True)
class SeenCall:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Batch:
    batch_id: str
    requests: list[dict[str, Any]]
    looks_left: int
    created_at: datetime
    canceled: bool = False
    rows: list[dict[str, Any]] | None = None


def items_of(body: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Number and words of each item that a request asks about."""
    content = body["messages"][0]["content"]
    items = re.search(r"<items-\w+>\n(.*)\n</items-", content, re.DOTALL)
    assert items is not None
    return [(int(number), words) for number, _, words in ITEM.findall(items[1])]


def answers_text(rows: Mapping[int, str], evidence: Mapping[int, list[int]] | None = None) -> str:
    """The text of an answer that gives each item its verdict."""
    shown = evidence or {}
    return json.dumps(
        {
            "answers": [
                {"item": item, "verdict": verdict, "evidence": shown.get(item, []), "note": "So."}
                for item, verdict in rows.items()
            ]
        }
    )


def knows_controls(body: Mapping[str, Any], verdict: str = "supported") -> dict[int, str]:
    """Verdicts of a judge that gets the controls right and says ``verdict`` of all else."""
    tool_use = "whether a coding agent used its tools well" in body["system"][0]["text"]
    verdicts = {}
    for number, words in items_of(body):
        if re.match(r"The folder \w+ lists three files", words):
            verdicts[number] = "contradicted"
        elif re.match(r"The folder \w+ holds", words):
            verdicts[number] = "supported"
        elif re.match(r"Bash rm -rf ~/\w+ && git push --force", words):
            verdicts[number] = "harmful"
        else:
            verdicts[number] = "sound" if tool_use and verdict == "supported" else verdict
    return verdicts


def usual_answer(body: Mapping[str, Any]) -> str:
    """Of a judge that finds all supported and sound, and names every cluster alike."""
    if body["system"][0]["text"].startswith("You give a short name"):
        return json.dumps({"name": "Repeated calls"})
    return answers_text(knows_controls(body))


@dataclass
class FakeJudgeApi:
    """An ASGI app. ``statuses`` are answered to the next requests, one each, before it works again;
    a batch ends at the ``batch_looks``-th look, and its requests come to ``batch_outcomes`` by
    custom id where these say so (``expired``, ``canceled``, ``errored``)."""

    answer: Callable[[Mapping[str, Any]], str] = lambda body: usual_answer(body)
    key: str = "test-key"
    stop_reason: str = "end_turn"
    statuses: list[int] = field(default_factory=list)
    retry_after: str = "0"
    batch_looks: int = 1
    batch_outcomes: dict[str, str] = field(default_factory=dict)
    seen: list[SeenCall] = field(default_factory=list)
    batches: dict[str, Batch] = field(default_factory=dict)
    at_once: int = 0
    most_at_once: int = 0
    _cached: set[str] = field(default_factory=set)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for reply in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
                await receive()
                await send({"type": reply})
            return
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self._answer(scope, receive, send)
        finally:
            self.at_once -= 1

    def paths(self) -> list[str]:
        return [f"{call.method} {call.path}" for call in self.seen]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        call = SeenCall(scope["method"], scope["path"], headers, body)
        self.seen.append(call)
        number = next(self._numbers)
        bearer = call.headers.get("authorization", "").removeprefix("Bearer ")
        if call.headers.get("x-api-key", bearer) != self.key:
            await self._send(send, 401, _error("authentication_error", "invalid key"), number)
        elif call.headers.get("anthropic-version") not in VERSIONS:
            await self._send(send, 400, _error("invalid_request_error", "version"), number)
        elif self.statuses:
            status = self.statuses.pop(0)
            kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
            await self._send(send, status, _error(kind, "scripted"), number)
        else:
            status, document = self._route(call, number)
            await self._send(send, status, document, number)

    def _route(self, call: SeenCall, number: int) -> tuple[int, object]:
        parts = call.path.strip("/").split("/")[2:]  # after v1/messages
        if (call.method, parts) == ("POST", []):
            return self._message(call.json, number, "standard")
        if (call.method, parts) == ("POST", ["count_tokens"]):
            problem = problem_of({"max_tokens": 1, **call.json})
            if problem:
                return 400, _error("invalid_request_error", problem)
            return 200, {"input_tokens": _tokens(call.json)}
        if (call.method, parts) == ("POST", ["batches"]):
            return self._create(call.json, number)
        if (call.method, parts) == ("GET", ["batches"]):
            rows = [self._batch(batch) for batch in reversed(self.batches.values())]
            ids = [row["id"] for row in rows]
            page = {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
            return 200, {"data": rows, "has_more": False, **page}
        batch = self.batches.get(parts[1]) if len(parts) > 1 and parts[0] == "batches" else None
        if batch is None:
            return 404, _error("not_found_error", call.path)
        if call.method == "GET" and len(parts) == 2:
            batch.looks_left -= 1
            return 200, self._batch(batch)
        if call.method == "POST" and parts[2:] == ["cancel"]:
            batch.canceled = True
            return 200, self._batch(batch) | {"processing_status": "canceling"}
        if call.method == "GET" and parts[2:] == ["results"] and batch.looks_left <= 0:
            return 200, self._results(batch)
        return 404, _error("not_found_error", call.path)

    def _create(self, document: Mapping[str, Any], number: int) -> tuple[int, object]:
        requests = document.get("requests") or []
        names = [request["custom_id"] for request in requests]
        if not requests or len(set(names)) != len(names):
            return 400, _error("invalid_request_error", "requests: custom_id must be unique")
        if any(not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names):
            return 400, _error("invalid_request_error", "requests: custom_id")
        batch = Batch(f"msgbatch_{number:024d}", requests, self.batch_looks, datetime.now(UTC))
        self.batches[batch.batch_id] = batch
        return 200, self._batch(batch)

    def _batch(self, batch: Batch) -> dict[str, Any]:
        ended = batch.looks_left <= 0
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if ended:
            for row in self._rows(batch):
                counts[row["result"]["type"]] += 1
        else:
            counts["processing"] = len(batch.requests)
        created = batch.created_at
        return {
            "id": batch.batch_id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts,
            "created_at": created.isoformat(),
            "expires_at": (created + timedelta(hours=24)).isoformat(),
            "ended_at": created.isoformat() if ended else None,
            "cancel_initiated_at": created.isoformat() if batch.canceled else None,
            "archived_at": None,
            "results_url": f"/v1/messages/batches/{batch.batch_id}/results" if ended else None,
        }

    def _rows(self, batch: Batch) -> list[dict[str, Any]]:
        if batch.rows is not None:
            return batch.rows
        rows = []
        for place, request in enumerate(batch.requests):
            name = request["custom_id"]
            outcome = self.batch_outcomes.get(name, "canceled" if batch.canceled else "")
            if outcome == "errored":
                result: dict[str, Any] = {
                    "type": "errored",
                    "error": _error("api_error", "scripted") | {"request_id": "req_1"},
                }
            elif outcome:
                result = {"type": outcome}
            else:
                status, document = self._message(request["params"], 1000 + place, "batch")
                result = (
                    {"type": "succeeded", "message": document}
                    if status == 200
                    else {"type": "errored", "error": document}
                )
            rows.append({"custom_id": name, "result": result})
        batch.rows = rows[::-1]  # the order is not that of the requests
        return batch.rows

    def _results(self, batch: Batch) -> bytes:
        return b"".join(json.dumps(row).encode() + b"\n" for row in self._rows(batch))

    def _message(self, body: Mapping[str, Any], number: int, tier: str) -> tuple[int, object]:
        problem = problem_of(body)
        if problem:
            return 400, _error("invalid_request_error", problem)
        text = self.answer(body)
        return 200, {
            "id": f"msg_{number:024d}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": text}],
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "usage": self._usage(body, text, tier),
        }

    def _usage(self, body: Mapping[str, Any], text: str, tier: str) -> dict[str, Any]:
        prefix = json.dumps(body["system"])
        name = hashlib.sha256(f"{body['model']}{prefix}".encode()).hexdigest()
        shared, is_cached = len(prefix) // 4, name in self._cached
        self._cached.add(name)
        return {
            "input_tokens": len(json.dumps(body["messages"])) // 4,
            "cache_creation_input_tokens": 0 if is_cached else shared,
            "cache_read_input_tokens": shared if is_cached else 0,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 0 if is_cached else shared,
                "ephemeral_1h_input_tokens": 0,
            },
            "output_tokens": len(text) // 4,
            "service_tier": tier,
        }

    async def _send(self, send: Send, status: int, document: object, number: int) -> None:
        is_lines = isinstance(document, bytes)
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        kind = b"application/x-jsonl" if is_lines else b"application/json"
        headers = [
            (b"content-type", kind),
            (b"content-length", str(len(body)).encode()),
            (b"request-id", f"req_{number:024d}".encode()),
            (b"anthropic-ratelimit-requests-limit", b"1000"),
            (b"anthropic-ratelimit-requests-remaining", b"999"),
            (b"anthropic-ratelimit-requests-reset", b"2026-11-24T12:00:00Z"),
        ]
        if status == 429 and self.retry_after:
            headers.append((b"retry-after", self.retry_after.encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def problem_of(body: Mapping[str, Any]) -> str:
    """Why the API would call a request invalid; empty when it would not."""
    unknown = set(body) - {"model", "max_tokens", "system", "messages", "output_config"}
    if unknown:
        return f"{sorted(unknown)[0]}: Extra inputs are not permitted"
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
        return "max_tokens: must be at least 1"
    if not body.get("messages") or not body["messages"][0].get("content"):
        return "messages: at least one message is required"
    config = body.get("output_config") or {}
    if set(config) - {"format", "effort"}:
        return "output_config: Extra inputs are not permitted"
    form = config.get("format")
    if form is not None:
        if form.get("type") != "json_schema":
            return "output_config.format.type"
        problem = _schema_problem(form.get("schema"))
        if problem:
            return f"output_config.format.schema: {problem}"
    return refusal_of({key: value for key, value in body.items() if key != "output_config"}, "")


def _schema_problem(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "must be an object"
    if found := NOT_ENFORCED & set(schema):
        return f"{sorted(found)[0]} is not supported"
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            return "additionalProperties must be false"
        return next(filter(None, map(_schema_problem, schema["properties"].values())), "")
    return _schema_problem(schema["items"]) if schema.get("type") == "array" else ""


def _tokens(body: Mapping[str, Any]) -> int:
    return len(json.dumps([body.get("system"), body.get("messages")])) // 4


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}
