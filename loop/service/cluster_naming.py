"""Names for the clusters of the latest clustering, by a model where one is set for that.

After a clustering is stored, and beside it: what a model takes its time over holds up neither a
clustering nor an erasure. Names are then stored with the clusters that are still the same.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from evaluators.cluster_names import ClusterBrief, name_clusters
from evaluators.judge.budget import JudgePrices
from evaluators.judge.cluster_names import (
    MAX_OUTPUT_TOKENS,
    NamingRequest,
    build_naming,
    namer_identity,
    read_name,
)
from evaluators.judge.model_api import AnswerLost, JudgeApi, RequestRejected
from loop.control.judge_calls import CallOutcome, JudgeCall
from loop.domain.clusters import SessionCluster
from loop.domain.errors import Refused, TurnwiseError, Unavailable
from loop.lake.rows import day_of
from loop.service.assemble import Parts
from loop.service.judge_planning import Consent, judging_limits
from loop.service.maintenance import writing_allowed

logger = logging.getLogger("turnwise")
RUBRIC = "cluster_names"
Clean = Callable[[str], str]


def name_latest_clusters(parts: Parts) -> int:
    """Names those clusters that have no name by the namer that is set, and all of whose sessions
    may be sent; how many got one. What a name costs is counted as the judge's."""
    settings = parts.settings
    if not (settings.cluster_namer and settings.anthropic_api_key and settings.judge_org_paths):
        return 0
    identity = namer_identity(settings.cluster_namer)
    clusters = [c for c in parts.lake.latest_clusters() if c.named_by != identity]
    allowed = _consented(parts, clusters)
    try:
        with parts.judge_api() as api:
            namer = _Namer(parts, api, identity)
            found: dict[str, SessionCluster] = {}
            for cluster in clusters:
                if cluster.cluster_id in allowed:
                    namer.org_path, namer.clean = allowed[cluster.cluster_id]
                    (named,) = name_clusters([cluster], namer).clusters
                    if named.named_by == identity:
                        found[named.cluster_id] = named
    except TurnwiseError as error:  # a model without a price: the clusters are fine without names
        logger.warning("clusters stay without names: %s", error)
        return 0
    return _store(parts, found) if found else 0


class _Namer:
    """Asks for a name while the day's money lasts; after one failure of the API no more."""

    def __init__(self, parts: Parts, api: JudgeApi, identity: str) -> None:
        self.identity = identity
        self.org_path = ""
        self.clean: Clean = str
        self._parts, self._api = parts, api
        self._model = parts.settings.cluster_namer
        self._day = day_of(time.time_ns() // 1000)
        self._prices = JudgePrices(parts.price_book, self._model, self._day)
        self._stopped: TurnwiseError | None = None

    def name(self, brief: ClusterBrief) -> str:
        if self._stopped is not None:
            raise self._stopped
        request = build_naming(brief, self._model, clean=self.clean)
        calls = self._parts.judge_calls
        reserved = calls.reserve([self._call(request)], judging_limits(self._parts.settings))
        if not reserved.taken:
            self._stopped = Unavailable("The money for names is spent.", why=reserved.stopped_by)
            raise self._stopped
        call_id = reserved.taken[0].call_id
        try:
            reply = self._api.ask(request.body)
        except RequestRejected:
            calls.settle([CallOutcome(call_id, 0, "rejected_request")])
            return ""
        except AnswerLost:
            calls.settle([CallOutcome(call_id, None, "lost")])
            raise
        except (Refused, Unavailable) as error:
            calls.release([call_id])
            self._stopped = error
            raise
        name = read_name(request, reply.message)
        cost = self._prices.cost(reply.usage, in_batch=False)
        calls.settle([CallOutcome(call_id, cost, "" if name else "off_menu")])
        return name

    def _call(self, request: NamingRequest) -> JudgeCall:
        return JudgeCall(
            day=self._day,
            rubric=RUBRIC,
            identity=self.identity[-8:],
            version=self.identity,
            model=self._model,
            purpose="name",
            session_id="",
            session_ended_at_us=0,
            input_digest="",
            org_path=self.org_path,
            arm="",
            probability=1.0,
            reserved_microusd=self._prices.most(
                request, in_batch=False, output_tokens=MAX_OUTPUT_TOKENS
            ),
        )


def _consented(parts: Parts, clusters: Sequence[SessionCluster]) -> Mapping[str, tuple[str, Clean]]:
    """The clusters whose sessions may all be sent, with the path that they have in common and what
    is done to their words."""
    consent = Consent(parts)
    found = {}
    for cluster in clusters:
        columns = parts.lake.turn_columns(
            ["org_path", "org_node_id"], where_sessions=cluster.session_ids
        )
        paths = {path or "" for path in columns["org_path"].tolist()}
        nodes = {node or "" for node in columns["org_node_id"].tolist()}
        clean = consent.treatment_of_places(paths, nodes)
        if clean is not None:
            found[cluster.cluster_id] = (_common_path(paths), clean)
    return found


def _common_path(paths: set[str]) -> str:
    return os.path.commonpath(list(paths)) if all(paths) else ""


def _store(parts: Parts, named: Mapping[str, SessionCluster]) -> int:
    """Nothing while the lake is maintained: the next clustering asks again."""
    with writing_allowed(parts.settings.data_dir) as allowed:
        if not allowed:
            return 0
        now_us = time.time_ns() // 1000
        stored, taken = [], 0
        for cluster in parts.lake.latest_clusters():
            new = named.get(cluster.cluster_id)
            if new is not None and new.session_ids == cluster.session_ids:
                cluster = replace(cluster, name=new.name, named_by=new.named_by)
                taken += 1
            stored.append(replace(cluster, clustered_at_us=now_us))
        if taken:
            parts.lake.write_clusters(stored)
        return taken
