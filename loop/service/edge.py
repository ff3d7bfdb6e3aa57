"""The edge proxy inside the service: it pulls policies over HTTP as any other gateway does."""

from __future__ import annotations

from dataclasses import asdict

from loop.service.settings import Settings
from routing_policies.client import PolicyClient
from routing_policies.decision_reporter import DecisionReporter
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
        self.app = edge_app(
            self._client,
            settings.anthropic_base_url,
            self._reporter.report,
            status=lambda: {"decisions": asdict(self._reporter.status)},
        )

    def start(self) -> None:
        self._client.start()
        self._reporter.start()

    def stop(self) -> None:
        """Sends the decisions that wait, and ends the polling."""
        self._reporter.stop()
        self._client.stop()
