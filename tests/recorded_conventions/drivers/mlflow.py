"""MLflow's tracing with Anthropic autologging, exported over OTLP instead of to a server."""

import os

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

os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{otlp_url()}/v1/traces"
os.environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"
os.environ["OTEL_SERVICE_NAME"] = "shop-agent"

import mlflow
import mlflow.anthropic
from mlflow.entities import SpanType

mlflow.anthropic.autolog()


def run_tool(call_id: str) -> str:
    with mlflow.start_span("read_file", span_type=SpanType.TOOL) as span:
        span.set_inputs(TOOL_INPUT)
        span.set_outputs(TOOL_OUTPUT)
        return TOOL_OUTPUT


with mlflow.start_span("shop_agent", span_type=SpanType.AGENT):
    mlflow.update_current_trace(
        metadata={"mlflow.trace.session": SESSION_ID, "mlflow.trace.user": DEVELOPER}
    )
    converse(anthropic_client(), run_tool)
fail(anthropic_client())
mlflow.flush_trace_async_logging()
