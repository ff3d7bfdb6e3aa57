"""Budgets in the service: crossings are told, gateways pause, overrides and periods end it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from starlette.types import Receive, Scope, Send

from loop.domain.errors import BadInput
from loop.lake.rows import day_of
from loop.service.assemble import Parts, assemble
from loop.service.budget_readings import Budgets
from loop.service.notice_sending import read_targets, signature_of
from loop.service.settings import load_settings
from tests.fakes.anthropic_api import FakeAnthropicApi
from tests.fakes.asgi_server import running_server
from tests.lake.lake_records import turn
from tests.service.service_process import api_request, serve_process, turnwise

WAIT_SECONDS = 30


class Webhook:
    """Keeps what is posted to it; answers the statuses in turn, then 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.seen: list[tuple[dict[str, str], bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for reply in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
                await receive()
                await send({"type": reply})
            return
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((headers, body))
        status = self.statuses.pop(0) if self.statuses else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Mailbox(Message):
    def __init__(self) -> None:
        super().__init__(EmailMessage)
        self.mails: list[Any] = []

    def handle_message(self, message: Any) -> None:
        self.mails.append(message)


@contextmanager
def mail_server(mailbox: Mailbox) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        controller.stop()


@contextmanager
def opened(folder: Path, **given: Any) -> Iterator[Parts]:
    parts = assemble(load_settings({}, data_dir=folder / "data", **given))
    try:
        yield parts
    finally:
        parts.close()


def now_us() -> int:
    return time.time_ns() // 1000


def spend_now(parts: Parts, microusd: int, session_id: str = "s1", **more: Any) -> None:
    fields = {
        "started_at_us": now_us(), "org_path": "acme/pay", "device_id": "device-1",
        "repository": "shop", "duration_ms": 1000,
    } | more  # fmt: skip
    revision = parts.lake.max_revision() + 1
    record = turn(0, session_id, cost_microusd=microusd, **fields)
    parts.lake.write_turns([record], [], revision=revision)


def set_budget(parts: Parts, **more: Any) -> dict[str, Any]:
    document = {
        "scope": "node", "subject": "acme", "amount_microusd": 1_000_000, "actor": "ann",
        "reason": "a test", "notify": ["owner@acme.example"],
    }  # fmt: skip
    return Budgets(parts).set(document | more)


def pauses(parts: Parts) -> list[str]:
    record = parts.versions.current_publication("prod")
    assert record is not None
    return [pause.budget_id for pause in record.publication.pauses]


def test_an_alert_and_a_pause_are_told_by_webhook_and_mail_once(tmp_path: Path) -> None:
    webhook, mailbox = Webhook(), Mailbox()
    webhook.statuses = [500]
    with running_server(webhook) as url, mail_server(mailbox) as smtp:
        given = {
            "notice_webhook": url,
            "notice_webhook_secret": "key",
            "notice_smtp": smtp,
            "notice_sender": "turnwise@acme.example",
            "notice_recipients": "finance@acme.example",
        }
        with opened(tmp_path, **given) as parts:
            budget = set_budget(parts)
            for cost in (700_000, 850_000, 900_000, 1_100_000, 1_200_000):
                spend_now(parts, cost)
                parts.budget_keeper.tick()
            shown = Budgets(parts).notices()["rows"]
    subjects = [mail["Subject"] for mail in mailbox.mails]
    assert [subject.partition(":")[0] for subject in subjects] == ["Budget alert", "Budget used up"]
    assert mailbox.mails[0]["To"] == "finance@acme.example, owner@acme.example"
    # The first post was answered 500: it waits for its next attempt, the pause went through.
    assert [json.loads(body)["event"] for _, body in webhook.seen] == [
        "budget.alerted",
        "budget.paused",
    ]
    headers, body = webhook.seen[1]
    assert headers["x-turnwise-signature"] == signature_of("key", body)
    assert json.loads(body)["budget_id"] == budget["budget_id"]
    waiting = [row for row in shown if row["sent_at_us"] is None]
    assert [(row["channel"], row["problem"]) for row in waiting] == [
        ("webhook", "The webhook answered 500.")
    ]


def test_a_pause_is_published_kept_by_later_publications_and_lifted(tmp_path: Path) -> None:
    with opened(tmp_path) as parts:
        node = set_budget(parts, scope="node", subject="acme/pay")["budget_id"]
        repository = set_budget(parts, scope="repository", subject="shop")["budget_id"]
        other = set_budget(parts, scope="developer", subject="nobody")["budget_id"]
        spend_now(parts, 5_000_000)
        parts.budget_keeper.tick()
        assert sorted(pauses(parts)) == sorted([node, repository])
        record = parts.versions.current_publication("prod")
        assert record is not None
        by_id = {pause.budget_id: pause for pause in record.publication.pauses}
        assert by_id[node].device_ids == ("device-1",)
        assert by_id[repository].session_ids == ("s1",)
        assert "$5.00 of $1.00 (500 %)" in by_id[node].message

        serial = parts.versions.current_serial("prod")
        parts.budget_keeper.tick()
        assert parts.versions.current_serial("prod") == serial  # nothing changed: nothing published
        stable = record.publication.arms[0]
        parts.versions.publish(
            "prod",
            [(stable.name, stable.weight, stable.policy_version)],
            salt="another",
            actor=record.actor,
            reason="a rollout goes on",
        )
        assert sorted(pauses(parts)) == sorted([node, repository])

        budgets = Budgets(parts)
        reason = {"actor": "bob", "reason": "release week"}
        budgets.act(repository, "override", reason)
        budgets.set(
            {"scope": "node", "subject": "acme/pay", "amount_microusd": 100_000_000} | reason
        )
        parts.budget_keeper.tick()
        assert pauses(parts) == []
        shown = budgets.show(repository)
        assert (shown["state"], shown["override"]["reason"]) == ("overridden", "release week")
        budgets.act(repository, "end-override", reason)
        parts.budget_keeper.tick()
        assert pauses(parts) == [repository]
        budgets.act(repository, "close", reason)
        parts.budget_keeper.tick()
        assert pauses(parts) == []
        assert budgets.show(other)["state"] == "within"


def test_show_says_the_pace_the_lag_and_what_is_unpriced(tmp_path: Path) -> None:
    with opened(tmp_path) as parts:
        budget_id = set_budget(parts)["budget_id"]
        at_us = now_us()
        spend_now(parts, 900_000, "s1", started_at_us=at_us)
        spend_now(parts, 0, "s2", served_model="unknown-model")
        unpriced = turn(
            0, "s3", started_at_us=now_us(), org_path="acme/pay", cost_microusd=None,
            unpriced_reason="unknown model",
        )  # fmt: skip
        parts.lake.write_turns([unpriced], [], revision=parts.lake.max_revision() + 1)
        parts.budget_keeper.tick()
        shown = Budgets(parts).show(budget_id)
    assert shown["burn_microusd_per_hour"] == 3_600_000
    assert shown["enforcement_lag_seconds"] == 9.0
    assert shown["overshoot_microusd"] == 1000 * (9 + 1)
    assert (shown["percent"], shown["unpriced_turns"]) == (90.0, 1)
    assert shown["days"] == [{"day": day_of(at_us), "cost_microusd": 900_000}]


@pytest.mark.parametrize(
    "given",
    [
        {"notice_webhook": "http://elsewhere.example/hook"},
        {"notice_webhook": "file:///etc/passwd"},
        {"notice_webhook": "https://"},
        {"notice_smtp": "localhost:25"},
    ],
)
def test_notices_go_only_where_they_are_safe(given: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        read_targets(load_settings({}, data_dir=tmp_path, **given))


@pytest.mark.parametrize(
    "document",
    [
        {"colour": "red"},
        {"scope": "planet"},
        {"amount_microusd": "5"},
        {"amount_microusd": True},
        {"alert_percent": "80"},
        {"notify": "a@b.c"},
        {"subject": 5},
    ],
)
def test_a_budget_that_can_not_be_read_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    with opened(tmp_path) as parts, pytest.raises(BadInput):
        set_budget(parts, **document)


def wait_for(what: Callable[[], bool]) -> float:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < WAIT_SECONDS, "it did not come about"
        time.sleep(0.05)
    return time.monotonic() - began


def test_the_edge_pauses_a_developers_device_and_lets_it_go_again(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def ask(url: str, device_id: str = "device-1", session: str = "asked") -> httpx.Response:
        user = json.dumps({"device_id": device_id, "session_id": session})
        message = {"role": "user", "content": "Hello."}
        body = {
            "model": "claude-opus-4-7", "max_tokens": 100, "messages": [message],
            "metadata": {"user_id": user},
        }  # fmt: skip
        headers = {"x-api-key": "sk-test", "x-claude-code-session-id": session}
        return httpx.post(f"{url}/v1/messages", json=body, headers=headers, timeout=30)

    with (
        running_server(FakeAnthropicApi()) as api,
        serve_process(
            data, ANTHROPIC_BASE_URL=api, TURNWISE_BUDGET_INTERVAL_SECONDS="0.5"
        ) as server,
    ):
        addresses = server.wait_until_ready()
        at = ("--api", addresses.api)
        made = turnwise(
            data, "budget", "set", "0.01", "--for", "developer", "--name", "device-1",
            "--reason", "small on purpose", "--json", *at,
        )  # fmt: skip
        budget_id = json.loads(made.stdout)["budget_id"]
        assert ask(addresses.edge).status_code == 200
        told = api_request("asked", 1, input_tokens=100_000, at_us=now_us())
        sent = httpx.post(
            f"{addresses.otlp_http}/v1/logs",
            content=told,
            headers={"Content-Type": "application/x-protobuf"},
            timeout=30,
        )
        assert sent.status_code == 200
        lag = wait_for(lambda: ask(addresses.edge).status_code == 402)
        refused = ask(addresses.edge, session="another")
        assert refused.status_code == 402
        assert refused.headers["x-should-retry"] == "false"
        assert refused.headers["x-turnwise-budget"] == budget_id
        error = refused.json()["error"]
        assert error["type"] == "billing_error"
        assert "The budget of device-1 is used up" in error["message"]
        assert ask(addresses.edge, device_id="device-2", session="other").status_code == 200
        shown = json.loads(turnwise(data, "budget", "show", budget_id, "--json", *at).stdout)
        assert shown["state"] == "paused"
        assert lag <= max(shown["enforcement_lag_seconds"], 5) + 20  # a busy machine takes longer

        override = ("budget", "override", budget_id, "--for", "1h", "--reason", "a release")
        assert turnwise(data, *override, *at).returncode == 0
        wait_for(lambda: ask(addresses.edge).status_code == 200)
