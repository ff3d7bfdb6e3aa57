"""The pages, one function each: read, put into words, render.

Every page is a plain GET that works without JavaScript, and names its JSON twin. Readings are
plain dicts, the same that the HTTP API answers with (``docs/http-api.md``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from loop.domain.errors import BadInput, TurnwiseError
from loop.service.web import charts
from loop.service.web.actions import Act, action_routes, offered_moves, offered_steers
from loop.service.web.document_diff import diff_rows
from loop.service.web.labelling import VALUES, AddLabel, label_routes, label_targets, label_words
from loop.service.web.responses import (
    API_PREFIX,
    Page,
    PageFiles,
    path_of,
    query_of,
    render,
    render_error,
)

GROUPINGS = {  # a grouping of spend, and the column that it adds
    "developer": "developer",
    "session": "session_id",
    "repo": "repository",
    "org": "org_path",
    "model": "model",
    "day": "day",
}
_SESSION_FILTERS = ("developer", "repository", "model", "org", "cluster")
_STATIC = Path(__file__).parent / "static"


class Readings(Protocol):
    """What the pages read; the methods' dicts are the HTTP API's answers."""

    def overview(self) -> dict[str, Any]: ...
    def list_sessions(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        sort: str = "started",
        developer: str | None = None,
        repository: str | None = None,
        model: str | None = None,
        org: str | None = None,
        cluster: str | None = None,
    ) -> dict[str, Any]: ...
    def show_session(self, session_id: str, *, content: bool = False) -> dict[str, Any]: ...
    def list_clusters(self) -> dict[str, Any]: ...
    def show_cluster(self, cluster_id: str) -> dict[str, Any]: ...
    def show_judge(self) -> dict[str, Any]: ...
    def show_calibration(self) -> dict[str, Any]: ...
    def reach_of_classic(self) -> dict[str, Any]: ...
    def list_runs(self) -> dict[str, Any]: ...
    def show_run(self, run_id: str) -> dict[str, Any]: ...
    def list_policies(self) -> dict[str, Any]: ...
    def show_policy(self, version: int) -> dict[str, Any]: ...
    def diff_policies(self, before: int, after: int) -> dict[str, Any]: ...
    def list_rollouts(self) -> dict[str, Any]: ...
    def show_rollout(self, rollout_id: str) -> dict[str, Any]: ...
    def spend(
        self,
        by: str,
        *,
        since: str | None = None,
        until: str | None = None,
        level: int | None = None,
    ) -> dict[str, Any]: ...


Read = Callable[[Request], Response]


def web_routes(
    readings: Readings, act: Act | None = None, add_label: AddLabel | None = None
) -> list[BaseRoute]:
    """The routes of the pages and of their static files.

    ``act`` makes the moves behind the pages' forms, ``add_label`` takes a label in; without them
    the pages only show. Readings and both are called in a worker thread; what they raise becomes a
    page with the API's status.
    """
    pages = _Pages(readings, can_act=act is not None, can_label=add_label is not None)
    reads: list[tuple[str, Read, str]] = [
        ("/", pages.overview, "overview"),
        ("/sessions", pages.sessions, "sessions"),
        ("/sessions/{session_id:path}", pages.session, "sessions"),
        ("/clusters", pages.clusters, "clusters"),
        ("/clusters/{cluster_id}", pages.cluster, "clusters"),
        ("/judge", pages.judge, "judge"),
        ("/runs", pages.runs, "runs"),
        ("/runs/{run_id}", pages.run, "runs"),
        ("/policies", pages.policies, "policies"),
        ("/policies/{before:int}...{after:int}", pages.policy_diff, "policies"),
        ("/policies/{version:int}", pages.policy, "policies"),
        ("/rollouts", pages.rollouts, "rollouts"),
        ("/rollouts/{rollout_id}", pages.rollout, "rollouts"),
        ("/spend", pages.spend, "spend"),
    ]
    routes: list[BaseRoute] = [
        Route(path, _answering(read, section), methods=["GET"]) for path, read, section in reads
    ]
    if act is not None:
        routes += action_routes(act)
    if add_label is not None:
        routes += label_routes(add_label)
    routes.append(Mount("/static", PageFiles(directory=_STATIC), name="static"))
    return routes


class _Pages:
    def __init__(self, readings: Readings, *, can_act: bool, can_label: bool) -> None:
        self._readings = readings
        self._can_act = can_act
        self._can_label = can_label

    def overview(self, request: Request) -> Response:
        page = Page("Overview", "overview", f"{API_PREFIX}/overview")
        return render(request, "overview.html", page, overview=self._readings.overview())

    def sessions(self, request: Request) -> Response:
        given = request.query_params
        filters = {name: given.get(name) or None for name in _SESSION_FILTERS}
        sort = given.get("sort") or "started"
        cursor = given.get("cursor") or None
        listed = self._readings.list_sessions(
            cursor=cursor,
            sort=sort,
            developer=filters["developer"],
            repository=filters["repository"],
            model=filters["model"],
            org=filters["org"],
            cluster=filters["cluster"],
        )
        query = {**filters, "sort": None if sort == "started" else sort}
        return render(
            request,
            "sessions.html",
            Page("Sessions", "sessions", _twin(request)),
            rows=listed["rows"],
            evaluators=sorted({name for row in listed["rows"] for name in row["scores"]}),
            filters=filters,
            in_force={name: value for name, value in filters.items() if value},
            sort=sort,
            next_page=listed["next"] and query_of({**query, "cursor": listed["next"]}),
            first_page=cursor and (query_of(query) or "?"),
        )

    def session(self, request: Request) -> Response:
        session_id = request.path_params["session_id"]
        content = request.query_params.get("content") == "1"
        shown = self._readings.show_session(session_id, content=content)
        crumbs = (("Sessions", "/sessions"),)
        twin = API_PREFIX + path_of("sessions", session_id) + ("?content=1" if content else "")
        page = Page(f"Session {session_id}", "sessions", twin, crumbs)
        costs = [turn["cost_microusd"] or 0 for turn in shown["turns"]]
        targets = label_targets(shown)
        return render(
            request,
            "session.html",
            page,
            private=content,
            content=content,
            most_microusd=max(costs, default=0),
            targets=targets if self._can_label else {},
            values=VALUES,
            **(shown | {"labels": label_words(shown, targets)}),
        )

    def clusters(self, request: Request) -> Response:
        page = Page("Clusters", "clusters", f"{API_PREFIX}/clusters")
        return render(request, "clusters.html", page, listed=self._readings.list_clusters())

    def cluster(self, request: Request) -> Response:
        shown = self._readings.show_cluster(request.path_params["cluster_id"])
        address = path_of("clusters", shown["cluster_id"])
        crumbs = (("Clusters", "/clusters"),)
        page = Page(shown["name"] or shown["label"], "clusters", API_PREFIX + address, crumbs)
        sessions = "/sessions" + query_of({"cluster": shown["cluster_id"], "sort": "quality"})
        return render(request, "cluster.html", page, cluster=shown, sessions=sessions)

    def judge(self, request: Request) -> Response:
        return render(
            request,
            "judge.html",
            Page("Judge", "judge", f"{API_PREFIX}/judge"),
            judge=self._readings.show_judge(),
            calibration=self._readings.show_calibration(),
        )

    def runs(self, request: Request) -> Response:
        page = Page("Runs", "runs", f"{API_PREFIX}/runs")
        return render(request, "runs.html", page, rows=self._readings.list_runs()["rows"])

    def run(self, request: Request) -> Response:
        shown = self._readings.show_run(request.path_params["run_id"])
        crumbs = (("Runs", "/runs"),)
        twin = API_PREFIX + path_of("runs", shown["run_id"])
        return render(
            request,
            "run.html",
            Page(f"Run {shown['run_id']}", "runs", twin, crumbs),
            run=shown,
            chart=charts.trials_chart(shown),
            trials=charts.trial_rows(shown),
            classic_reach=self._readings.reach_of_classic()["rows"],
        )

    def policies(self, request: Request) -> Response:
        page = Page("Policies", "policies", f"{API_PREFIX}/policies")
        return render(request, "policies.html", page, rows=self._readings.list_policies()["rows"])

    def policy(self, request: Request) -> Response:
        shown = self._readings.show_policy(request.path_params["version"])
        crumbs = (("Policies", "/policies"),)
        twin = API_PREFIX + path_of("policies", shown["version"])
        return render(
            request,
            "policy.html",
            Page(f"Policy version {shown['version']}", "policies", twin, crumbs),
            policy=shown,
            moves=offered_moves(shown) if self._can_act else (),
        )

    def policy_diff(self, request: Request) -> Response:
        before, after = request.path_params["before"], request.path_params["after"]
        shown = self._readings.diff_policies(before, after)
        crumbs = (("Policies", "/policies"), (f"Version {after}", f"/policies/{after}"))
        twin = f"{API_PREFIX}/policies/{before}...{after}"
        page = Page(f"From version {before} to {after}", "policies", twin, crumbs)
        return render(
            request,
            "policy_diff.html",
            page,
            diff=shown,
            before=before,
            after=after,
            rows=diff_rows(shown["documents"]["from"], shown["documents"]["to"]),
        )

    def rollouts(self, request: Request) -> Response:
        page = Page("Rollouts", "rollouts", f"{API_PREFIX}/rollouts")
        return render(request, "rollouts.html", page, rows=self._readings.list_rollouts()["rows"])

    def rollout(self, request: Request) -> Response:
        shown = self._readings.show_rollout(request.path_params["rollout_id"])
        crumbs = (("Rollouts", "/rollouts"),)
        address = path_of("rollouts", shown["rollout_id"])
        page = Page(f"Rollout {shown['rollout_id']}", "rollouts", API_PREFIX + address, crumbs)
        return render(
            request,
            "rollout.html",
            page,
            rollout=shown,
            address=address,
            chart=charts.band_chart(shown),
            points=charts.band_rows(shown),
            refusals_of=_refusals_of,
            steers=offered_steers(shown) if self._can_act and not shown["is_part"] else (),
        )

    def spend(self, request: Request) -> Response:
        given = request.query_params
        by = [name for name in (given.get("by") or "org").split(",") if name]
        for name in by:
            if name not in GROUPINGS:
                raise BadInput(
                    f"Spend can't be grouped by {name!r}.", fix=f"One of {', '.join(GROUPINGS)}."
                )
        since, until = given.get("since") or None, given.get("until") or None
        level = _level(given.get("level"))
        rows = self._readings.spend(",".join(by), since=since, until=until, level=level)["rows"]
        query = {"by": ",".join(by), "since": since, "until": until, "level": level}
        return render(
            request,
            "spend.html",
            Page("Spend", "spend", f"{API_PREFIX}/spend{query_of(query)}"),
            rows=rows,
            by=by,
            columns=[GROUPINGS[name] for name in by],
            groupings=tuple(GROUPINGS),
            since=since,
            until=until,
            level=level,
            total=charts.spend_total(rows),
        )


def _refusals_of(gateways: Mapping[str, Any]) -> dict[str, str]:
    """What each live gateway said when it rejected the serial; "" for those that did not."""
    return {
        instance: next(
            (
                words.removeprefix(instance).strip()
                for words in gateways["rejected"]
                if words.startswith(f"{instance} (")
            ),
            "",
        )
        for instance in gateways["live"]
    }


def _level(text: str | None) -> int | None:
    if not text:
        return None
    if text not in ("1", "2", "3", "4"):
        raise BadInput(f"level={text!r} is no level of the organization.", fix="1, 2, 3 or 4.")
    return int(text)


def _twin(request: Request) -> str:
    query = request.url.query
    return API_PREFIX + request.url.path + (f"?{query}" if query else "")


def _answering(read: Read, section: str) -> Callable[[Request], Awaitable[Response]]:
    @wraps(read)
    async def endpoint(request: Request) -> Response:
        try:
            return await run_in_threadpool(read, request)
        except TurnwiseError as error:
            return render_error(request, error, section)

    return endpoint
