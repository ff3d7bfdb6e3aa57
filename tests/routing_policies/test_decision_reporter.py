"""Decisions reach the service, also after it was away; what is lost is counted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loop.domain.errors import Unavailable
from loop.domain.policies import Decision
from routing_policies.decision_reporter import MAX_BATCH, DecisionReporter
from tests.fakes.asgi_server import running_server


def decision(number: int) -> Decision:
    return Decision(
        decision_id=f"tw_{number}",
        at_us=number,
        session_id="s",
        agent_id="",
        serial=1,
        policy_version=1,
        policy_digest="sha256:0",
        arm="stable",
        bucket=5,
        propensity=0.25,
        rule_id="short",
        requested_model="claude-opus-4-7",
        routed_model="claude-haiku-4-5",
        fixes=("effort_dropped",),
        upstream_status=200,
    )


class Intake:
    """Keeps what is posted; answers ``status``."""

    def __init__(self) -> None:
        self.status = 202
        self.rows: list[dict[str, Any]] = []
        self.posts = 0

    async def __call__(self, request: Request) -> Response:
        self.posts += 1
        rows = json.loads(await request.body())
        if self.status == 202:
            self.rows += rows
        return Response(status_code=self.status)

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/gateway/decisions", self.__call__, methods=["POST"])])


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_decisions_arrive_whole_in_order_and_in_batches() -> None:
    intake = Intake()
    with running_server(intake.app) as url:
        reporter = DecisionReporter(url, interval_seconds=0.05)
        reporter.start()
        for number in range(MAX_BATCH + 100):
            reporter.report(decision(number))
        wait_until(lambda: reporter.status.sent == MAX_BATCH + 100)
        reporter.stop()
    assert [row["decision_id"] for row in intake.rows] == [
        f"tw_{number}" for number in range(MAX_BATCH + 100)
    ]
    assert intake.rows[0]["propensity"] == 0.25
    assert intake.rows[0]["fixes"] == ["effort_dropped"]
    assert intake.posts < 10
    assert reporter.status.buffered == 0


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_service_that_can_not_take_them_now_gets_them_later(status: int) -> None:
    intake = Intake()
    intake.status = status
    with running_server(intake.app) as url:
        reporter = DecisionReporter(url)
        reporter.report(decision(1))
        with pytest.raises(Unavailable):
            reporter.send_batch()
        assert reporter.status.buffered == 1
        intake.status = 202
        assert reporter.send_batch() == 1
    assert [row["decision_id"] for row in intake.rows] == ["tw_1"]


def test_what_the_service_refuses_is_counted_and_not_sent_for_ever() -> None:
    intake = Intake()
    intake.status = 400
    with running_server(intake.app) as url:
        reporter = DecisionReporter(url)
        reporter.report(decision(1))
        reporter.send_batch()
    assert (reporter.status.refused, reporter.status.buffered) == (1, 0)


def test_a_full_buffer_drops_the_oldest_and_counts_them() -> None:
    intake = Intake()
    reporter = DecisionReporter("http://127.0.0.1:9", max_buffered=10)
    for number in range(25):
        reporter.report(decision(number))
    assert reporter.status.dropped == 15
    with pytest.raises(Unavailable):
        reporter.send_batch()
    with running_server(intake.app) as url:
        late = DecisionReporter(url, max_buffered=10)
        for number in range(25):
            late.report(decision(number))
        late.send_batch()
    assert [row["decision_id"] for row in intake.rows] == [f"tw_{n}" for n in range(15, 25)]


def test_stopping_sends_what_is_left() -> None:
    intake = Intake()
    with running_server(intake.app) as url:
        reporter = DecisionReporter(url, interval_seconds=60)
        reporter.start()
        reporter.report(decision(1))
        reporter.stop()
    assert len(intake.rows) == 1
