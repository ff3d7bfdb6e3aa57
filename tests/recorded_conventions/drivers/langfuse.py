"""The Langfuse SDK: generations by hand, with the usage details that its docs give for Claude."""

import anthropic
from conversation import (
    DEVELOPER,
    MODEL,
    QUESTION,
    SESSION_ID,
    SYSTEM,
    TOOL,
    TOOL_INPUT,
    TOOL_OUTPUT,
    anthropic_client,
    otlp_url,
)
from langfuse import Langfuse, propagate_attributes
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

langfuse = Langfuse(
    public_key="none",
    secret_key="none",
    base_url=otlp_url(),
    span_exporter=OTLPSpanExporter(endpoint=f"{otlp_url()}/v1/traces"),
    flush_at=1,
)
client = anthropic_client()


def usage_details(usage):
    return {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
    }


messages = [{"role": "user", "content": QUESTION}]
settings = {"model": MODEL, "max_tokens": 500, "system": SYSTEM, "tools": [TOOL]}
with (
    propagate_attributes(session_id=SESSION_ID, user_id=DEVELOPER),
    langfuse.start_as_current_observation(name="shop_agent", as_type="agent"),
):
    for _ in range(2):
        with langfuse.start_as_current_observation(
            name="claude", as_type="generation", model=MODEL, input=messages
        ) as generation:
            answer = client.messages.create(messages=messages, **settings)
            blocks = [block.model_dump(exclude_none=True) for block in answer.content]
            generation.update(output=blocks, usage_details=usage_details(answer.usage))
        calls = [block for block in answer.content if block.type == "tool_use"]
        for call in calls:
            with langfuse.start_as_current_observation(
                name=call.name, as_type="tool", input=TOOL_INPUT, metadata={"id": call.id}
            ) as observation:
                observation.update(output=TOOL_OUTPUT)
            result = {"type": "tool_result", "tool_use_id": call.id, "content": TOOL_OUTPUT}
            messages += [
                {"role": "assistant", "content": blocks},
                {"role": "user", "content": [result]},
            ]
with (
    propagate_attributes(session_id=SESSION_ID, user_id=DEVELOPER),
    langfuse.start_as_current_observation(
        name="claude", as_type="generation", model=MODEL, input=[]
    ) as generation,
):
    try:
        overload = [{"role": "user", "content": "overload"}]
        client.messages.create(model=MODEL, max_tokens=50, messages=overload)
    except anthropic.APIStatusError as error:
        generation.update(level="ERROR", status_message=str(error))
langfuse.shutdown()
