"""Records what real instrumentations export, for the tests of the conventions' adapters.

    python tests/recorded_conventions/record.py ENVIRONMENTS [NAME ...]

``ENVIRONMENTS`` is a folder that gets one virtual environment for each recording, made with ``uv``
from ``requirements`` below. Each driver talks to the scripted model API and exports to a receiver
beside it, both on loopback. What arrives is written as it came to ``NAME/NNN.SIGNAL.pb``, unzipped
(but for the machine's folders in stack traces) and listed with its pinned requirements in
``index.json``.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).parent))

from scripted_model_api import serve_model_api

HERE = Path(__file__).parent
EXPORTER = "opentelemetry-exporter-otlp-proto-http==1.45.2"
ANTHROPIC = "anthropic==2.13.0"
GENAI = [
    "opentelemetry-instrumentation-genai-anthropic==1.3b0",
    "opentelemetry-util-genai==1.3b0",
    ANTHROPIC,
    EXPORTER,
]
LITELLM = ["litellm==1.110.2", "opentelemetry-sdk==1.45.2", EXPORTER]
PROXY = ["litellm[proxy]==1.109.1", "opentelemetry-sdk==1.45.2", EXPORTER]
OPENAI_V2 = [
    "opentelemetry-instrumentation-openai-v2==2.1b0",
    "openai==2.54.0",
    "opentelemetry-exporter-otlp-proto-http==1.37.0",
]
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
LATEST = "gen_ai_latest_experimental"


def recording(convention: str, driver: str, requirements: list[str], **env: str) -> dict[str, Any]:
    return {"convention": convention, "driver": driver, "requirements": requirements, "env": env}


RECORDINGS: dict[str, dict[str, Any]] = {
    "openinference": recording(
        "openinference",
        "openinference.py",
        ["openinference-instrumentation-anthropic==3.1.0", ANTHROPIC, EXPORTER],
    ),
    "openllmetry": recording(
        "openllmetry",
        "openllmetry.py",
        ["traceloop-sdk==0.62.4", ANTHROPIC, "httpx==0.28.1", EXPORTER],
    ),
    "traceai": recording(
        "traceai",
        "traceai.py",
        [
            "traceai-anthropic==0.1.10",
            "fi-instrumentation-otel==1.1.0",
            "anthropic==0.125.0",
            EXPORTER,
        ],
    ),
    "otel-genai": recording(
        "otel-genai", "otel_genai.py", GENAI, **{CAPTURE: "span_only", OPT_IN: LATEST}
    ),
    "otel-genai-without-content": recording("otel-genai", "otel_genai.py", GENAI),
    "otel-genai-events": recording(
        "otel-genai", "otel_genai_openai.py", OPENAI_V2, **{CAPTURE: "true"}
    ),
    "mlflow": recording("mlflow", "mlflow.py", ["mlflow-skinny==3.17.2", ANTHROPIC, EXPORTER]),
    "mlflow-genai": recording(
        "otel-genai",
        "mlflow.py",
        ["mlflow-skinny==3.17.2", ANTHROPIC, EXPORTER],
        MLFLOW_ENABLE_OTEL_GENAI_SEMCONV="true",
    ),
    "langfuse": recording("langfuse", "langfuse.py", ["langfuse==5.0.4", ANTHROPIC]),
    "litellm": recording("litellm", "litellm.py", LITELLM),
    "litellm-proxy": recording("litellm", "litellm_proxy.py", PROXY),
    "litellm-proxy-v2": recording("litellm", "litellm_proxy.py", PROXY, LITELLM_OTEL_V2="true"),
    "litellm-genai": recording("litellm", "litellm.py", LITELLM, **{OPT_IN: LATEST}),
}


class _Receiver(BaseHTTPRequestHandler):
    bodies: ClassVar[list[tuple[str, bytes]]] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        signal = self.path.rpartition("/")[2]
        if signal in ("traces", "logs") and "protobuf" in self.headers.get("content-type", ""):
            self.bodies.append((signal, body))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()


def main(environments: Path, names: list[str]) -> None:
    index_path = HERE / "index.json"
    index = json.loads(index_path.read_text()) if index_path.exists() else {}
    with serve_model_api() as models, ThreadingHTTPServer(("127.0.0.1", 0), _Receiver) as receiver:
        for server in (models, receiver):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        urls = {
            "MODEL_URL": f"http://127.0.0.1:{models.server_port}",
            "OTLP_URL": f"http://127.0.0.1:{receiver.server_port}",
        }
        for name in names or RECORDINGS:
            _Receiver.bodies = []
            index[name] = _record(name, environments, urls)
        for server in (models, receiver):
            server.shutdown()
    index_path.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")


def _record(name: str, environments: Path, urls: dict[str, str]) -> dict[str, Any]:
    entry = RECORDINGS[name]
    environment = environments / entry["driver"].removesuffix(".py")
    uv_env = {**os.environ, "VIRTUAL_ENV": str(environment)}
    if not environment.exists():
        subprocess.run(["uv", "venv", "--quiet", str(environment)], check=True)
        install = ["uv", "pip", "install", "--quiet", "--prerelease", "allow"]
        subprocess.run([*install, *entry["requirements"]], check=True, env=uv_env)
    driver_env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **urls, **entry["env"]}
    driver = HERE / "drivers" / entry["driver"]
    subprocess.run(
        [environment / "bin" / "python", "-P", driver],
        check=True,
        env={**driver_env, "PYTHONPATH": str(driver.parent / "shared")},
        timeout=600,
    )
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, (signal, body) in enumerate(_Receiver.bodies, start=1):
        content = _without_paths(body, environments, HERE)
        (folder / f"{number:03}.{signal}.pb").write_bytes(content)
    print(f"{name}: {len(_Receiver.bodies)} bodies", file=sys.stderr)
    return {**entry, "bodies": sorted(path.name for path in folder.iterdir())}


def _without_paths(body: bytes, *paths: Path) -> bytes:
    """Stack traces name folders of the machine: each becomes a name of the same length, so that
    the lengths inside the message stay true."""
    for path in paths:
        for folder in {str(path), str(path.resolve()), str(path.resolve().parent)}:
            hidden = b"/" + b"x" * (len(folder.encode()) - 1)
            body = body.replace(folder.encode(), hidden)
    return body


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
