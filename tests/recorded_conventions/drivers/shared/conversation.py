"""The conversation that every driver holds: a question, a tool, a streamed answer, a failure."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

MODEL = "claude-sonnet-4-6"
SESSION_ID = "sess-conventions-0001"
DEVELOPER = "dana@example.com"
SYSTEM = "You answer questions about a shop's code."
QUESTION = "What do gold customers get?"
TOOL_INPUT = {"path": "discount.py"}
TOOL_OUTPUT = "def discount(tier): return 10 if tier == 'gold' else 0"
TOOL = {
    "name": "read_file",
    "description": "Reads a file.",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
}


def model_url() -> str:
    return os.environ["MODEL_URL"]


def otlp_url() -> str:
    return os.environ["OTLP_URL"]


def anthropic_client() -> Any:
    import anthropic

    return anthropic.Anthropic(api_key="none", base_url=model_url(), max_retries=0)


def converse(client: Any, run_tool: Callable[[str], str], *, as_objects: bool = False) -> None:
    """Holds the conversation; ``run_tool`` gets the call's id and returns the tool's output.

    ``as_objects`` gives the answer back to the client as its own objects, not as mappings.
    """
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    settings = {"model": MODEL, "max_tokens": 500, "system": SYSTEM, "tools": [TOOL]}
    first = client.messages.create(messages=messages, **settings)
    call = next(block for block in first.content if block.type == "tool_use")
    blocks = [block.model_dump(exclude_none=True) for block in first.content]
    answer = first.content if as_objects else blocks
    result = {"type": "tool_result", "tool_use_id": call.id, "content": run_tool(call.id)}
    messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": [result]}]
    for _ in client.messages.create(messages=messages, stream=True, **settings):
        pass


def fail(client: Any) -> None:
    """One request that the API refuses with 529."""
    import anthropic

    try:
        client.messages.create(
            model=MODEL, max_tokens=50, messages=[{"role": "user", "content": "overload"}]
        )
    except anthropic.APIStatusError as error:
        print("failed as it should:", error.status_code)


def tracer_provider(resource: dict[str, str] | None = None) -> Any:
    """An SDK provider that exports each span as it ends over OTLP/HTTP protobuf."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    attributes = {"service.name": "shop-agent", "department": "payments", **(resource or {})}
    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(
        SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{otlp_url()}/v1/traces"))
    )
    trace.set_tracer_provider(provider)
    return provider
