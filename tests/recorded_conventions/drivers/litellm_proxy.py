"""The real LiteLLM proxy in front of the model API, called as Claude Code calls a gateway."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from conversation import MODEL, QUESTION, SYSTEM, TOOL, TOOL_INPUT, TOOL_OUTPUT, model_url, otlp_url

CLAUDE_SESSION_ID = "00000000-c0de-4000-8000-000000000001"


def call(port, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/messages?beta=true",
        data=json.dumps(body).encode(),
        headers={
            "content-type": "application/json",
            "anthropic-version": "2023-06-01",
            "authorization": "Bearer sk-none",
            "user-agent": "claude-cli/2.1.330 (external, cli)",
            "x-app": "cli",
            "x-claude-code-session-id": CLAUDE_SESSION_ID,
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.read()


user_id = {"device_id": "d" * 64, "account_uuid": "", "session_id": CLAUDE_SESSION_ID}
body = {
    "model": MODEL,
    "max_tokens": 500,
    "system": [{"type": "text", "text": SYSTEM}],
    "tools": [TOOL],
    "metadata": {"user_id": json.dumps(user_id)},
    "stream": True,
}
model = {"model": f"anthropic/{MODEL}", "api_base": model_url(), "api_key": "none"}
config = {
    "model_list": [{"model_name": MODEL, "litellm_params": model}],
    "litellm_settings": {"callbacks": ["otel"], "num_retries": 0},
    "general_settings": {"master_key": "sk-none"},
}
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "config.yaml"
    path.write_text(json.dumps(config))
    environment = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "otlp_http",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{otlp_url()}/v1/traces",
        "OTEL_SERVICE_NAME": "litellm",
    }
    command = ["litellm", "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    program = str(Path(sys.executable).parent / command[0])
    proxy = subprocess.Popen([program, *command[1:]], env=environment)
    try:
        for _ in range(300):  # it starts slowly
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2)
                break
            except OSError:
                time.sleep(1)
        messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
        call(port, {**body, "messages": messages})
        use = {"type": "tool_use", "id": "toolu_01Convention0000000001", "name": "read_file"}
        result = {"type": "tool_result", "tool_use_id": use["id"], "content": TOOL_OUTPUT}
        messages += [
            {"role": "assistant", "content": [{**use, "input": TOOL_INPUT}]},
            {"role": "user", "content": [result]},
        ]
        call(port, {**body, "messages": messages})
        call(port, {**body, "messages": [{"role": "user", "content": "overload"}]})
        time.sleep(8)
    finally:
        proxy.terminate()
        proxy.wait(30)
