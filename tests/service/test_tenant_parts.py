"""What a credential of a node sees of runs, rollouts and intake, over real HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from loop.domain.policy_documents import parse_policy
from loop.service.http_api import api_app
from optimizers.classic import classic_policy
from tests.fakes.asgi_server import running_server
from tests.service.two_tenants import (
    INSTALLATION_TOKEN,
    TENANTS,
    TwoTenants,
    furnish,
    save_run,
    session_of,
    two_tenants,
)

COUNTS = ("received", "stored", "duplicates", "conflicts", "bodies")
ARM = {"sessions": 1, "scored": 1, "turns": 1, "errors": 0, "refusals": 0}


class Service:
    """Calls one server as the holder of a token."""

    def __init__(self, url: str, world: TwoTenants) -> None:
        self.world = world
        self._url = url
        self._client = httpx.Client(timeout=60)

    def get(self, path: str, who: str = "", status: int = 200, **query: str) -> Any:
        answer = self._client.get(self._url + path, **self._as(who), params=query)
        return self._answer(answer, status)

    def post(self, path: str, document: dict[str, Any], who: str = "", status: int = 200) -> Any:
        answer = self._client.post(self._url + path, **self._as(who), json=document)
        return self._answer(answer, status)

    def close(self) -> None:
        self._client.close()

    def _as(self, who: str) -> dict[str, Any]:
        token = self.world.tokens.get(who, INSTALLATION_TOKEN)
        return {"headers": {"Authorization": f"Bearer {token}"}}

    @staticmethod
    def _answer(answer: httpx.Response, status: int) -> Any:
        assert answer.status_code == status, answer.text
        return answer.json() if "json" in answer.headers["content-type"] else answer.text


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    with two_tenants(folder) as world:
        furnish(world)
        with running_server(api_app(world.parts)) as url:
            service = Service(url, world)
            yield service
            service.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For tests that change nothing that another looks at."""
    with serving(tmp_path_factory.mktemp("parts")) as service:
        yield service


def test_a_part_sees_the_runs_that_searched_nothing_but_its_own_sessions(service: Service) -> None:
    foreign = classic_policy().to_document() | {"name": "of beta"}
    foreign["rules"][0]["when"].append({"field": "org_path", "op": "==", "value": "acme/beta"})
    save_run(service.world, "run-5", ["repo-alpha"], parse_policy(foreign))
    save_run(service.world, "run-6", ["no-such-repository"])
    seen = {who: service.get("/v1/runs", who)["rows"] for who in ("alpha", "beta", "")}
    ids = {who: sorted(row["run_id"] for row in rows) for who, rows in seen.items()}
    assert ids == {
        "alpha": ["run-1"],
        "beta": ["run-2"],
        "": [f"run-{number}" for number in range(1, 7)],
    }
    own, whole = service.get("/v1/runs/run-1", "alpha"), service.get("/v1/runs/run-1")
    hidden = {"selection": None, "test": None, "table_versions": {}, "tombstones": []}
    changed = {"outcome": "Found a policy.", "is_part": True}
    settings = {"settings": {"sampler": "tpe", "scope": {"repositories": ["repo-alpha"]}}}
    assert own == whole | hidden | changed | settings
    assert (own["trials"][0]["saving_share"], whole["test"]["sessions"]) == (0.25, 40)
    for run_id in ("run-2", "run-3", "run-4", "run-5", "run-6"):
        absent = service.get(f"/v1/runs/{run_id}", "alpha", 404)
        assert absent == {
            "error": service.get("/v1/runs/none", "alpha", 404)["error"]
            | {"what": f"There is no optimization run {run_id!r}."}
        }
    page = service.get("/runs/run-1", "alpha")
    assert "not shown to a part" in page
    assert "saves 30" not in page


def test_a_part_sees_canaries_that_may_route_it_with_its_own_sessions_only(
    service: Service,
) -> None:
    for who, rollout_id in (("alpha", "rollout-2"), ("beta", "rollout-3")):
        (listed,) = service.get("/v1/rollouts", who)["rows"]
        assert (listed["rollout_id"], listed["report"]) == (rollout_id, None)
        shown = service.get("/v1/rollouts/latest", who)
        assert shown == service.get(f"/v1/rollouts/{rollout_id}", who)
        canary, stable, control = shown["report"]["arms"]
        assert {name: canary[name] for name in ARM} == ARM
        assert (stable["sessions"], control["sessions"]) == (0, 1)
        names = ("sentence", "end_reason", "started_by", "gateways", "log", "is_part")
        assert [shown[name] for name in names] == ["rolled back.", "", "", None, [], True]
        assert "Your own sessions" in service.get(f"/rollouts/{rollout_id}", who)
        service.get(f"/v1/rollouts/{rollout_id}", {"alpha": "beta", "beta": "alpha"}[who], 404)
        moved = service.post(f"/v1/rollouts/{rollout_id}/pause", {}, who, 403)
        assert "whole installation" in moved["error"]["what"]
    whole = service.get("/v1/rollouts/rollout-2")
    assert (whole["is_part"], whole["end_reason"]) == (False, "alpha and beta were slow")
    assert len(service.get("/v1/rollouts")["rows"]) == 2


def test_a_part_counts_what_its_own_credentials_sent(service: Service) -> None:
    total = {who: service.get("/v1/intake", who)["total"] for who in ("alpha", "beta", "")}
    for who in TENANTS:
        # Two sessions, one sent again with another model, and a body that is set aside.
        assert [total[who][name] for name in COUNTS] == [12, 8, 3, 1, 4]
        assert total[who]["balanced"]
        (row,) = service.get("/v1/intake", who, by="source")["rows"]
        assert row["credential"] == service.world.credentials[who].token_id
        (conflict,) = service.get("/v1/conflicts", who)["rows"]
        assert conflict["session_id"] == f"session-{who}-1"
        path = f"/v1/conflicts/{conflict['conflict_id']}"
        assert len(service.get(path, who)["records"]) == 2
        service.get(path, {"alpha": "beta", "beta": "alpha"}[who], 404)
    assert total[""]["bodies"] == sum(total[who]["bodies"] for who in TENANTS) + 1
    assert len(service.get("/v1/conflicts")["rows"]) == 2


def test_a_part_manages_the_quarantine_of_its_own_credentials(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        world, entries = service.world, service.world.parts.quarantine
        _, of_alpha, of_beta = world.entries

        def listed(who: str) -> list[str]:
            return [row["name"] for row in service.get("/v1/quarantine", who)["rows"]]

        answer = service.get("/v1/quarantine", "alpha")
        assert [row["name"] for row in answer["rows"]] == [of_alpha]
        assert (answer["bytes"], answer["max_bytes"]) == (answer["rows"][0]["bytes"], None)
        assert listed("") == world.entries
        shown = service.get(f"/v1/quarantine/{of_alpha}", "alpha")
        assert (shown["path"], len(shown["records"])) == ("", 1)
        assert service.get(f"/v1/quarantine/{of_alpha}")["path"]
        service.get(f"/v1/quarantine/{of_beta}", "alpha", 404)
        for verb in ("replay", "drop"):
            names = {"names": [of_alpha, of_beta]}
            refused = service.post(f"/v1/quarantine/{verb}", names, "alpha", 404)
            assert refused["error"]["what"] == f"Nothing is quarantined under {of_beta!r}."
        assert listed("") == world.entries
        replayed = service.post("/v1/quarantine/replay", {"all": True}, "alpha")
        assert [row["outcome"] for row in replayed["rows"]] == ["quarantined"]
        assert listed("alpha") == [of_alpha]  # what fails again is still its sender's
        dropped = service.post("/v1/quarantine/drop", {"all": True}, "alpha")
        assert dropped["rows"] == [{"name": of_alpha}]
        assert set(listed("")) == {*world.entries} - {of_alpha}

        # A session is its sender's if all of its records are.
        world.send("", session_of("beta", 5))
        world.send("beta", session_of("beta", 5, label="more"))
        world.drain()
        for number in (2, 5):
            entries.put_session(f"session-beta-{number}", "it could not be assembled")
        assert listed("beta") == [of_beta, "session-session-beta-2"]
        assert listed("alpha") == []

        # Notes of before said nothing of the sender.
        note = entries.directory / f"{of_beta}.json"
        note.write_text(re.sub('"(credential|received_at_us)"', '"unknown"', note.read_text()))
        service.get(f"/v1/quarantine/{of_beta}", "beta", 404)
        assert service.get(f"/v1/quarantine/{of_beta}")["credential"] is None
