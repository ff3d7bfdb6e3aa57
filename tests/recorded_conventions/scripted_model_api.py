"""A scripted model API: one small conversation with a tool, over a real socket, stdlib only.

It answers ``/v1/messages`` (JSON and SSE, with a ``request-id`` header as the real API has it) and
``/v1/chat/completions``. What it answers depends on the request alone: the first message of a
conversation is answered with a tool call, its result with a text, and a prompt that says
"overload" with 529.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOOL_USE_ID = "toolu_01Convention0000000001"
ANSWERS: tuple[dict[str, Any], ...] = (
    {
        "request_id": "req_01conventionfirst00000001",
        "message_id": "msg_01conventionfirst00000001",
        "content": [
            {"type": "text", "text": "I will read the file."},
            {
                "type": "tool_use",
                "id": TOOL_USE_ID,
                "name": "read_file",
                "input": {"path": "discount.py"},
            },
        ],
        "stop_reason": "tool_use",
        "usage": {
            "input_tokens": 12,
            "output_tokens": 40,
            "cache_read_input_tokens": 1000,
            "cache_creation_input_tokens": 200,
            "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50},
        },
    },
    {
        "request_id": "req_01conventionsecond0000002",
        "message_id": "msg_01conventionsecond0000002",
        "content": [{"type": "text", "text": "Gold customers get 10 %."}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 7,
            "output_tokens": 11,
            "cache_read_input_tokens": 1200,
            "cache_creation_input_tokens": 60,
            "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 0},
        },
    },
)


def serve_model_api() -> ThreadingHTTPServer:
    """Bound to a free loopback port; the caller runs ``serve_forever`` and ``shutdown``."""
    return ThreadingHTTPServer(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        request = json.loads(body)
        if "overload" in json.dumps(request["messages"]):
            error = {"type": "overloaded_error", "message": "Overloaded"}
            document = {"type": "error", "error": error, "request_id": "req_01conventionfailed"}
            self._send_json(529, document, "req_01conventionfailed000003")
            return
        answer = ANSWERS[1 if len(request["messages"]) > 2 else 0]
        if self.path.endswith("/chat/completions"):
            self._send_json(200, _completion(answer, request["model"]), answer["request_id"])
        elif request.get("stream"):
            self._send_events(answer, request["model"])
        else:
            self._send_json(200, _message(answer, request["model"]), answer["request_id"])

    def _send_json(self, status: int, document: Any, request_id: str) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("request-id", request_id)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_events(self, answer: dict[str, Any], model: str) -> None:
        usage = {**answer["usage"], "output_tokens": 1}
        message = {**_message(answer, model), "content": [], "stop_reason": None, "usage": usage}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
        for index, block in enumerate(answer["content"]):
            is_text = block["type"] == "text"
            start = {**block, "text": ""} if is_text else {**block, "input": {}}
            delta = (
                {"type": "text_delta", "text": block["text"]}
                if is_text
                else {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            )
            events += [
                {"type": "content_block_start", "index": index, "content_block": start},
                {"type": "content_block_delta", "index": index, "delta": delta},
                {"type": "content_block_stop", "index": index},
            ]
        end = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
        usage = {"output_tokens": answer["usage"]["output_tokens"]}
        events += [
            {"type": "message_delta", "delta": end, "usage": usage},
            {"type": "message_stop"},
        ]
        content = b"".join(
            b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode())
            for event in events
        )
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("request-id", answer["request_id"])
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _message(answer: dict[str, Any], model: str) -> dict[str, Any]:
    return {
        "id": answer["message_id"],
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": answer["content"],
        "stop_reason": answer["stop_reason"],
        "stop_sequence": None,
        "usage": answer["usage"],
    }


def _completion(answer: dict[str, Any], model: str) -> dict[str, Any]:
    """The same answer as OpenAI's API would give it: its prompt tokens include the cached ones."""
    usage = answer["usage"]
    prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    calls = [
        {
            "id": block["id"],
            "type": "function",
            "function": {"name": block["name"], "arguments": json.dumps(block["input"])},
        }
        for block in answer["content"]
        if block["type"] == "tool_use"
    ]
    texts = [block["text"] for block in answer["content"] if block["type"] == "text"]
    message = {"role": "assistant", "content": "".join(texts)}
    return {
        "id": answer["message_id"].replace("msg_", "chatcmpl-"),
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": f"{model}-2026-01-01",
        "choices": [
            {
                "index": 0,
                "message": {**message, "tool_calls": calls} if calls else message,
                "finish_reason": "tool_calls" if calls else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": usage["output_tokens"],
            "total_tokens": prompt + usage["output_tokens"],
            "prompt_tokens_details": {"cached_tokens": usage["cache_read_input_tokens"]},
        },
    }
