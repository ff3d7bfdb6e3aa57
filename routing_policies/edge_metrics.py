"""What the edge proxy counts, in Prometheus' exposition format.

No label holds what a client may choose freely: a fleet of odd model names must not fill a memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from loop.domain.policies import Decision
from routing_policies.client import ClientStatus

CONTENT_TYPE = CONTENT_TYPE_LATEST
_FAST = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class EdgeMetrics:
    """One registry a proxy."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        given: dict[str, Any] = {"registry": self.registry, "namespace": "turnwise_edge"}
        self.requests = Counter("requests", "Requests below /v1/ that came.", ["path"], **given)
        self.responses = Counter("responses", "Answers begun.", ["path", "code"], **given)
        self.decisions = Counter(
            "decisions", "Requests decided.", ["policy_version", "arm", "rule"], **given
        )
        self.rewritten = Counter("rewritten_requests", "Requests that left changed.", **given)
        self.paused = Counter("paused_requests", "Answered 402 for a used-up budget.", **given)
        self.upstream_failures = Counter(
            "upstream_failures", "No answer, or one that broke off.", ["kind"], **given
        )
        self.clients_left = Counter("clients_left", "Clients gone before the end.", **given)
        self.clients_stalled = Counter(
            "clients_stalled", "Clients that sent or took nothing for too long.", **given
        )
        self.turned_away = Counter(
            "turned_away", "Answered 503: too many requests or bytes at once.", **given
        )
        self.unforeseen = Counter(
            "unforeseen", "Requests passed as they came, since deciding failed.", **given
        )
        self.open_requests = Gauge("open_requests", "Requests under way.", **given)
        self.buffered_bytes = Gauge("buffered_bytes", "Bodies of requests held.", **given)
        self.deciding = Histogram(
            "deciding_seconds", "From the whole request to its route.", buckets=_FAST, **given
        )
        self.first_byte = Histogram(
            "first_byte_seconds", "From sending on to the head of the answer.", ["path"],
            buckets=_SLOW, **given,
        )  # fmt: skip
        self.duration = Histogram(
            "duration_seconds", "From the first byte in to the last one out.", ["path"],
            buckets=_SLOW, **given,
        )  # fmt: skip

    def watch_policy(self, status: Callable[[], ClientStatus]) -> None:
        """Adds gauges that read the policy client whenever they are scraped."""
        self.watch("policy_serial", "Serial applied.", lambda: status().serial)
        self.watch(
            "policy_not_after", "Its end, seconds since 1970.", lambda: status().not_after_us / 1e6
        )
        self.watch(
            "policy_rejected", "Publications rejected since the start.", lambda: status().rejected
        )
        self.watch("policy_unreachable", "1 while pulling fails.", lambda: bool(status().problem))
        self.watch("kept_units", "Units whose route is kept.", lambda: status().kept_units)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Adds one gauge that is read whenever it is scraped."""
        Gauge(name, text, namespace="turnwise_edge", registry=self.registry).set_function(read)

    def count_decision(self, decision: Decision) -> None:
        self.decisions.labels(decision.policy_version, decision.arm, decision.rule_id).inc()

    def total(self, name: str) -> int:
        """All samples of one counter, over its labels."""
        wanted = f"turnwise_edge_{name}_total"
        samples = (sample for family in self.registry.collect() for sample in family.samples)
        return int(sum(sample.value for sample in samples if sample.name == wanted))

    def render(self) -> bytes:
        return generate_latest(self.registry)
