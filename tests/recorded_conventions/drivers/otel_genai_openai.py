"""The older form of the OTel GenAI conventions, messages as log events, by openai-v2."""

from conversation import (
    QUESTION,
    SYSTEM,
    TOOL,
    TOOL_OUTPUT,
    model_url,
    otlp_url,
    tracer_provider,
)
from openai import OpenAI
from opentelemetry import _logs
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.sdk._events import EventLoggerProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

provider = tracer_provider()
logs = LoggerProvider(resource=provider.resource)
logs.add_log_record_processor(
    SimpleLogRecordProcessor(OTLPLogExporter(endpoint=f"{otlp_url()}/v1/logs"))
)
_logs.set_logger_provider(logs)
OpenAIInstrumentor().instrument(
    tracer_provider=provider, event_logger_provider=EventLoggerProvider(logs)
)
client = OpenAI(api_key="none", base_url=f"{model_url()}/v1", max_retries=0)
function = {
    "name": TOOL["name"],
    "description": TOOL["description"],
    "parameters": TOOL["input_schema"],
}
settings = {"model": "gpt-5", "tools": [{"type": "function", "function": function}]}
messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
with provider.get_tracer("shop").start_as_current_span("shop"):
    first = client.chat.completions.create(messages=messages, **settings)
    call = first.choices[0].message.tool_calls[0]
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": TOOL_OUTPUT},
    ]
    client.chat.completions.create(messages=messages, **settings)
provider.shutdown()
logs.shutdown()
