"""OpenLLMetry: traceloop-sdk with its Anthropic instrumentation; older attribute names by env."""

from conversation import (
    DEVELOPER,
    SESSION_ID,
    TOOL_OUTPUT,
    anthropic_client,
    converse,
    fail,
    otlp_url,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from traceloop.sdk import Traceloop
from traceloop.sdk.decorators import agent, tool
from traceloop.sdk.instruments import Instruments

Traceloop.init(
    app_name="shop-agent",
    exporter=OTLPSpanExporter(endpoint=f"{otlp_url()}/v1/traces"),
    disable_batch=True,
    instruments={Instruments.ANTHROPIC},
    resource_attributes={"department": "payments"},
    telemetry_enabled=False,
)
Traceloop.set_association_properties({"session_id": SESSION_ID, "user_id": DEVELOPER})


@tool(name="read_file")
def read_file(path: str) -> str:
    return TOOL_OUTPUT


@agent(name="shop_agent")
def answer() -> None:
    converse(anthropic_client(), lambda _: read_file("discount.py"))


answer()
fail(anthropic_client())
