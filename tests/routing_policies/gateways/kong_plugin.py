"""The Kong plugin under nginx with its Lua module. Run by `make test-kong`.

Not named test_*.py: it needs Debian's nginx and Lua module, unpacked into NGINX_LUA. Kong itself
has no package there: its plugin development kit is stood in for by kong_stand_in.lua.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from loop.domain.budget_pauses import BudgetPause
from loop.domain.lifecycle import Actor, ActorKind
from tests.fakes.anthropic_api import FakeAnthropicApi
from tests.fakes.asgi_server import running_server
from tests.fakes.policy_service import activate, size_policy
from tests.routing_policies.edge_world import (
    BETAS,
    HAIKU,
    OPUS,
    Edge,
    edge_before,
    headers,
    request_body,
    served_model,
    wait_until,
)

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]
PLUGIN = ROOT / "routing_policies" / "gateways" / "kong"
NGINX = Path(os.environ.get("NGINX_LUA", ROOT / ".nginx-lua"))
MODULES = NGINX / "usr" / "lib" / "nginx" / "modules"
LIBRARIES = NGINX / "usr" / "lib" / "x86_64-linux-gnu"
LUA = NGINX / "usr" / "share" / "lua" / "5.1"
pytestmark = pytest.mark.timeout(300)

CONFIG = """
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_max_body_size 64m; client_body_buffer_size 1m;
  lua_package_path "{here}/?.lua;{plugin}/?.lua;{lua}/?.lua;;";
  init_by_lua_block {{
    handler = require "handler"; stand_in = require "kong_stand_in"
    conf = {{ edge_host = "127.0.0.1", edge_port = {edge_port}, timeout_ms = {timeout_ms} }}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      access_by_lua_block {{ kong = stand_in.kong(); handler:access(conf) }}
      header_filter_by_lua_block {{ kong = stand_in.kong(); handler:header_filter(conf) }}
      proxy_pass {api_url}; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header connection "";
    }}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def nginx(folder: Path, api_url: str, edge_port: int, timeout_ms: int = 5_000) -> Iterator[str]:
    program = NGINX / "usr" / "sbin" / "nginx"
    assert program.exists(), "run `make test-kong`"
    folder.mkdir(exist_ok=True)
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        CONFIG.format(
            modules=MODULES,
            folder=folder,
            here=HERE,
            plugin=PLUGIN,
            lua=LUA,
            port=port,
            edge_port=edge_port,
            api_url=api_url,
            timeout_ms=timeout_ms,
        )
    )
    command = [str(program), "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, env={"LD_LIBRARY_PATH": str(LIBRARIES)}) as process:
        try:
            wait_until(lambda: reaches(url, process))
            yield url
        finally:
            process.terminate()


def reaches(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "nginx ended at its start"
    try:
        return httpx.get(f"{url}/alive").status_code == 404
    except httpx.HTTPError:
        return False


@dataclass
class World:
    edge: Edge
    api: FakeAnthropicApi
    url: str
    folder: Path

    def post(self, chars: int, *, stream: bool = False, session: str = "s1") -> httpx.Response:
        body = request_body(chars, stream=stream)
        return self.edge.http.post(
            f"{self.url}/v1/messages?beta=true", json=body, headers=headers(session)
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("kong")
    api = FakeAnthropicApi()
    with ExitStack() as stack:
        api_url = stack.enter_context(running_server(api))
        edge = stack.enter_context(edge_before(folder, api_url))
        activate(edge.service.store, size_policy(10_000))
        edge.sync()
        port = int(edge.url.rpartition(":")[2])
        url = stack.enter_context(nginx(folder / "nginx", api_url, port))
        yield World(edge, api, url, folder)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("chars", "model"), [(300, HAIKU), (100_000, OPUS), (3_000_000, OPUS)])
def test_size_decides_and_the_decision_is_found_again(
    world: World, chars: int, model: str, stream: bool
) -> None:
    session = f"{chars}-{stream}"
    answer = world.post(chars, stream=stream, session=session)
    assert answer.status_code == 200, answer.text
    assert served_model(answer) == model
    sent = world.api.seen[-1]
    if model == OPUS:
        assert sent.body == answer.request.content
        assert sent.headers["anthropic-beta"] == BETAS
    else:
        assert sent.json["thinking"]["type"] == "enabled"
        assert "effort-2025-11-24" not in sent.headers["anthropic-beta"]
    (row,) = [row for row in world.edge.decisions() if row["session_id"] == session]
    assert answer.headers["request-id"] == row["decision_id"]
    assert answer.headers["x-upstream-request-id"].startswith("req_")
    assert (row["routed_model"], row["org_path"]) == (model, "acme/pay")


def test_a_policy_changes_under_load_without_a_failed_request(world: World) -> None:
    stopped, seen = threading.Event(), []

    def load(worker: int) -> None:
        while not stopped.is_set():
            answer = world.post(5_000, stream=bool(worker % 2))
            seen.append((answer.status_code, served_model(answer)))

    with ThreadPoolExecutor(3) as pool:
        loading = [pool.submit(load, worker) for worker in range(3)]
        for threshold, model in ((100, OPUS), (10_001, HAIKU), (101, OPUS), (10_000, HAIKU)):
            activate(world.edge.service.store, size_policy(threshold))
            world.edge.sync()
            begun = len(seen)
            wait_until(lambda begun=begun, model=model: (200, model) in seen[begun + 3 :])
        stopped.set()
        for task in loading:
            task.result()
    assert {status for status, _ in seen} == {200}


def test_a_used_up_budget_is_402(world: World) -> None:
    reason = Actor(ActorKind.INSTALLATION, "budgets")
    pause = BudgetPause("b_1", "The budget is used up.", session_ids=("poor",))
    world.edge.service.store.publish_pauses("prod", [pause], reason, "a test")
    world.edge.sync()
    refused = world.post(300, session="poor")
    assert (refused.status_code, refused.headers["x-should-retry"]) == (402, "false")
    assert refused.json()["error"]["message"] == "turnwise: The budget is used up."
    assert world.post(300, session="rich").status_code == 200


@pytest.mark.parametrize("away", ["refuses", "says nothing"])
def test_a_request_passes_as_it_came_while_the_edge_is_away(world: World, away: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        if away == "says nothing":
            silent.listen()
        folder = world.folder / away.replace(" ", "-")
        with nginx(folder, world.edge.upstream_url, port, timeout_ms=300) as url:
            body = json.dumps(request_body(300), indent=1).encode()
            answer = world.edge.http.post(f"{url}/v1/messages", content=body, headers=headers())
    assert answer.status_code == 200
    assert world.api.seen[-1].body == body
    assert served_model(answer) == OPUS
