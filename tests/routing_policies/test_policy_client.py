"""The policy client against a real service: what it takes, what it refuses, how it routes."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from loop.domain.errors import BadInput, Unavailable
from loop.domain.policies import (
    BUCKETS,
    Arm,
    Condition,
    Guards,
    Publication,
    RouteRequest,
    RoutingPolicy,
    Rule,
    bucket_of,
    canonical_json,
)
from routing_policies.client import PolicyClient, fetch_trusted_keys
from routing_policies.kept_routes import KeptRoutes
from routing_policies.signing import Signer, TrustedKeys, sign_envelope
from tests.fakes.policy_service import (
    BEN,
    PolicyService,
    activate,
    approve,
    policy_service,
    size_policy,
)

OPUS, HAIKU = "claude-opus-4-7", "claude-haiku-4-5"
SIGNER = Signer(Ed25519PrivateKey.generate())
HOUR_US = 3_600_000_000


def now_us() -> int:
    return time.time_ns() // 1000


def publication(serial: int = 5, **changes: Any) -> Publication:
    arm = Arm("stable", BUCKETS, 1, size_policy(10_000))
    issued = now_us()
    whole = Publication(serial, "prod", (arm,), "s1", issued, issued + HOUR_US)
    return replace(whole, **changes)


def envelope_of(document: Publication | dict[str, Any], signer: Signer = SIGNER) -> bytes:
    if isinstance(document, Publication):
        document = document.to_document()
    return sign_envelope(canonical_json(document).encode(), [signer])


class ScriptedService:
    """Serves whatever bytes it is given, as a server that was broken into would."""

    def __init__(self) -> None:
        self.envelope = b""
        self.headers: dict[str, str] = {}
        self.cut_to: int | None = None
        self.acks: list[dict[str, Any]] = []
        self.asked: list[str] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append(self.headers.get("if-none-match", ""))
                body = service.envelope
                self.send_response(200)
                for name, value in service.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: service.cut_to])

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                service.acks.append(json.loads(self.rfile.read(length)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def scripted() -> Iterator[ScriptedService]:
    service = ScriptedService()
    yield service
    service.stop()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PolicyService]:
    with policy_service(tmp_path) as found:
        yield found


def client_of(url: str, **options: Any) -> PolicyClient:
    return PolicyClient(url, TrustedKeys.of([SIGNER.public_key]), instance="edge-1", **options)


def ask(tokens: int, session: str = "s", **changes: Any) -> RouteRequest:
    return RouteRequest(OPUS, session_id=session, total_input_tokens=tokens, **changes)


def test_a_publication_is_applied_and_acknowledged(service: PolicyService) -> None:
    published = activate(service.store, size_policy(10_000))
    client = PolicyClient(service.url, service.trusted, instance="edge-1")
    assert client.poll_once(0) == "applied"
    assert client.publication == published
    (ack,) = service.store.acknowledgements()
    assert (ack.instance, ack.applied_serial, ack.last_status) == ("edge-1", 1, "applied")
    assert client.poll_once(0) == "unchanged"
    choice = client.route(ask(100))
    assert choice.decision.routed_model == HAIKU
    assert choice.decision.bucket == bucket_of("s1", "s")


def good_at_first(scripted: ScriptedService, **options: Any) -> PolicyClient:
    scripted.envelope = envelope_of(publication(5))
    client = client_of(scripted.url, **options)
    assert client.poll_once(0) == "applied"
    return client


def tampered() -> bytes:
    envelope = json.loads(envelope_of(publication(6)))
    payload = base64.b64decode(envelope["payload"]).replace(HAIKU.encode(), OPUS.encode())
    envelope["payload"] = base64.b64encode(payload).decode()
    return json.dumps(envelope).encode()


def with_rules(count: int) -> RoutingPolicy:
    rules = tuple(
        Rule(f"r{number}", (Condition("input_tokens", "<", number),), HAIKU)
        for number in range(count)
    )
    return RoutingPolicy(name="many", rules=rules)


def of_arms(*arms: Arm) -> Publication:
    return publication(6, arms=arms)


STRANGER = Signer(Ed25519PrivateKey.generate())
HALF = BUCKETS // 2
ATTACKS: dict[str, tuple[bytes, int]] = {
    "tampered payload": (tampered(), 0),
    "older serial": (envelope_of(publication(4)), 4),
    "same serial, other content": (envelope_of(publication(5, salt="other")), 5),
    "expired": (envelope_of(publication(6, not_after_us=now_us() - 1)), 6),
    "other channel": (envelope_of(publication(6, channel="beta")), 6),
    "unknown key": (envelope_of(publication(6), STRANGER), 0),
    "no policy": (envelope_of({**publication(6).to_document(), "arms": [{}]}), 0),
    "another schema": (envelope_of({**publication(6).to_document(), "schema": "x/9"}), 0),
    "not an object": (sign_envelope(b"[]", [SIGNER]), 0),
    "not JSON": (sign_envelope(b"{", [SIGNER]), 0),
    "nested deeply": (sign_envelope(b"[" * 100_000, [SIGNER]), 0),
    "too many rules": (envelope_of(of_arms(Arm("a", BUCKETS, 1, with_rules(1_001)))), 6),
    "too large": (envelope_of(of_arms(Arm("a", BUCKETS, 1, with_rules(5_000)))), 6),
    "two arms of one name": (
        envelope_of(of_arms(Arm("a", HALF, 1, size_policy(1)), Arm("a", HALF, 2, size_policy(2)))),
        6,
    ),
    "empty body": (b"", 0),
    "no envelope": (b"<html>gateway timeout</html>", 0),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_rejected_acknowledged_as_such_and_changes_nothing(
    scripted: ScriptedService, tmp_path: Path, attack: str
) -> None:
    state = tmp_path / "lkg.json"
    client = good_at_first(scripted, state_path=state)
    before, saved = client.publication, state.read_bytes()
    scripted.envelope, serial = ATTACKS[attack]
    assert client.poll_once(0) == "rejected"
    assert client.publication == before
    assert client.route(ask(100)).decision.routed_model == HAIKU
    assert state.read_bytes() == saved
    ack = scripted.acks[-1]
    assert (ack["status"], ack["serial"], ack["instance"]) == ("rejected", serial, "edge-1")
    assert ack["error"]
    assert client.status.rejected == 1
    assert client.status.problem.startswith("rejected")


def test_a_body_cut_off_on_its_way_is_rejected_and_asked_for_again(
    scripted: ScriptedService,
) -> None:
    client = good_at_first(scripted)
    scripted.envelope = envelope_of(publication(6))
    scripted.cut_to = 300
    assert client.poll_once(0) == "rejected"
    assert (scripted.acks[-1]["status"], scripted.acks[-1]["serial"]) == ("rejected", 0)
    assert client.status.serial == 5
    scripted.cut_to = None
    assert client.poll_once(0) == "applied"
    assert client.status.serial == 6


def test_a_renewal_with_a_higher_serial_and_old_content_is_a_rollback(
    scripted: ScriptedService,
) -> None:
    client = good_at_first(scripted)
    scripted.envelope = envelope_of(publication(6, arms=(Arm("b", BUCKETS, 2, size_policy(1)),)))
    assert client.poll_once(0) == "applied"
    assert client.route(ask(100)).decision.routed_model == OPUS
    scripted.envelope = envelope_of(publication(7))
    assert client.poll_once(0) == "applied"
    assert client.route(ask(100)).decision.routed_model == HAIKU


def test_bytes_that_the_service_means_to_serve_are_not_asked_for_again(
    service: PolicyService,
) -> None:
    """A wrong publication must not be pulled in a busy loop."""
    service.store.install_baseline()
    client = PolicyClient(service.url, TrustedKeys.of([SIGNER.public_key]), instance="edge-1")
    assert client.poll_once(0) == "rejected"
    assert client.poll_once(0) == "unchanged"


def test_the_last_known_good_publication_survives_a_restart(
    service: PolicyService, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "lkg.json"
    activate(service.store, size_policy(10_000))
    first = PolicyClient(service.url, service.trusted, state_path=path)
    first.poll_once(0)
    away = PolicyClient("http://127.0.0.1:9", service.trusted, state_path=path)
    assert away.load_last_known_good()
    assert away.route(ask(100)).decision.routed_model == HAIKU
    assert away.status.etag == first.status.etag
    with pytest.raises(Unavailable):
        away.poll_once(0)
    assert away.route(ask(100)).decision.routed_model == HAIKU
    back = PolicyClient(service.url, service.trusted, state_path=path, instance="edge-9")
    back.load_last_known_good()
    assert back.poll_once(0) == "unchanged"
    (ack,) = (row for row in service.store.acknowledgements() if row.instance == "edge-9")
    assert ack.applied_serial == 1


def test_the_saved_serial_keeps_older_ones_out_after_a_restart(
    scripted: ScriptedService, tmp_path: Path
) -> None:
    path = tmp_path / "lkg.json"
    good_at_first(scripted, state_path=path)
    scripted.envelope = envelope_of(publication(4))
    client = client_of(scripted.url, state_path=path)
    client.load_last_known_good()
    assert client.poll_once(0) == "rejected"


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"envelope": "e30=", "etag": "x"}'])
def test_a_damaged_state_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lkg.json"
    path.write_bytes(content)
    client = client_of("http://127.0.0.1:9", state_path=path)
    assert not client.load_last_known_good()
    assert client.status.problem
    assert client.route(ask(100)).decision.rule_id == "passthrough:no_publication"


def test_a_state_file_of_a_key_no_longer_trusted_is_not_used(
    scripted: ScriptedService, tmp_path: Path
) -> None:
    path = tmp_path / "lkg.json"
    good_at_first(scripted, state_path=path)
    client = PolicyClient(scripted.url, TrustedKeys({}), state_path=path)
    assert not client.load_last_known_good()
    assert client.route(ask(100)).decision.serial == 0


def test_an_expired_publication_passes_requests_through(scripted: ScriptedService) -> None:
    clock = [now_us()]
    scripted.envelope = envelope_of(publication(5))
    client = client_of(scripted.url, now_us=lambda: clock[0])
    client.poll_once(0)
    assert client.route(ask(100)).decision.routed_model == HAIKU
    clock[0] += HOUR_US + 1_000_000
    decision = client.route(ask(100)).decision
    assert (decision.routed_model, decision.rule_id) == (OPUS, "passthrough:expired")
    assert (decision.serial, decision.arm) == (5, "")


def test_the_kill_switch_passes_requests_through(service: PolicyService) -> None:
    activate(service.store, size_policy(10_000))
    client = PolicyClient(service.url, service.trusted)
    client.poll_once(0)
    service.store.publish(
        "prod", [("stable", BUCKETS, 1)], salt="s1", actor=BEN, reason="stop", kill=True
    )
    client.poll_once(0)
    decision = client.route(ask(100)).decision
    assert (decision.routed_model, decision.rule_id) == (OPUS, "passthrough:kill")


def test_a_decision_carries_the_arm_and_its_propensity(service: PolicyService) -> None:
    service.store.install_baseline()
    version = approve(service.store, size_policy(10_000))
    service.store.publish(
        "prod",
        [("a", 2_500, 1), ("b", 7_500, version)],
        salt="s1",
        rollout_id="explore-1",
        actor=BEN,
        reason="exploration",
    )
    client = PolicyClient(service.url, service.trusted)
    client.poll_once(0)
    counts = {"a": 0, "b": 0}
    for number in range(400):
        decision = client.route(ask(100, f"session-{number}")).decision
        bucket = bucket_of("s1", f"session-{number}")
        assert decision.bucket == bucket
        assert decision.arm == ("a" if bucket < 2_500 else "b")
        assert decision.propensity == (0.25 if decision.arm == "a" else 0.75)
        assert decision.routed_model == (OPUS if decision.arm == "a" else HAIKU)
        assert (decision.rollout_id, decision.serial) == ("explore-1", 2)
        counts[decision.arm] += 1
    assert 60 < counts["a"] < 140


def session_client(scripted: ScriptedService, **options: Any) -> PolicyClient:
    arm = Arm("stable", BUCKETS, 1, size_policy(10_000, unit="session"))
    scripted.envelope = envelope_of(publication(5, arms=(arm,)))
    client = client_of(scripted.url, **options)
    client.poll_once(0)
    return client


def test_a_session_keeps_its_route(scripted: ScriptedService) -> None:
    client = session_client(scripted)
    routed = [client.route(ask(tokens)).decision.routed_model for tokens in (10, 50_000, 90_000)]
    assert routed == [HAIKU] * 3
    assert client.route(ask(50_000, "another")).decision.routed_model == OPUS


def test_a_client_keeps_a_run_and_begins_anew_after_a_restart(scripted: ScriptedService) -> None:
    guards = Guards(tool_loop_lock=False, min_run_requests=3)
    policy = replace(size_policy(10_000, unit="request"), guards=guards)
    scripted.envelope = envelope_of(publication(5, arms=(Arm("stable", BUCKETS, 1, policy),)))

    def started() -> PolicyClient:
        client = client_of(scripted.url)
        client.poll_once(0)
        return client

    def models(client: PolicyClient, *sizes: int) -> list[str]:
        return [client.route(ask(tokens)).decision.routed_model for tokens in sizes]

    assert models(started(), 10, 50_000, 50_000, 50_000, 10) == [HAIKU] * 3 + [OPUS] * 2
    client = started()
    assert models(client, 10, 50_000) == [HAIKU] * 2
    assert models(started(), 50_000) == [OPUS]
    assert models(client, 50_000, 50_000) == [HAIKU, OPUS]


def test_a_title_does_not_route_its_session(scripted: ScriptedService) -> None:
    client = session_client(scripted)
    assert client.route(ask(10, request_class="auxiliary")).decision.routed_model == HAIKU
    assert client.route(ask(50_000)).decision.routed_model == OPUS


def test_a_renewal_keeps_the_routes_and_another_policy_drops_them(
    scripted: ScriptedService,
) -> None:
    client = session_client(scripted)
    client.route(ask(10))
    assert client.publication is not None
    scripted.envelope = envelope_of(publication(6, arms=client.publication.arms))
    client.poll_once(0)
    assert client.route(ask(50_000)).decision.routed_model == HAIKU
    other = Arm("stable", BUCKETS, 2, size_policy(9_999, unit="session"))
    scripted.envelope = envelope_of(publication(7, arms=(other,)))
    client.poll_once(0)
    assert client.route(ask(50_000)).decision.routed_model == OPUS


def test_a_new_policy_waits_for_the_end_of_a_tool_loop(scripted: ScriptedService) -> None:
    client = session_client(scripted)
    client.route(ask(10))
    other = Arm("stable", BUCKETS, 2, size_policy(1, unit="session"))
    scripted.envelope = envelope_of(publication(6, arms=(other,)))
    client.poll_once(0)
    inside = client.route(ask(50_000, in_tool_loop=True)).decision
    assert (inside.routed_model, inside.rule_id) == (HAIKU, "guard:tool_loop_lock")
    assert (inside.serial, inside.policy_version) == (6, 2)
    assert client.route(ask(50_000)).decision.routed_model == OPUS
    assert client.route(ask(50_000, in_tool_loop=True)).decision.rule_id == "default"


def test_the_memory_of_routes_is_bounded_and_ages(scripted: ScriptedService) -> None:
    clock = [0.0]
    kept = KeptRoutes(max_units=10, ttl_seconds=60, clock=lambda: clock[0])
    client = session_client(scripted, kept_routes=kept)
    for number in range(50):
        client.route(ask(10, f"s{number}"))
    assert client.status.kept_units == 10
    assert client.route(ask(50_000, "s49")).decision.routed_model == HAIKU
    assert client.route(ask(50_000, "s0")).decision.routed_model == OPUS
    clock[0] = 61.0
    assert client.route(ask(50_000, "s49")).decision.routed_model == OPUS


def test_the_polling_thread_brings_a_change_at_once_and_stops(service: PolicyService) -> None:
    activate(service.store, size_policy(1))
    client = PolicyClient(service.url, service.trusted)
    client.start()
    deadline = time.monotonic() + 10
    while client.status.serial < 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    begun = time.monotonic()
    activate(service.store, size_policy(10_000))
    while client.status.serial < 2:
        assert time.monotonic() - begun < 5
        time.sleep(0.005)
    assert client.route(ask(100)).decision.routed_model == HAIKU
    begun = time.monotonic()
    client.stop()
    assert time.monotonic() - begun < 3
    assert client.route(ask(100)).decision.routed_model == HAIKU


def test_a_service_that_never_answers_is_unavailable() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        client = client_of(f"http://127.0.0.1:{silent.getsockname()[1]}")
        asking = threading.Timer(0.2, client.stop)
        asking.start()
        with pytest.raises(Unavailable):
            client.poll_once(0)
        asking.join()


def test_keys_are_fetched_from_a_service(service: PolicyService) -> None:
    service.store.install_baseline()
    client = PolicyClient(service.url, fetch_trusted_keys(service.url))
    assert client.poll_once(0) == "applied"


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://"])
def test_what_is_no_address_is_bad_input(url: str) -> None:
    with pytest.raises(BadInput):
        client_of(url)
