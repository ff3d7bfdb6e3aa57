"""``turnwise serve`` from outside: its ports, its token, its end, and what survives a kill."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from loop.service.demo.service_process import ServiceAddresses
from tests.service.service_process import LOGS, api_request, serve_process, turnwise, wait_until

QUICK_END_SECONDS = 20.0  # well under what either request would wait
TOKEN = "a-token-for-tests"
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def post_logs(addresses: ServiceAddresses, body: bytes, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{addresses.otlp_http}/v1/logs", content=body, headers={**PROTOBUF, **headers}, timeout=30
    )


def spend_rows(output: str) -> dict[str, dict[str, Any]]:
    return {row["session_id"]: row for row in json.loads(output)["rows"]}


@contextmanager
def silent_upstream() -> Iterator[tuple[str, threading.Event]]:
    """A model API that takes a request and does not answer until the block ends."""
    got_one = threading.Event()
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)

        def accept() -> None:
            open_sockets = []
            while not done.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                open_sockets.append(connection)
                connection.recv(65_536)
                got_one.set()
            for connection in open_sockets:
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", got_one
        finally:
            done.set()
            thread.join()


def outcome_of(call: Callable[[], httpx.Response]) -> str:
    """How a request ended: its status, or that the connection did."""
    try:
        return str(call().status_code)
    except httpx.HTTPError:
        return "connection ended"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_requests_in_flight(tmp_path: Path, number: signal.Signals) -> None:
    with (
        silent_upstream() as (upstream, upstream_asked),
        serve_process(
            tmp_path, ANTHROPIC_BASE_URL=upstream, TURNWISE_EDGE_DRAIN_SECONDS="2"
        ) as process,
        ThreadPoolExecutor() as pool,
        ExitStack() as open_connections,
    ):
        addresses = process.wait_until_ready()
        for url in (addresses.api, addresses.otlp_http, addresses.edge):
            assert httpx.get(f"{url}/nothing").status_code in (401, 404, 405)
        assert post_logs(addresses, api_request("s1", 1)).status_code == 200
        etag = httpx.get(f"{addresses.api}/v1/gateway/policy").headers["ETag"]
        polling = open_connections.enter_context(
            closing(HTTPConnection(addresses.api.removeprefix("http://"), timeout=40))
        )
        polling.request("GET", "/v1/gateway/policy?wait=30", headers={"If-None-Match": etag})
        routed = pool.submit(
            outcome_of,
            lambda: httpx.post(
                f"{addresses.edge}/v1/messages",
                json={"model": "claude-opus-4-7", "max_tokens": 5, "messages": []},
                timeout=40,
            ),
        )
        assert upstream_asked.wait(20)
        # Answered after the poll's bytes came: by now the server has read both.
        assert httpx.get(f"{addresses.api}/nothing").status_code == 404
        began = time.monotonic()
        process.send(number)
        assert process.wait_until_ended() == 0
        assert time.monotonic() - began < QUICK_END_SECONDS
        assert polling.getresponse().status == 304
        assert routed.result() == "503"  # its upstream never answers; the client tries again
        ready = [line for line in process.lines if line.startswith("ready")]
        assert len(ready) == 1
        assert "Traceback" not in process.stderr
        assert process.stdout() == ""
    shown = turnwise(tmp_path, "spend", "by", "session", "--json")
    assert spend_rows(shown.stdout)["s1"]["turns"] == 1


@pytest.mark.parametrize("flag", ["--http", "--otlp-http", "--otlp-grpc", "--edge"])
def test_a_port_in_use_is_named(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with serve_process(tmp_path, flag, address) as process:
            assert process.wait_until_ended(60) == 4
    assert address in process.stderr
    assert "Traceback" not in process.stderr
    assert not any(line.startswith("ready") for line in process.lines)


@pytest.mark.parametrize("flag", ["--http", "--otlp-http", "--otlp-grpc", "--edge"])
def test_an_address_outside_loopback_needs_a_token(tmp_path: Path, flag: str) -> None:
    ended = turnwise(tmp_path, "serve", flag, "0.0.0.0:0")
    assert ended.returncode == 2
    assert "TURNWISE_API_TOKEN" in ended.stderr
    assert ended.stdout == ""


def test_the_token_guards_every_port(tmp_path: Path) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    body = api_request("s1", 1)
    with serve_process(tmp_path, TURNWISE_API_TOKEN=TOKEN) as process:
        addresses = process.wait_until_ready()
        api = addresses.api
        assert httpx.get(f"{api}/healthz").status_code == 200
        assert httpx.get(f"{api}/readyz").status_code == 200
        for path in ("/", "/v1/spend", "/v1/gateway/policy", "/static/turnwise.css", "/v1/none"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
                refused = httpx.get(f"{api}{path}", headers=headers)
                assert refused.status_code == 401, path
                assert refused.json()["error"]["code"] == "unauthorized"
                assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        assert httpx.post(f"{api}/v1/evaluate", json={}).status_code == 401
        assert httpx.get(f"{api}/v1/spend", headers=bearer).status_code == 200
        assert httpx.get(f"{api}/", headers=bearer).status_code == 200

        assert post_logs(addresses, body).status_code == 401
        assert post_logs(addresses, body, **bearer).status_code == 200

        with grpc.insecure_channel(addresses.otlp_grpc) as channel:
            export = channel.unary_unary(LOGS)
            with pytest.raises(grpc.RpcError) as refusal:
                export(body, timeout=20)
            assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
            export(body, metadata=[("authorization", f"Bearer {TOKEN}")], timeout=20)

        refused_command = turnwise(tmp_path, "spend", "by", "day", "--json", "--api", api)
        assert refused_command.returncode == 3
        shown = turnwise(
            tmp_path, "spend", "by", "day", "--json", "--api", api, TURNWISE_API_TOKEN=TOKEN
        )
        assert shown.returncode == 0
        assert TOKEN not in process.stderr
        process.send(signal.SIGTERM)
        assert process.wait_until_ended() == 0


def test_what_was_acknowledged_is_read_and_foreign_callers_are_refused(tmp_path: Path) -> None:
    with serve_process(tmp_path) as process:
        addresses = process.wait_until_ready()
        assert post_logs(addresses, api_request("by-http", 1, 111)).status_code == 200
        with grpc.insecure_channel(addresses.otlp_grpc) as channel:
            channel.unary_unary(LOGS)(api_request("by-grpc", 1, 222), timeout=20)
        wait_until(
            lambda: len(spend_rows(httpx.get(f"{addresses.api}/v1/spend?by=session").text)) == 2
        )
        asked = httpx.get(f"{addresses.api}/v1/spend?by=session").text
        by_api = turnwise(tmp_path, "spend", "by", "session", "--json", "--api", addresses.api)
        by_data = turnwise(
            tmp_path / "x", "spend", "by", "session", "--json", "--data", f"{tmp_path}"
        )
        for output in (asked, by_api.stdout, by_data.stdout):
            rows = spend_rows(output)
            assert {name: row["input_tokens"] for name, row in rows.items()} == {
                "by-http": 111,
                "by-grpc": 222,
            }

        foreign = httpx.get(f"{addresses.api}/v1/spend", headers={"Host": "evil.example"})
        assert foreign.status_code == 403
        assert foreign.json()["error"]["code"] == "refused"
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            posted = httpx.post(f"{addresses.api}/v1/evaluate", content="{}", headers=headers)
            assert posted.status_code == 403
            assert posted.json()["error"]["code"] == "refused"
        own = {"Origin": addresses.api, "Sec-Fetch-Site": "same-origin"}
        assert httpx.post(f"{addresses.api}/v1/evaluate", headers=own).status_code == 200


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with serve_process(tmp_path) as first:
        addresses = first.wait_until_ready()
        second = turnwise(tmp_path, "serve")
        assert second.returncode == 4
        assert str(tmp_path) in second.stderr
        assert "Traceback" not in second.stderr
        assert post_logs(addresses, api_request("s1", 1)).status_code == 200
        first.send(signal.SIGKILL)
        first.wait_until_ended()
        with serve_process(tmp_path) as third:  # the lock went with the first one
            third.wait_until_ready()
            assert "Traceback" not in third.stderr


class Senders:
    """Threads that post one record after another and note which ones were acknowledged."""

    def __init__(self, addresses: ServiceAddresses) -> None:
        self.acknowledged: Counter[str] = Counter()
        self._addresses = addresses
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=run, args=(name,))
            for run, name in (
                (self._post, "http-a"),
                (self._post, "http-b"),
                (self._export, "grpc-a"),
                (self._export, "grpc-b"),
            )
        ]
        for thread in self._threads:
            thread.start()

    def total(self) -> int:
        with self._lock:
            return self.acknowledged.total()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _note(self, session_id: str) -> None:
        with self._lock:
            self.acknowledged[session_id] += 1

    def _post(self, session_id: str) -> None:
        with httpx.Client(timeout=10, headers=PROTOBUF) as client:
            number = 0
            while True:
                number += 1
                try:
                    answer = client.post(
                        f"{self._addresses.otlp_http}/v1/logs",
                        content=api_request(session_id, number),
                    )
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200
                self._note(session_id)

    def _export(self, session_id: str) -> None:
        with grpc.insecure_channel(self._addresses.otlp_grpc) as channel:
            export = channel.unary_unary(LOGS)
            number = 0
            while True:
                number += 1
                try:
                    export(api_request(session_id, number), timeout=10)
                except grpc.RpcError:
                    return
                self._note(session_id)


def test_a_kill_in_the_middle_of_ingest_loses_nothing(tmp_path: Path) -> None:
    with serve_process(tmp_path, TURNWISE_DRAIN_INTERVAL_MS="50") as process:
        senders = Senders(process.wait_until_ready())
        deadline = time.monotonic() + 20
        while senders.total() < 400 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send(signal.SIGKILL)
        process.wait_until_ended()
        senders.join()
    assert len(senders.acknowledged) == 4
    shown = turnwise(tmp_path / "x", "spend", "by", "session", "--json", "--data", str(tmp_path))
    assert shown.returncode == 0, shown.stderr
    rows = spend_rows(shown.stdout)
    assert rows.keys() == senders.acknowledged.keys()
    for session_id, acknowledged in senders.acknowledged.items():
        row = rows[session_id]
        # The one that each sender had on its way may be on the disk without its answer sent.
        assert acknowledged <= row["turns"] <= acknowledged + 1
        assert row["input_tokens"] == 100 * row["turns"]
        assert row["output_tokens"] == 10 * row["turns"]
