"""What was refused is counted by whom and why, even of a process that is killed right after."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import grpc
import httpx
import pytest

from tests.service.service_process import api_request, serve_process, turnwise, wait_until

TOKEN = "an-installations-token"
LINE = b'{"type":"user","uuid":"u1","sessionId":"s1","message":{"role":"user","content":"hi"}}\n'
GRPC_LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
PROTOBUF = {"content-type": "application/x-protobuf"}


def test_no_refusal_is_lost_with_a_killed_process(tmp_path: Path) -> None:
    mine = {"authorization": f"Bearer {TOKEN}"}
    with serve_process(tmp_path, TURNWISE_API_TOKEN=TOKEN) as process:
        addresses = process.wait_until_ready()
        made = turnwise(
            tmp_path, "token", "create", "reader", "--verbs", "read", "--json", "--api",
            addresses.api, TURNWISE_API_TOKEN=TOKEN,
        )  # fmt: skip
        reader = {"authorization": f"Bearer {json.loads(made.stdout)['token']}"}
        otlp, transcripts = f"{addresses.otlp_http}/v1/logs", f"{addresses.api}/v1/transcripts"
        decisions, path = f"{addresses.api}/v1/gateway/decisions", {"path": "p/s1.jsonl"}
        with httpx.Client(timeout=60) as client:
            answers = [
                client.post(url, content=body, headers=headers, params=query).status_code
                for url, body, headers, query in (
                    (otlp, api_request("s0", 1), mine | PROTOBUF, {}),
                    (otlp, b"\xff", mine | PROTOBUF, {}),
                    (otlp, b"", PROTOBUF, {}),
                    (transcripts, LINE + b"{half\n" + LINE, mine, path),
                    (transcripts, LINE, mine, {"path": "no-session-file"}),
                    (transcripts, LINE, {}, path),
                    (transcripts, LINE, reader, path),
                    (decisions, b"{}", mine, {}),
                    (decisions, b"[]", {"authorization": "Bearer wrong"}, {}),
                )
            ]
        assert answers == [200, 400, 401, 200, 400, 401, 403, 400, 401]
        with (
            grpc.insecure_channel(addresses.otlp_grpc) as channel,
            pytest.raises(grpc.RpcError) as refused,
        ):
            channel.unary_unary(GRPC_LOGS)(b"\xff", timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        process.send(signal.SIGKILL)
        process.wait_until_ended()
    with serve_process(tmp_path, TURNWISE_API_TOKEN=TOKEN) as process:
        api = process.wait_until_ready().api

        def rows() -> list[dict[str, object]]:
            answer = httpx.get(f"{api}/v1/intake?by=source", headers=mine, timeout=60).json()
            assert answer["total"]["balanced"]
            found: list[dict[str, object]] = answer["rows"]
            return found

        def is_all_told() -> bool:
            total = httpx.get(f"{api}/v1/intake", headers=mine, timeout=60).json()["total"]
            return total["received"] >= 4 and sum(total["bodies_refused"].values()) >= 8

        wait_until(is_all_told)
        told = rows()
    holder = json.loads(made.stdout)["token_id"]
    refused_bodies: Counter[tuple[object, ...]] = Counter()
    for row in told:
        for reason, count in dict(row["bodies_refused"]).items():  # type: ignore[call-overload]
            refused_bodies[row["kind"], row["credential"], reason] += count
    assert refused_bodies == {
        ("logs", "installation", "malformed"): 1,
        ("logs", "", "unauthorized"): 2,
        ("transcript", "installation", "malformed"): 1,
        ("transcript", "", "unauthorized"): 1,
        ("transcript", holder, "forbidden"): 1,
        ("decisions", "installation", "malformed"): 1,
        ("decisions", "", "unauthorized"): 1,
    }
    counts = ("received", "stored", "duplicates", "rejected")
    (lines,) = [
        [row[name] for name in counts]
        for row in told
        if (row["kind"], row["credential"]) == ("transcript", "installation")
    ]
    assert lines == [3, 1, 1, {"broken_line": 1}]
