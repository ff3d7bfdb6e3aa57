"""openinference-instrumentation-anthropic, with a session and a user as its docs set them."""

from conversation import (
    DEVELOPER,
    SESSION_ID,
    TOOL_INPUT,
    TOOL_OUTPUT,
    anthropic_client,
    converse,
    fail,
    tracer_provider,
)
from openinference.instrumentation import OITracer, TraceConfig, using_attributes
from openinference.instrumentation.anthropic import AnthropicInstrumentor

provider = tracer_provider()
AnthropicInstrumentor().instrument(tracer_provider=provider)
tracer = OITracer(provider.get_tracer("shop"), TraceConfig())


def run_tool(call_id: str) -> str:
    with tracer.start_as_current_span("read_file", openinference_span_kind="tool") as span:
        span.set_tool(name="read_file", parameters=TOOL_INPUT)
        span.set_attribute("tool_call.id", call_id)
        span.set_input(TOOL_INPUT)
        span.set_output(TOOL_OUTPUT)
        return TOOL_OUTPUT


with (
    using_attributes(session_id=SESSION_ID, user_id=DEVELOPER),
    tracer.start_as_current_span("shop_agent", openinference_span_kind="agent"),
):
    converse(anthropic_client(), run_tool)
with using_attributes(session_id=SESSION_ID, user_id=DEVELOPER):
    fail(anthropic_client())
provider.shutdown()
