"""The edge proxy inside the service: it pulls policies over HTTP as any other gateway does."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from typing import cast, get_args

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loop.domain.errors import BadInput, Corrupt
from loop.service.settings import Settings
from routing_policies.client import PolicyClient
from routing_policies.decision_reporter import DecisionReporter
from routing_policies.edge_answers import anthropic_error, send_answer
from routing_policies.edge_proxy import edge_app
from routing_policies.edge_stamps import EdgeMode
from routing_policies.edge_upstream import EdgeLimits
from routing_policies.kept_routes import KeptRoutes
from routing_policies.signing import TrustedKeys

log = logging.getLogger("turnwise")


class Edge:
    """The proxy's app with the client and the reporter behind it."""

    def __init__(
        self, settings: Settings, trusted: TrustedKeys, service_url: str, instance: str
    ) -> None:
        """Raises :class:`BadInput` for settings that make no proxy."""
        folder = settings.data_dir / "edge"
        self._kept, self._kept_path = KeptRoutes(), folder / "kept-routes.json"
        self._reporter = DecisionReporter(service_url, token=settings.api_token)
        self._client = PolicyClient(
            service_url,
            trusted,
            channel=settings.channel,
            gateway="edge",
            instance=instance,
            token=settings.api_token,
            state_path=folder / "last-known-good.json",
            kept_routes=self._kept,
            decided=self._reporter.decided,
        )
        self._proxy = edge_app(
            self._client,
            settings.anthropic_base_url,
            self._reporter.report,
            status=lambda: {"decisions": asdict(self._reporter.status)},
            limits=_limits_of(settings),
            mode=_mode_of(settings),
            forward_prefixes=settings.edge_forward_headers,
        )
        watch, reporter = self._proxy.metrics.watch, self._reporter
        watch("decisions_buffered", "Wait to be sent.", lambda: reporter.status.buffered)
        watch("decisions_dropped", "Lost: the buffer was full.", lambda: reporter.status.dropped)
        watch("decisions_refused", "Not wanted by the service.", lambda: reporter.status.refused)
        self.app = answering_when_cut_off(self._proxy)

    def start(self) -> None:
        """Begins to pull; the last good publication decides from now on."""
        self._client.start()
        self._reporter.start()

    def take_up_routes(self) -> None:
        """Goes on with the routes that another process left."""
        try:
            self._kept.load(self._kept_path)
        except Corrupt as error:
            log.warning("Sessions are routed anew: %s", error)

    def drain(self) -> None:
        """From now on it is not ready; what it has begun goes on."""
        self._proxy.drain()

    def leave_routes(self) -> None:
        """Leaves its routes to the next process: sessions stay on their models."""
        try:
            self._kept.save(self._kept_path)
        except OSError as error:
            log.warning("The routes of sessions could not be saved: %s", error)

    def stop(self) -> None:
        """Sends the decisions that wait, and ends the polling."""
        self._reporter.stop()
        self._client.stop()


def _limits_of(settings: Settings) -> EdgeLimits:
    limits = EdgeLimits(
        connect_seconds=settings.edge_connect_seconds,
        first_byte_seconds=settings.edge_first_byte_seconds,
        idle_seconds=settings.edge_idle_seconds,
        client_idle_seconds=settings.edge_client_idle_seconds,
        max_requests=settings.edge_max_requests,
        max_buffered_bytes=settings.edge_max_buffered_bytes,
    )
    for name, value in asdict(limits).items():
        if value <= 0:
            raise BadInput(f"edge_{name} is {value}.", fix="Give it more than 0.")
    return limits


def _mode_of(settings: Settings) -> EdgeMode:
    if settings.edge_mode not in get_args(EdgeMode):
        raise BadInput(
            f"edge_mode={settings.edge_mode!r} is no mode of the edge proxy.",
            fix=f"Write one of {', '.join(get_args(EdgeMode))}.",
        )
    return cast(EdgeMode, settings.edge_mode)


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
