"""LiteLLM's own OTel callback. Which conventions it speaks is set by its documented variables."""

import os
import sys
import time

from conversation import (
    DEVELOPER,
    MODEL,
    QUESTION,
    SESSION_ID,
    SYSTEM,
    TOOL,
    TOOL_OUTPUT,
    model_url,
    otlp_url,
)

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "otlp_http"
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"{otlp_url()}/v1/traces"
os.environ["OTEL_SERVICE_NAME"] = "litellm"

import litellm
from opentelemetry import trace

litellm.callbacks = ["otel"]
function = {
    "name": TOOL["name"],
    "description": TOOL["description"],
    "parameters": TOOL["input_schema"],
}


def complete(messages):
    """Metadata anew each time: LiteLLM notes in it what it has logged."""
    return litellm.completion(
        messages=messages,
        model=f"anthropic/{MODEL}",
        api_base=model_url(),
        api_key="none",
        max_tokens=500,
        max_retries=0,
        tools=[{"type": "function", "function": function}],
        user=DEVELOPER,
        metadata={"session_id": SESSION_ID, "user_api_key_team_alias": "payments"},
        litellm_session_id=SESSION_ID,
    )


messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
first = complete(messages)
time.sleep(
    3
)  # its callbacks run in threads of their own, and a second request may stop the first's
call = first.choices[0].message.tool_calls[0]
messages += [
    first.choices[0].message.model_dump(exclude_none=True),
    {"role": "tool", "tool_call_id": call.id, "content": TOOL_OUTPUT},
]
complete(messages)
try:
    complete([{"role": "user", "content": "overload"}])
except litellm.exceptions.InternalServerError as error:
    print("failed as it should:", error.status_code, file=sys.stderr)
time.sleep(3)  # its callbacks run in threads of their own
trace.get_tracer_provider().force_flush()
