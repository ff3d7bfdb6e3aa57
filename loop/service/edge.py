"""The edge proxy inside the service: it pulls policies over HTTP as any other gateway does."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loop.service.settings import Settings
from routing_policies.client import PolicyClient
from routing_policies.decision_reporter import DecisionReporter
from routing_policies.edge_answers import anthropic_error, send_answer
from routing_policies.edge_proxy import edge_app
from routing_policies.signing import TrustedKeys


class Edge:
    """The proxy's app with the client and the reporter behind it."""

    def __init__(
        self, settings: Settings, trusted: TrustedKeys, service_url: str, address: str
    ) -> None:
        self._client = PolicyClient(
            service_url,
            trusted,
            channel=settings.channel,
            gateway="edge",
            instance=f"edge-{address}",
            token=settings.api_token,
            state_path=settings.data_dir / "edge" / "last-known-good.json",
        )
        self._reporter = DecisionReporter(service_url, token=settings.api_token)
        self.app = answering_when_cut_off(
            edge_app(
                self._client,
                settings.anthropic_base_url,
                self._reporter.report,
                status=lambda: {"decisions": asdict(self._reporter.status)},
            )
        )

    def start(self) -> None:
        self._client.start()
        self._reporter.start()

    def stop(self) -> None:
        """Sends the decisions that wait, and ends the polling."""
        self._reporter.stop()
        self._client.stop()


def answering_when_cut_off(app: ASGIApp) -> ASGIApp:
    """Answers 503, which clients try again, to a request that the server's end cuts off.

    An answer that has begun just ends: the client notices that it is incomplete.
    """

    async def cut_off(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, note)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if not begun:
                status, headers, body = anthropic_error(
                    503, "overloaded_error", "The gateway is being restarted."
                )
                await send_answer(send, status, [*headers, (b"retry-after", b"2")], body)

    return cut_off
