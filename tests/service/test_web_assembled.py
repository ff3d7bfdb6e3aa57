"""The pages over the assembled service: real recordings in, every page and link out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from collectors.transcripts import import_transcripts
from loop.domain.lifecycle import State
from loop.service import rollout_stage, stages
from loop.service.assemble import Parts, assemble
from loop.service.drain_stage import drain
from loop.service.http_api import api_app
from loop.service.settings import load_settings
from optimizers.classic import classic_policy
from routing_policies.offline_gate import GateCheck, GateReport
from routing_policies.review import GATE
from tests.service.test_web_pages import Elements, text_of
from tests.service.web_client import SAME_ORIGIN, AppClient

RECORDINGS = Path(__file__).parents[2] / "examples" / "recordings"
MOST_PAGES = 200
RUN_SECONDS = 60.0


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """A service that holds the recorded transcripts, a run, and a policy that waits for review."""
    folder = tmp_path_factory.mktemp("service")
    parts = assemble(load_settings({"TURNWISE_DATA_DIR": str(folder)}))
    import_transcripts(sorted(RECORDINGS.glob("*/transcript")), parts.journal)
    drain(parts)
    stages.evaluate(parts)
    stages.cluster(parts)
    client = AppClient(api_app(parts))
    began = client.post_json("/v1/runs", {"trials": 10, "seed": 1, "actor": "ada"})
    deadline = time.monotonic() + RUN_SECONDS
    run = began.json()
    while run["state"] == "running":
        assert time.monotonic() < deadline, "the run does not end"
        time.sleep(0.1)
        run = client.get(f"/v1/runs/{run['run_id']}").json()
    proposed = client.post_json(
        "/v1/policies", {"policy": classic_policy().to_document(), "actor": "ada"}
    ).json()
    check = GateCheck("sessions", 4.0, 200.0, "inconclusive", "4 sessions, too few")
    report = GateReport(classic_policy().digest, "inconclusive", (check,))
    parts.versions.move(
        proposed["version"],
        State.GATE_INCONCLUSIVE,
        GATE,
        report.reason,
        report.to_document(),
    )
    yield parts
    parts.close()


def crawl(client: AppClient) -> dict[str, str]:
    """Every page and JSON twin that can be reached from the overview, by its address."""
    found: dict[str, str] = {}
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        assert len(found) < MOST_PAGES, "the pages lead on and on"
        response = client.get(path)
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text[:300]}"
        found[path] = response.text
        if not response.headers["Content-Type"].startswith("text/html"):
            continue
        page = Elements(response.text)
        assert page.open == []
        for link in (*page.all("a"), *page.all("link")):
            parts = urlsplit(urljoin(path, link["href"] or ""))
            waiting.append(parts.path + (f"?{parts.query}" if parts.query else ""))
    return found


def test_each_link_leads_somewhere_and_a_policy_goes_all_the_way(parts: Parts) -> None:
    client = AppClient(api_app(parts))
    before = crawl(client)
    assert {"/", "/sessions", "/clusters", "/runs", "/policies", "/rollouts", "/spend"} <= set(
        before
    )
    contradicted = [
        path
        for path, page in before.items()
        if path.startswith("/sessions/") and "✕ contradicted" in text_of(page)
    ]
    assert any("bbd21d58-e6a7-44b6-b07f-574848870935" in path for path in contradicted)
    assert not any("c4bad49d-1e0b-46bf-a3b2-ca55eb8c6b41" in path for path in contradicted)

    def send(verb: str, actor: str, **more: str) -> int:
        form = {"actor": actor, "reason": "looked at it", **more}
        return client.post(f"/policies/2/{verb}", form, SAME_ORIGIN).status_code

    assert send("submit", "ada") == 303
    assert send("approve", "ada", review_cycle="1") == 403  # one's own proposal
    assert send("approve", "grace", review_cycle="7") == 409  # not what is under review
    assert send("approve", "grace", review_cycle="1") == 303
    assert send("publish", "grace") == 303
    rollout_stage.tick(parts)
    after = crawl(client)
    rollouts = [path for path in after if path.startswith("/rollouts/")]
    assert len(rollouts) == 1
    page = text_of(after[rollouts[0]])
    assert "Too little data" in page or "No session has been looked at yet" in page
    assert 'action="/policies/2/rollback"' in after["/policies/2"]
    response = client.post(
        f"{rollouts[0]}/rollback", {"actor": "grace", "reason": "enough seen"}, SAME_ORIGIN
    )
    assert response.status_code == 303
    rollout_stage.tick(parts)
    assert "rolled back" in text_of(client.get(rollouts[0]).text)
    assert "rolled back" in text_of(client.get("/policies/2").text)
