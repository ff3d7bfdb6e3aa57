"""The OTel GenAI conventions by OTel's own Anthropic instrumentation."""

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
from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor
from opentelemetry.util.genai.handler import TelemetryHandler

provider = tracer_provider({"user.email": DEVELOPER})
AnthropicInstrumentor().instrument(tracer_provider=provider)
tracer = provider.get_tracer("shop")


def run_tool(call_id: str) -> str:
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "read_file",
        "gen_ai.tool.call.id": call_id,
        "gen_ai.tool.call.arguments": str(TOOL_INPUT).replace("'", '"'),
        "gen_ai.tool.call.result": TOOL_OUTPUT,
    }
    with tracer.start_as_current_span("execute_tool read_file", attributes=attributes):
        return TOOL_OUTPUT


handler = TelemetryHandler(tracer_provider=provider)
with handler.invoke_local_agent(agent_name="shop_agent", conversation_id=SESSION_ID):
    converse(anthropic_client(), run_tool)
fail(anthropic_client())
provider.shutdown()
