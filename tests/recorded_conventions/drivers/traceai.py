"""traceai-anthropic on fi-instrumentation-otel, exporting to any OTLP endpoint."""

from conversation import (
    DEVELOPER,
    SESSION_ID,
    TOOL_INPUT,
    TOOL_OUTPUT,
    anthropic_client,
    converse,
    fail,
    otlp_url,
)
from fi_instrumentation import FITracer, register, using_attributes
from fi_instrumentation.fi_types import ProjectType
from fi_instrumentation.instrumentation.config import TraceConfig
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from traceai_anthropic import AnthropicInstrumentor

provider = register(
    project_name="shop-agent",
    project_type=ProjectType.OBSERVE,
    batch=False,
    verbose=False,
    span_exporter=OTLPSpanExporter(endpoint=f"{otlp_url()}/v1/traces"),
)
AnthropicInstrumentor().instrument(tracer_provider=provider)
tracer = FITracer(provider.get_tracer("shop"), TraceConfig())


def run_tool(call_id: str) -> str:
    with tracer.start_as_current_span("read_file", fi_span_kind="tool") as span:
        span.set_tool(name="read_file", parameters=TOOL_INPUT)
        span.set_attribute("gen_ai.tool.call.id", call_id)
        span.set_input(TOOL_INPUT)
        span.set_output(TOOL_OUTPUT)
        return TOOL_OUTPUT


with (
    using_attributes(session_id=SESSION_ID, user_id=DEVELOPER),
    tracer.start_as_current_span("shop_agent", fi_span_kind="agent"),
):
    converse(anthropic_client(), run_tool, as_objects=True)  # it fails on mappings
with using_attributes(session_id=SESSION_ID, user_id=DEVELOPER):
    fail(anthropic_client())
provider.shutdown()
