"""Two tenants: neither sees, counts, changes or takes over anything of the other's."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from loop.access.verbs import Verb
from loop.access.view import View
from loop.domain.errors import NotFound
from loop.domain.organization import PathSpan
from loop.ledger.statements import Month
from loop.service.http_api import api_app
from loop.service.route_rules import RULES, rules_of
from loop.service.statement_desk import StatementDesk
from tests.service.two_tenants import (
    ADA,
    DAY,
    INSTALLATION_TOKEN,
    RUNS,
    TENANTS,
    TwoTenants,
    furnish,
    session_of,
    two_tenants,
)

MONTH = DAY[:7]
OTHER = {"alpha": "beta", "beta": "alpha"}
PATH_VALUES = {
    "session_id": [f"session-{tenant}-{number}" for tenant in TENANTS for number in (1, 2)],
    "version": ["1", "2", "3", "9"],
    "before": ["1", "2", "3"],
    "after": ["1", "2", "3"],
    "run_id": list(RUNS),
    "rollout_id": ["latest", "rollout-2", "rollout-3"],
    "conflict_id": ["none"],
    "name": ["0", "1", "2"],  # the place among TwoTenants.entries
    "node_id": ["acme", "n-alpha", "n-beta", "t-beta"],
    "token_id": ["none"],
    "budget_id": ["none"],
    "rule_id": ["1"],
    "month": [MONTH, "2020-01"],
    "format": ["table", "csv", "json", "html", "odd"],
}
QUERIES = [
    {},
    {"by": "org,developer,repo,session,model,day"},
    {"by": "org", "level": "1"},
    {"by": "session", "since": "2020-01-01"},
    {"content": "1"},
    {"org": "acme/beta"},
    {"org": "acme"},
    {"developer": "dev-beta@example.com"},
    {"repository": "repo-alpha"},
    {"sort": "quality"},
    {"sort": "cost", "limit": "1"},
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoTenants]:
    with two_tenants(tmp_path_factory.mktemp("tenants")) as world:
        furnish(world)
        yield world


@pytest.fixture(scope="module")
def app(world: TwoTenants) -> Starlette:
    return api_app(world.parts)


def call(app: Starlette, method: str, path: str, token: str = "", **options: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://turnwise", headers=headers
        ) as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def routes_of(app: Starlette) -> list[tuple[str, str]]:
    """(method, path) of everything that is served."""
    found = []
    for route in app.routes:
        if isinstance(route, Route):
            found += [(method, route.path) for method in (route.methods or set()) - {"HEAD"}]
        else:
            assert isinstance(route, Mount)
            found.append(("GET", route.path))
    return found


def filled(path: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        for form in (f"{{{name}}}", f"{{{name}:int}}", f"{{{name}:path}}"):
            path = path.replace(form, value)
    return path


def test_every_route_has_a_rule_and_every_rule_a_route(app: Starlette) -> None:
    served = set()
    for method, path in routes_of(app):
        keys = rules_of(path, method)
        assert keys, f"{method} {path} has no rule in loop/service/route_rules.py"
        for key in keys:
            assert key in RULES, f"{key} has no rule in loop/service/route_rules.py"
        served.update(keys)
    assert served == set(RULES)


READS = sorted(
    key.partition(" ")[2]
    for key, rule in RULES.items()
    if key.startswith("GET ") and rule.by_node and key != "GET /static"
)


@settings(max_examples=60)
@given(
    path=st.sampled_from(READS),
    values=st.fixed_dictionaries(
        {name: st.sampled_from(values) for name, values in PATH_VALUES.items()}
    ),
    query=st.sampled_from(QUERIES),
    tenant=st.sampled_from(TENANTS),
)
def test_no_reading_shows_anything_of_the_other_tenant(
    world: TwoTenants,
    app: Starlette,
    path: str,
    values: dict[str, str],
    query: dict[str, str],
    tenant: str,
) -> None:
    address = filled(path, values | {"name": world.entries[int(values["name"])]})
    answer = call(app, "GET", address, world.tokens[tenant], params=query)
    assert answer.status_code in (200, 400, 404)
    shown = answer.text
    sent = [address, *(value for value in query.values() if OTHER[tenant] in value)]
    if answer.status_code != 200:
        sent += [value for value in values.values() if OTHER[tenant] in value]
    for text in sent:  # what the caller itself said comes back, as it is or in an address
        for form in (text, quote(text, safe=""), quote(text), html.escape(text)):
            shown = shown.replace(form, "")
    shown = shown.replace('"alpha":', "")  # also a level of significance, in a rollout's plan
    assert OTHER[tenant] not in shown


def test_a_part_reads_the_budgets_of_its_own_nodes(world: TwoTenants, app: Starlette) -> None:
    common = {"period": "month", "amount_microusd": 10**9, "actor": "ada", "reason": "a test"}
    made = {}
    for name, scope, subject in (
        ("alpha", "node", "acme/alpha"),
        ("beta", "node", "acme/beta"),
        ("above", "node", "acme"),
        ("all", "everything", ""),
        ("model", "model", "claude-opus-4-7"),
    ):
        document = {"scope": scope, "subject": subject, **common}
        answer = call(app, "POST", "/v1/budgets", INSTALLATION_TOKEN, json=document)
        assert answer.status_code == 200, answer.text
        made[name] = answer.json()["budget_id"]
    for tenant in TENANTS:
        token, own, others = world.tokens[tenant], made[tenant], made[OTHER[tenant]]
        rows = call(app, "GET", "/v1/budgets", token).json()["rows"]
        assert [row["budget_id"] for row in rows] == [own]
        assert call(app, "GET", f"/v1/budgets/{own}", token).status_code == 200
        for hidden in (others, made["above"], made["all"], made["model"]):
            absent = call(app, "GET", f"/v1/budgets/{hidden}", token)
            assert absent.status_code == 404
            nothing = call(app, "GET", "/v1/budgets/none", token).text
            assert absent.text.replace(hidden, "none") == nothing
    whole = call(app, "GET", "/v1/budgets", INSTALLATION_TOKEN).json()["rows"]
    assert len(whole) == len(made)


@pytest.mark.parametrize("key", sorted(key for key, rule in RULES.items() if not rule.by_node))
def test_what_concerns_all_is_refused_to_a_part(
    world: TwoTenants, app: Starlette, key: str
) -> None:
    method, _, path = key.partition(" ")
    address = filled(path, {name: values[0] for name, values in PATH_VALUES.items()})
    for tenant in TENANTS:
        answer = call(app, method, address, world.tokens[tenant], json={})
        assert answer.status_code == 403, key
    assert call(app, method, address, json={}).status_code == 401


@pytest.mark.parametrize("key", sorted(key for key, rule in RULES.items() if rule.verb))
def test_a_route_wants_its_verb(world: TwoTenants, app: Starlette, key: str) -> None:
    method, _, path = key.partition(" ")
    address = filled(path, {name: values[0] for name, values in PATH_VALUES.items()})
    others = [verb for verb in Verb if verb is not RULES[key].verb]
    token, made = world.parts.credentials.create("all but one", others, ADA)
    answer = call(app, method, address, token, content=b"")
    world.parts.credentials.revoke(made.token_id, ADA)
    assert answer.status_code == 403
    if path.startswith("/v1/"):
        assert f"may not {RULES[key].verb}" in answer.json()["error"]["what"]
    assert call(app, method, address, token).status_code == 401  # revoked, at once


def test_each_tenant_counts_its_own_and_the_installation_all(
    world: TwoTenants, app: Starlette
) -> None:
    def total(token: str) -> tuple[int, int]:
        (row,) = call(app, "GET", "/v1/spend?by=", token).json()["rows"]
        return row["turns"], row["cost_microusd"]

    whole = total(INSTALLATION_TOKEN)
    parts = [total(world.tokens[tenant]) for tenant in TENANTS]
    assert whole == (sum(turns for turns, _ in parts), sum(cost for _, cost in parts))
    assert all(turns == 2 for turns, _ in parts)
    overviews = [
        call(app, "GET", "/v1/overview", world.tokens[tenant]).json() for tenant in TENANTS
    ]
    for overview in overviews:
        assert overview["spend"]["turns"] == (2 if overview["spend"]["month"] == MONTH else 0)
    assert all(overview["transitions"] == [] for overview in overviews)


def test_each_tenant_sees_its_own_sessions_clusters_and_policies(
    world: TwoTenants, app: Starlette
) -> None:
    for tenant in TENANTS:
        token = world.tokens[tenant]
        sessions = call(app, "GET", "/v1/sessions", token).json()["rows"]
        assert {row["session_id"] for row in sessions} == {f"session-{tenant}-{n}" for n in (1, 2)}
        assert all(row["scores"] for row in sessions)
        clusters = call(app, "GET", "/v1/clusters", token).json()["rows"]
        assert [row["cluster_id"] for row in clusters] == [f"c-{tenant}"]
        policies = call(app, "GET", "/v1/policies", token).json()["rows"]
        assert [row["name"] for row in policies] == [f"policy-{tenant}", "as-requested"]
        shown = call(app, "GET", f"/v1/sessions/session-{tenant}-1?content=1", token).json()
        assert shown["prompts"][0]["text"] == f"text of {tenant}"
        (turn,) = shown["turns"]
        assert (turn["org_path"], turn["attributed_by"]) == (f"acme/{tenant}", "credential")
        assert (turn["org_node_id"], turn["developer"]) == (
            f"n-{tenant}",
            f"dev-{tenant}@example.com",
        )


def test_a_tenants_statement_is_of_its_own_path_and_days(world: TwoTenants, app: Starlette) -> None:
    path = f"/v1/statements/{MONTH}"
    whole = call(app, "GET", path, INSTALLATION_TOKEN).json()
    for tenant in TENANTS:
        token = world.tokens[tenant]
        own = call(app, "GET", path, token).json()
        assert own["org_path"] == f"acme/{tenant}"
        assert (own["totals"]["turns"], own["billed"], own["control"]["opening_microusd"]) == (
            2,
            None,
            0,
        )
        lines = [line for line in whole["lines"] if line["org_path"] == f"acme/{tenant}"]
        assert own["lines"] == lines
        assert call(app, "GET", path, token, params={"org": f"acme/{tenant}"}).json() == own
        for org in ("acme", f"acme/{OTHER[tenant]}", f"acme/{tenant}x"):
            assert call(app, "GET", path, token, params={"org": org}).status_code == 404
            assert call(app, "GET", f"{path}/csv", token, params={"org": org}).status_code == 404
        assert call(app, "GET", "/v1/statements/2020-01", token).status_code == 404
        assert call(app, "GET", "/v1/statements", token).json()["rows"] == []
        assert call(app, "GET", "/v1/reconciliation", token).status_code == 403


def test_a_closed_statement_is_shown_to_whose_path_it_was_all_the_time(tmp_path: Path) -> None:
    with two_tenants(tmp_path) as world:
        for tenant in TENANTS:
            for month in ("2020-02", "2020-03"):
                world.parts.statements.close(Month.parse(month), f"acme/{tenant}", "ada")

        def seen(since: str) -> list[str]:
            view = View((PathSpan("acme/alpha", since),))
            rows = StatementDesk(world.parts, sees=lambda: view).list_closed()["rows"]
            return [f"{row['org_path']} {row['month']}" for row in rows]

        assert seen("2020-02-01") == ["acme/alpha 2020-03", "acme/alpha 2020-02"]
        # The second may adjust the first, of which a day was another's.
        assert seen("2020-02-02") == []
        view = View((PathSpan("acme/alpha", "2020-01-01"),))
        desk = StatementDesk(world.parts, sees=lambda: view)
        assert desk.show("2020-02", "")["state"] == "closed"
        with pytest.raises(NotFound):
            desk.show("2020-02", "acme/beta")


def test_texts_need_their_own_verb(world: TwoTenants, app: Starlette) -> None:
    token, made = world.parts.credentials.create("reader", ["read"], ADA, node_id="n-alpha")
    path = "/v1/sessions/session-alpha-1"
    assert call(app, "GET", path, token).status_code == 200
    refused = call(app, "GET", f"{path}?content=1", token)
    assert refused.status_code == 403
    assert "text of" not in refused.text
    assert call(app, "GET", "/sessions/session-alpha-1?content=1", token).status_code == 403
    world.parts.credentials.revoke(made.token_id, ADA)


def test_a_tenant_can_not_add_to_the_others_turns_nor_take_them(tmp_path: Path) -> None:
    with two_tenants(tmp_path) as world:
        app = api_app(world.parts)
        path = "/v1/sessions/session-alpha-1?content=1"
        before = call(app, "GET", path, world.tokens["alpha"]).json()
        forged = session_of("alpha", 1, department="beta").replace(b"answer of", b"forged at")
        world.send("beta", forged)
        world.drain()
        after = call(app, "GET", path, world.tokens["alpha"]).json()
        assert after["turns"] == before["turns"]
        assert after["prompts"] == before["prompts"]
        assert call(app, "GET", path, world.tokens["beta"]).status_code == 404


def test_labels_count_only_below_the_credentials_node(tmp_path: Path) -> None:
    with two_tenants(tmp_path) as world:
        app = api_app(world.parts)
        world.send("alpha", session_of("alpha", 7, **{"team.id": "team-alpha"}))
        world.send("alpha", session_of("alpha", 8, **{"team.id": "team-beta"}))
        world.send("", session_of("alpha", 9, **{"team.id": "unheard of"}))
        world.drain()
        shown = {}
        for number in (7, 8, 9):
            answer = call(app, "GET", f"/v1/sessions/session-alpha-{number}", INSTALLATION_TOKEN)
            (turn,) = answer.json()["turns"]
            names = ("org_path", "attributed_by", "asserted_org_path")
            shown[number] = tuple(turn[name] for name in names)
        assert shown == {
            7: ("acme/alpha/team-alpha", "label", ""),
            8: ("acme/alpha", "credential", "team-beta"),
            9: ("unattributed", "nobody", "unheard of"),
        }
        rows = call(app, "GET", "/v1/spend?by=org", INSTALLATION_TOKEN).json()["rows"]
        assert "unattributed" in {row["org_path"] for row in rows}


DAYS = [f"2026-01-{day:02d}" for day in range(1, 6)]
PATHS = ["a", "a/b", "a/bc", "a/b/c", "b", "unattributed"]


@settings(max_examples=40)
@given(
    spans=st.lists(
        st.builds(
            PathSpan,
            st.sampled_from(PATHS),
            st.sampled_from(DAYS),
            st.sampled_from(["", *DAYS]),
        ),
        max_size=3,
    )
)
def test_a_view_is_the_same_in_sql_and_in_python(world: TwoTenants, spans: list[PathSpan]) -> None:
    view = View(tuple(spans))
    condition, parameters = view.condition()
    rows = world.parts.lake.query(
        f"""SELECT day, org_path FROM
        (SELECT unnest({DAYS!r}) AS day), (SELECT unnest({PATHS!r}) AS org_path)
        WHERE {condition}""",
        parameters,
    )
    expected = {(day, path) for day in DAYS for path in PATHS if view.admits(path, day)}
    assert {(row["day"], row["org_path"]) for row in rows} == expected
