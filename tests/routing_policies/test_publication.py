"""The pull protocol over HTTP: envelopes, ETags, 304, long polls, acknowledgements."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loop.control.store import connect
from loop.domain.policies import canonical_json
from routing_policies.publication import PublicationSource
from routing_policies.signing import TrustedKeys, verify
from routing_policies.version_store import VersionStore
from tests.fakes.policy_service import PolicyService, activate, policy_service, size_policy


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PolicyService]:
    with policy_service(tmp_path) as found:
        yield found


@pytest.fixture
def http(service: PolicyService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=20) as client:
        yield client


def test_the_envelope_carries_the_stored_payload_byte_for_byte(
    service: PolicyService, http: httpx.Client
) -> None:
    published = activate(service.store, size_policy(10_000))
    answer = http.get("/v1/gateway/policy")
    assert answer.status_code == 200
    payload = verify(answer.content, service.trusted)
    assert payload.decode() == service.store.publication(1).payload
    assert payload.decode() == canonical_json(published.to_document())
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert answer.headers["cache-control"] == "no-cache"


def test_the_same_etag_is_answered_304_without_a_body(
    service: PolicyService, http: httpx.Client
) -> None:
    service.store.install_baseline()
    first = http.get("/v1/gateway/policy")
    etag = first.headers["etag"]
    for header in (etag, f'"other", {etag}', f"W/{etag}"):
        answer = http.get("/v1/gateway/policy", headers={"if-none-match": header})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    again = http.get("/v1/gateway/policy", headers={"if-none-match": '"other"'})
    assert again.content == first.content


def test_a_channel_without_a_publication_is_not_found(
    service: PolicyService, http: httpx.Client
) -> None:
    assert http.get("/v1/gateway/policy").status_code == 404
    service.store.install_baseline()
    assert http.get("/v1/gateway/policy").status_code == 200
    assert http.get("/v1/gateway/policy?channel=beta").status_code == 404


@pytest.mark.parametrize("wait", ["x", "-1", "nan", "inf", ""])
def test_a_wait_that_is_no_number_is_bad_input(http: httpx.Client, wait: str) -> None:
    assert http.get("/v1/gateway/policy", params={"wait": wait}).status_code == 400


def test_a_long_poll_ends_with_the_next_publication(
    service: PolicyService, http: httpx.Client
) -> None:
    service.store.install_baseline()
    etag = http.get("/v1/gateway/policy").headers["etag"]
    publish = threading.Timer(0.3, activate, (service.store, size_policy(1)))
    publish.start()
    begun = time.monotonic()
    answer = http.get("/v1/gateway/policy?wait=15", headers={"if-none-match": etag})
    publish.join()
    assert answer.status_code == 200
    assert 0.2 < time.monotonic() - begun < 5
    assert json.loads(verify(answer.content, service.trusted))["serial"] == 2


def test_a_long_poll_ends_by_itself(service: PolicyService, http: httpx.Client) -> None:
    service.store.install_baseline()
    etag = http.get("/v1/gateway/policy").headers["etag"]
    begun = time.monotonic()
    answer = http.get("/v1/gateway/policy?wait=0.4", headers={"if-none-match": etag})
    assert answer.status_code == 304
    assert 0.3 < time.monotonic() - begun < 5


def test_a_long_poll_sees_what_another_process_publishes(
    service: PolicyService, http: httpx.Client
) -> None:
    """Another engine and store on the same database: nothing tells this process."""
    service.store.install_baseline()
    etag = http.get("/v1/gateway/policy").headers["etag"]
    engine = connect(str(service.store.engine.url))
    publish = threading.Timer(0.2, activate, (VersionStore(engine), size_policy(1)))
    publish.start()
    answer = http.get("/v1/gateway/policy?wait=15", headers={"if-none-match": etag})
    publish.join()
    engine.dispose()
    assert json.loads(verify(answer.content, service.trusted))["serial"] == 2


def test_every_waiter_is_told(service: PolicyService) -> None:
    service.store.install_baseline()

    async def wait_for_all() -> set[int]:
        source = PublicationSource(service.store, service.signers, check_seconds=0.05)
        first = await source.current("prod")
        waiting = [asyncio.create_task(source.wait("prod", [first.etag], 10)) for _ in range(300)]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(activate, service.store, size_policy(1))
        found = await asyncio.gather(*waiting)
        return {0 if publication is None else publication.serial for publication in found}

    assert asyncio.run(wait_for_all()) == {2}


def test_keys_are_served(service: PolicyService, http: httpx.Client) -> None:
    service.store.install_baseline()
    keys = TrustedKeys.from_document(http.get("/v1/gateway/keys").json())
    assert verify(http.get("/v1/gateway/policy").content, keys)


def test_acknowledgements_and_polls_are_recorded(
    service: PolicyService, http: httpx.Client
) -> None:
    service.store.install_baseline()
    row = {"instance": "edge-1", "serial": 1, "status": "applied", "gateway": "edge", "at_us": 5}
    assert http.post("/v1/gateway/ack", json=row).status_code == 204
    http.get("/v1/gateway/policy", params={"instance": "edge-2", "gateway": "kong"})
    first, second = service.store.acknowledgements()
    assert (first.instance, first.applied_serial, first.gateway) == ("edge-1", 1, "edge")
    assert (second.instance, second.applied_serial, second.gateway) == ("edge-2", 0, "kong")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"instance": "a", "serial": "1", "status": "applied"}',
        b'{"instance": "a", "serial": -1, "status": "applied"}',
        b'{"instance": "a", "serial": true, "status": "applied"}',
        b'{"instance": "a", "serial": 1, "status": "great"}',
        b'{"instance": "", "serial": 1, "status": "applied"}',
        b'{"instance": 1, "serial": 1, "status": "applied"}',
        b'{"instance": "a", "serial": 1, "status": "applied", "at_us": "now"}',
        b" " * 70_000,
    ],
)
def test_a_wrong_acknowledgement_is_bad_input(
    service: PolicyService, http: httpx.Client, body: bytes
) -> None:
    assert http.post("/v1/gateway/ack", content=body).status_code == 400
    assert service.store.acknowledgements() == []


def test_the_last_publication_is_served_while_the_store_is_away(service: PolicyService) -> None:
    service.store.install_baseline()

    async def ask_twice() -> tuple[bytes, bytes]:
        source = PublicationSource(service.store, service.signers, check_seconds=0.0)
        before = await source.current("prod")
        with service.store.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=50")
        blocker = connect(str(service.store.engine.url))
        with blocker.begin():
            after = await source.current("prod")
        blocker.dispose()
        return before.envelope, after.envelope

    before, after = asyncio.run(ask_twice())
    assert before == after
