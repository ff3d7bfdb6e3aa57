"""``turnwise ship``: session files follow their lines to a server, resumed and without secrets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loop.domain.errors import Unavailable
from loop.service.api_client import ApiClient
from tests.service.service_process import (
    SOON_SECONDS,
    clean_environment,
    serve_process,
    turnwise,
    wait_until,
)

RECORDINGS = Path(__file__).parents[2] / "examples" / "recordings"
SECRET = "ghp_" + "a1B2c3D4" * 5


@contextmanager
def follower(folder: Path, api: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "loop.service", "ship", str(folder / "projects")),
            *("--api", api, "--interval", "0.2", "--state", str(folder / "ship.json")),
        ],
        env=clean_environment(folder / "unused"),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def turns_of(api: str, session_id: str) -> int:
    try:
        with ApiClient(api) as client:
            rows = client.get("/v1/spend", by="session")["rows"]
    except Unavailable:
        return -1
    return sum(row["turns"] for row in rows if row["session_id"] == session_id)


def request_line(number: int, text: str = "Done.") -> str:
    message = {
        "id": f"msg_{number}",
        "model": "claude-opus-4-7",
        "content": [{"type": "text", "text": text}],
        "usage": {"input_tokens": 7, "output_tokens": number},
    }
    return json.dumps(
        {
            "type": "assistant",
            "uuid": f"uuid-{number}",
            "sessionId": "shipped",
            "requestId": f"req_{number}",
            "timestamp": f"2026-11-01T10:00:{number:02}Z",
            "message": message,
        }
    )


def test_new_lines_arrive_once_through_restarts_of_both_sides(tmp_path: Path) -> None:
    session = tmp_path / "projects" / "-srv-shop" / "shipped.jsonl"
    session.parent.mkdir(parents=True)
    session.write_text(request_line(1) + "\n" + request_line(2)[:50])
    data = tmp_path / "data"
    with serve_process(data) as server:
        addresses = server.wait_until_ready()
        api = addresses.api
        with follower(tmp_path, api):
            wait_until(lambda: turns_of(api, "shipped") == 1)
        # The follower is gone; a line gets its end meanwhile and another one is added.
        session.write_text("\n".join([request_line(1), request_line(2), request_line(3)]) + "\n")
        with follower(tmp_path, api) as process:
            wait_until(lambda: turns_of(api, "shipped") == 3)
            server.send(signal.SIGTERM)
            server.wait_until_ended()
            with session.open("a") as file:
                file.write(request_line(4, f"The token is {SECRET}.") + "\n")
            host = api.removeprefix("http://")
            with serve_process(data, TURNWISE_HTTP=host) as again:
                again.wait_until_ready()
                wait_until(lambda: turns_of(api, "shipped") == 4)
                process.send_signal(signal.SIGTERM)
                assert process.wait(SOON_SECONDS) == 0
                shown = turnwise(tmp_path, "session", "show", "shipped", "--content", "--api", api)
                assert "[REDACTED:github-token]" in shown.stdout
    assert not [
        path for path in data.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]


def test_once_sends_what_is_new_and_says_how_much(tmp_path: Path) -> None:
    (source,) = (RECORDINGS / "a02_fix_bug_failed_edit" / "transcript").glob("*.jsonl")
    session = tmp_path / "projects" / source.name
    session.parent.mkdir()
    lines = source.read_text().splitlines(keepends=True)
    session.write_text("".join(lines[:5]))
    with serve_process(tmp_path / "data") as server:
        api = server.wait_until_ready().api
        arguments = ("ship", str(session.parent), "--api", api, "--once", "--json")
        state = {"XDG_STATE_HOME": str(tmp_path / "state")}
        first = json.loads(turnwise(tmp_path, *arguments, **state).stdout)
        session.write_text("".join(lines))
        second = json.loads(turnwise(tmp_path, *arguments, **state).stdout)
        third = turnwise(tmp_path, *arguments[:-1], **state)
        assert first["lines"] + second["lines"] == len(lines)
        assert first["imported"] > 0
        assert second["imported"] > 0
        assert third.stdout.startswith("0 lines")
        wait_until(lambda: turns_of(api, source.stem) > 0)
    assert (tmp_path / "state" / "turnwise" / "ship.json").exists()


def test_a_server_that_refuses_or_is_away_is_said(tmp_path: Path) -> None:
    session = tmp_path / "projects" / "shipped.jsonl"
    session.parent.mkdir()
    session.write_text(request_line(1) + "\n")
    state = str(tmp_path / "ship.json")
    arguments = ("ship", str(session.parent), "--once", "--state", state, "--api")
    away = turnwise(tmp_path, *arguments, "http://127.0.0.1:9")
    assert (away.returncode, "does not answer" in away.stderr) == (4, True)
    with serve_process(tmp_path / "data", TURNWISE_API_TOKEN="inside") as server:
        api = server.wait_until_ready().api
        refused = turnwise(tmp_path, *arguments, api)
        assert (refused.returncode, "token" in refused.stderr) == (3, True)
        taken = turnwise(tmp_path, *arguments, api, TURNWISE_API_TOKEN="inside")
        assert taken.stdout.startswith("1 lines of 1 files sent")
