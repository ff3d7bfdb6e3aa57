"""Tokens, tree and rules through the API, down to the turns that they attribute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.applications import Starlette

from loop.service.http_api import api_app
from tests.service.test_tenancy import call
from tests.service.two_tenants import DAY, INSTALLATION_TOKEN, TwoTenants, session_of, two_tenants

MODES = ("none", "hashed", "redacted")
WHO = {"actor": "ada", "reason": "a test"}
ON_THEIR_DAY = {"effective": DAY, "allow_past": True}  # midnight may have passed since


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TwoTenants]:
    with two_tenants(tmp_path) as world:
        yield world


@pytest.fixture
def app(world: TwoTenants) -> Starlette:
    return api_app(world.parts)


def post(app: Starlette, path: str, document: dict[str, Any], token: str = "") -> Any:
    return call(app, "POST", path, token or INSTALLATION_TOKEN, json={**WHO, **document})


def get(app: Starlette, path: str) -> Any:
    return call(app, "GET", path, INSTALLATION_TOKEN).json()


def paths(app: Starlette) -> dict[str, int]:
    return {row["org_path"]: row["turns"] for row in get(app, "/v1/spend?by=org")["rows"]}


def test_a_rule_resolves_past_turns_as_its_dry_run_said(world: TwoTenants, app: Starlette) -> None:
    world.send("", session_of("gamma", 1))
    world.drain()
    assert paths(app) == {"acme/alpha": 2, "acme/beta": 2, "unattributed": 1}
    shown = get(app, "/v1/org/unattributed")
    assert (shown["turns"], shown["sessions"]) == (1, 1)
    values = {row["attribute"]: row["value"] for row in shown["rows"]}
    assert values["user.email"] == "dev-gamma@example.com"
    assert values["user.email_domain"] == "example.com"
    rule = {
        "match": {"user.email": "dev-GAMMA@*"},
        "node_id": "t-alpha",
        "valid_from": DAY,
    }
    told = post(app, "/v1/org/rules", rule | {"dry_run": True}).json()
    assert (told["turns"], told["sessions"]) == (1, 1)
    assert told["rows"][0]["org_path"] == "acme/alpha/team-alpha"
    assert get(app, "/v1/org/rules")["rows"] == []
    assert paths(app)["unattributed"] == 1
    done = post(app, "/v1/org/rules", rule).json()
    assert (done["turns"], done["attributed"], done["rule_id"]) == (1, True, 1)
    assert paths(app) == {"acme/alpha": 2, "acme/alpha/team-alpha": 1, "acme/beta": 2}
    (turn,) = get(app, "/v1/sessions/session-gamma-1")["turns"]
    assert turn["attributed_by"] == "rule"
    ended = post(app, "/v1/org/rules/1/end", ON_THEIR_DAY)
    assert ended.json()["valid_to"]
    assert paths(app)["unattributed"] == 1


def test_a_rename_and_a_directory_hold_for_todays_turns_and_sums_stay(
    world: TwoTenants, app: Starlette
) -> None:
    (before,) = get(app, "/v1/spend?by=")["rows"]
    rename = {"name": "omega", **ON_THEIR_DAY}
    told = post(app, "/v1/org/nodes/n-alpha/rename", rename | {"dry_run": True}).json()
    assert told["changes"] == ["acme/alpha (n-alpha) is called omega."]
    assert set(paths(app)) == {"acme/alpha", "acme/beta"}
    post(app, "/v1/org/nodes/n-alpha/rename", rename)
    assert paths(app) == {"acme/omega": 2, "acme/beta": 2}
    csv = "developer,node_id\nDev-Alpha@example.com,t-alpha\n"
    post(app, "/v1/org/developers", {"csv": csv, **ON_THEIR_DAY})
    assert paths(app) == {"acme/omega/team-alpha": 2, "acme/beta": 2}
    for level in (1, 2, 3, 4):
        rows = get(app, f"/v1/spend?by=org&level={level}")["rows"]
        assert sum(row["cost_microusd"] for row in rows) == before["cost_microusd"]
        assert sum(row["turns"] for row in rows) == before["turns"]
    seen = call(app, "GET", "/v1/spend?by=", world.tokens["alpha"]).json()["rows"]
    assert seen[0]["turns"] == 2  # the node is the same under its new name


def test_the_past_is_refused_unless_asked_for(world: TwoTenants, app: Starlette) -> None:
    node = {"name": "gamma", "kind": "org"}
    past = {"effective": "2020-01-01"}
    refused = post(app, "/v1/org/nodes/n-gamma/add", node | past)
    assert refused.status_code == 403
    assert "--allow-past" in refused.json()["error"]["fix"]
    csv = "node_id,name,kind,parent_id\nacme,acme,org,\n"
    assert post(app, "/v1/org", past | {"csv": csv, "allow_past": True}).status_code == 200
    assert get(app, "/v1/org/records")["rows"][0]["details"]["past"] is True
    bad = post(app, "/v1/org", {"csv": "node_id,name,kind,parent_id\nx,x,team,\n"})
    assert bad.status_code == 400
    assert "line 2" in bad.json()["error"]["why"]


def test_tokens_live_by_the_api(world: TwoTenants, app: Starlette) -> None:
    made = post(app, "/v1/tokens", {"name": "ci", "verbs": ["read"], "node_id": "t-alpha"}).json()
    assert call(app, "GET", "/v1/spend", made["token"]).status_code == 200
    rotate = f"/v1/tokens/{made['token_id']}/rotate"
    fresh = post(app, rotate, {"overlap_seconds": 0}).json()
    assert call(app, "GET", "/v1/spend", made["token"]).status_code == 401
    assert call(app, "GET", "/v1/spend", fresh["token"]).status_code == 200
    post(app, f"/v1/tokens/{fresh['token_id']}/revoke", {})
    assert call(app, "GET", "/v1/spend", fresh["token"]).status_code == 401
    listed = get(app, "/v1/tokens")["rows"]
    assert made["token"] not in str(listed)
    assert {row["state"] for row in listed} == {"live", "expired", "revoked"}
    later = {"name": "Later", "kind": "org", "effective": "2999-01-01"}
    post(app, "/v1/org/nodes/n-later/add", later)
    early = post(app, "/v1/tokens", {"name": "x", "verbs": ["read"], "node_id": "n-later"})
    assert early.json()["error"]["why"] == "It begins on 2999-01-01."
    assert (
        post(app, "/v1/tokens", {"name": "x", "verbs": ["read"], "node_id": "no"}).status_code
        == 404
    )


def test_who_acts_is_whose_credential_it_is(world: TwoTenants, app: Starlette) -> None:
    """And stays so through a rotation; a name that is only claimed can't be taken for one."""
    made = post(app, "/v1/tokens", {"name": "ops", "verbs": ["admin", "read"]}).json()
    fresh = post(app, f"/v1/tokens/{made['token_id']}/rotate", {"overlap_seconds": 60}).json()
    holder = f"ops ({made['token_id']})"
    for number, token in enumerate((made["token"], fresh["token"], "")):
        answer = post(
            app, "/v1/org/content-modes", {"node_id": "n-alpha", "mode": MODES[number]}, token
        )
        assert answer.status_code == 200, answer.text
    actors = [row["actor"] for row in get(app, "/v1/org/records")["rows"]]
    assert [name for name in actors if name in (holder, "ada")][:3] == ["ada", holder, holder]
    claimed = {"node_id": "n-alpha", "mode": "full", "actor": holder}
    refused = call(
        app, "POST", "/v1/org/content-modes", INSTALLATION_TOKEN, json={**WHO, **claimed}
    )
    assert refused.status_code == 400
    assert "holder" in refused.json()["error"]["what"]


def test_a_part_manages_its_own_tokens_only(world: TwoTenants, app: Starlette) -> None:
    alpha = world.tokens["alpha"]
    mine = {"name": "mine", "verbs": ["read"], "node_id": "t-alpha"}
    made = post(app, "/v1/tokens", mine, alpha)
    assert made.status_code == 200
    assert post(app, "/v1/tokens", mine | {"node_id": "n-beta"}, alpha).status_code == 403
    of_beta = f"/v1/tokens/{world.credentials['beta'].token_id}/revoke"
    assert post(app, of_beta, {}, alpha).status_code == 404
    rows = call(app, "GET", "/v1/tokens", alpha).json()["rows"]
    assert {row["node_id"] for row in rows} == {"n-alpha", "t-alpha"}
    admin = post(app, "/v1/tokens", mine | {"verbs": ["admin"]}, alpha).json()["token"]
    more = post(app, "/v1/tokens", mine, admin)
    assert more.status_code == 403
    assert "can't give verbs" in more.json()["error"]["what"]


def test_content_modes_are_set_by_node_and_shown_to_those_below(
    world: TwoTenants, app: Starlette
) -> None:
    def shown(token: str) -> dict[str, tuple[str, str]]:
        rows = call(app, "GET", "/v1/org/content-modes", token).json()["rows"]
        return {row["node_id"]: (row["mode"], row["mode_from"]) for row in rows}

    path = "/v1/org/content-modes"
    answer = post(app, path, {"node_id": "n-alpha", "mode": "none"}).json()
    assert answer == {"node_id": "n-alpha", "changed": True, "mode": "none", "mode_from": "n-alpha"}
    assert shown(world.tokens["alpha"]) == {
        "n-alpha": ("none", "n-alpha"),
        "t-alpha": ("none", "n-alpha"),
    }
    assert shown(INSTALLATION_TOKEN)["n-beta"] == ("full", "settings")
    world.send("alpha", session_of("alpha", 7))
    world.send("alpha", session_of("alpha", 8, department="beta"))
    world.send("beta", session_of("beta", 7, department="alpha"))
    world.drain()
    states = {}
    for name in ("alpha-7", "alpha-8", "beta-7"):
        session = get(app, f"/v1/sessions/session-{name}?content=1")
        assert (b"text of" in orjson.dumps(session)) == (name == "beta-7")
        states[name] = session["turns"][0]["input_tokens"]
    assert set(states.values()) == {100}
    assert post(app, path, {"node_id": "n-alpha", "mode": "inherit"}).json()["mode"] == "full"
    mine = {"node_id": "t-alpha", "mode": "full"}
    assert post(app, path, mine, world.tokens["alpha"]).status_code == 403
    assert post(app, path, mine | {"mode": "some"}).status_code == 400
    assert post(app, path, mine | {"node_id": "nowhere"}).status_code == 404
    records = get(app, "/v1/org/records")["rows"]
    verbs = [(row["verb"], row["subject"]) for row in records]
    assert verbs[:2] == [("content-mode.set", "n-alpha")] * 2
