"""A lake of small sessions, and the stand-in of the model API, for the judge's tests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loop.domain.turns import Content, ToolCall, Turn
from loop.service.assemble import Parts, assemble
from loop.service.judge_desk import JudgeDesk
from loop.service.settings import load_settings
from tests.fakes.asgi_server import running_server
from tests.fakes.judge_api import FakeJudgeApi
from tests.lake.lake_records import content, turn

HOUR_US = 3_600_000_000
ORG_PATH = "engineering/payments"


def session(
    session_id: str, *, org_path: str = ORG_PATH, hours_ago: float = 2.0, **given: Any
) -> tuple[list[Turn], list[Content]]:
    """Runs the tests and says that they pass."""
    at_us = time.time_ns() // 1000 - round(hours_ago * HOUR_US)
    call = ToolCall(f"toolu_{session_id}", "Bash", True, at_us=at_us + 10)
    times = {"started_at_us": at_us, "ended_at_us": at_us + 20}
    turns = [
        turn(1, session_id, tool_calls=(call,), org_path=org_path, **times, **given),
        turn(2, session_id, tool_calls=(), org_path=org_path, **times, **given),
    ]
    tool = {"tool_use_id": call.tool_use_id, "tool_name": "Bash"}
    given_text = json.dumps({"command": "pytest -q"})
    return turns, [
        content(1, session_id, kind="tool_input", text=given_text, at_us=at_us + 10, **tool),
        content(
            1, session_id, kind="tool_output", text="33 passed in 4.02s", at_us=at_us + 11, **tool
        ),
        content(2, session_id, text="All 33 tests pass. I ran them.", at_us=at_us + 19),
    ]


@dataclass
class JudgedHouse:
    parts: Parts
    api: FakeJudgeApi
    folder: Path
    environment: dict[str, str]
    _waiting: list[tuple[list[Turn], list[Content]]] = field(default_factory=list)

    @property
    def desk(self) -> JudgeDesk:
        return JudgeDesk(self.parts)

    def add(self, *sessions: tuple[list[Turn], list[Content]]) -> None:
        revision = self.parts.lake.max_revision() + 1
        turns = [one for turns, _ in sessions for one in turns]
        contents = [one for _, contents in sessions for one in contents]
        self.parts.lake.write_turns(turns, contents, revision=revision)

    def add_later(self, one: tuple[list[Turn], list[Content]]) -> None:
        self._waiting.append(one)

    def add_all(self) -> None:
        self.add(*self._waiting)
        self._waiting = []

    def run(self, **document: Any) -> dict[str, Any]:
        """The row of one rubric's run."""
        given = {"rubrics": ["faithfulness"], **document}
        (row,) = self.desk.run(given)["rows"]
        return row

    def sent_bodies(self) -> list[dict[str, Any]]:
        bodies = []
        for call in self.api.seen:
            if call.method == "POST" and call.path.endswith("/batches"):
                bodies += [request["params"] for request in call.json["requests"]]
            elif call.method == "POST" and call.path == "/v1/messages":
                bodies.append(call.json)
        return bodies

    def scores(self) -> dict[str, Any]:
        found = self.parts.lake.scores_of()
        return {score.session_id: score for score in found if score.evaluator.startswith("judge_")}


@contextmanager
def judged_house(
    folder: Path, api: FakeJudgeApi | None = None, **given: str
) -> Iterator[JudgedHouse]:
    """``given`` are settings by their environment names without ``TURNWISE_``."""
    fake = api or FakeJudgeApi()
    with running_server(fake) as url:
        environment = {
            "ANTHROPIC_API_KEY": "test-key",
            "TURNWISE_JUDGE_BASE_URL": url,
            "TURNWISE_JUDGE_ORG_PATHS": "engineering",
            "TURNWISE_JUDGE_SAMPLE_RATE": "1",
            **{f"TURNWISE_{name}": value for name, value in given.items()},
        }
        parts = assemble(load_settings(environment, data_dir=folder))
        try:
            yield JudgedHouse(parts, fake, folder, environment)
        finally:
            parts.close()
