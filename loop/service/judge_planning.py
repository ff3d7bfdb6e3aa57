"""Which sessions a judge is to look at, and what it would be asked: nothing is sent here."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collectors.content_modes import Treatment
from evaluators.judge.budget import JudgePrices
from evaluators.judge.requests import JudgeRequest, build_request, judge_identity
from evaluators.judge.rubrics import RUBRICS, JudgeIdentity, Rubric, find_rubric
from evaluators.judge.sampling import draw, inclusion_probability
from loop.control.judge_calls import JudgeCall, JudgeLimits, Purpose, is_within, parse_limits
from loop.domain.content_modes import ContentMode, strictest
from loop.domain.errors import BadInput
from loop.domain.policies import BUCKETS, Publication
from loop.domain.turns import SessionTrace
from loop.lake.rows import day_of
from loop.service.assemble import Parts
from loop.service.settings import Settings

SESSIONS_PER_BATCH = 50
MINUTE_US, DAY_US = 60_000_000, 86_400_000_000
EVERYTHING = "*"
_CANDIDATES = """
SELECT session_id, max(ended_at_us) AS ended_at_us,
    arg_min(policy_serial, started_at_us) AS serial, arg_min(arm, started_at_us) AS arm
FROM turns WHERE day >= ? {chosen}
GROUP BY session_id HAVING max(ended_at_us) >= ? AND max(ended_at_us) <= ?
"""


@dataclass(frozen=True, slots=True)
class JudgeOrder:
    """What is asked for. ``sessions`` names some in place of a sample; ``limit`` is for calls."""

    rubric: Rubric
    purpose: Purpose = "sample"
    sessions: tuple[str, ...] = ()
    limit: int | None = None
    in_batch: bool = True


@dataclass(frozen=True, slots=True)
class Candidate:
    session_id: str
    ended_at_us: int
    arm: str
    probability: float


@dataclass(slots=True)
class JudgePlan:
    """The sessions in the order in which they are to be judged, and how many fell out why.

    Where money runs out, those at the end stay unjudged. The order is that of the draw, so the rest
    is still a random sample.
    """

    identity: JudgeIdentity
    candidates: list[Candidate]
    counts: dict[str, int] = field(default_factory=dict)
    left_out: int = 0

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number

    def leave_out(self, reason: str) -> None:
        """One candidate needs no call, or may have none."""
        self.count(reason)
        self.left_out += 1

    @property
    def candidates_left(self) -> int:
        return len(self.candidates) - self.left_out


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One session with its request, or the reason why there is nothing to ask."""

    call: JudgeCall
    request: JudgeRequest | None
    nothing: str = ""


def judging_limits(settings: Settings) -> JudgeLimits:
    return parse_limits(settings.judge_budget_usd, settings.judge_budgets)


def judged_rubrics(settings: Settings) -> list[Rubric]:
    """Raises :class:`NotFound` for a name that is none."""
    return [find_rubric(name) for name in settings.judge_rubrics]


def plan_judging(
    parts: Parts, order: JudgeOrder, publications: Mapping[int, Publication]
) -> JudgePlan:
    """Finds and draws the sessions. Each session's draw is its own: nothing depends on when or how
    often this runs."""
    settings = parts.settings
    identity = judge_identity(order.rubric, settings.judge_model)
    plan = JudgePlan(identity, [])
    done = {} if order.purpose == "anchor" else parts.judge_calls.sessions_done(identity.digest)
    for row in _candidate_rows(parts, order):
        plan.count("considered")
        arm = row["arm"] or ""
        probability = 1.0
        if order.purpose == "sample":
            weights = _weights(publications.get(row["serial"] or 0))
            probability = inclusion_probability(settings.judge_sample_rate, arm, weights)
            if draw(row["session_id"]) >= probability:
                plan.count("not_sampled")
                continue
        if done.get(row["session_id"], -1) >= row["ended_at_us"]:
            plan.count("judged_before")
            continue
        candidate = Candidate(row["session_id"], row["ended_at_us"], arm, probability)
        plan.candidates.append(candidate)
    plan.candidates.sort(key=lambda one: (draw(one.session_id) / one.probability, one.session_id))
    return plan


def planned_calls(parts: Parts, order: JudgeOrder, plan: JudgePlan) -> Iterator[PlannedCall]:
    """The calls of a plan, a few sessions in memory at a time. Counts what may not be sent."""
    consent = Consent(parts)
    day = day_of(time.time_ns() // 1000)
    prices = JudgePrices(parts.price_book, parts.settings.judge_model, day)
    for start in range(0, len(plan.candidates), SESSIONS_PER_BATCH):
        chunk = {one.session_id: one for one in plan.candidates[start : start + SESSIONS_PER_BATCH]}
        traces = {trace.session_id: trace for trace in parts.lake.load_traces(list(chunk))}
        for candidate in chunk.values():
            trace = traces.get(candidate.session_id)
            if trace is None:  # gone meanwhile
                plan.leave_out("gone")
                continue
            clean = consent.treatment_of(trace)
            if clean is None:
                plan.leave_out("no_consent")
                continue
            request = build_request(trace, order.rubric, parts.settings.judge_model, clean=clean)
            most = 0
            if isinstance(request, JudgeRequest):
                most = prices.most(request, in_batch=order.in_batch)
            call = JudgeCall(
                day=day,
                rubric=order.rubric.name,
                identity=plan.identity.digest,
                version=plan.identity.version,
                model=plan.identity.model,
                purpose=order.purpose,
                session_id=candidate.session_id,
                session_ended_at_us=candidate.ended_at_us,
                input_digest=request.input_digest if isinstance(request, JudgeRequest) else "",
                org_path=_org_path(trace),
                arm=candidate.arm,
                probability=candidate.probability,
                reserved_microusd=most,
            )
            if isinstance(request, JudgeRequest):
                yield PlannedCall(call, request)
            else:
                yield PlannedCall(call, None, request)


class Consent:
    """Whose texts may be sent to the model API, and in which form.

    All of a session's turns must be charged to paths that consent, and stored in a content mode
    that keeps texts; in the mode ``redacted`` personal data is taken out once more, for what was
    stored before the mode was set.
    """

    def __init__(self, parts: Parts) -> None:
        self._paths = [path.strip("/ ") for path in parts.settings.judge_org_paths]
        self._modes = parts.content_modes()
        self._day = day_of(time.time_ns() // 1000)
        self._redacted = Treatment("redacted")
        self._default: ContentMode = self._modes.default

    def treatment_of(self, trace: SessionTrace) -> Callable[[str], str] | None:
        """What is done to each text, ``None`` where none may be sent."""
        return self.treatment_of_places(
            {traced.turn.org_path for traced in trace.turns},
            {traced.turn.org_node_id for traced in trace.turns},
        )

    def treatment_of_places(
        self, paths: Collection[str], nodes: Collection[str]
    ) -> Callable[[str], str] | None:
        """The same of whatever is charged to those paths and nodes."""
        if not paths or not all(self._consents(path) for path in paths):
            return None
        modes = [
            self._modes.of_node(node, self._day)[0] if node else self._default for node in nodes
        ]
        modes += [self._modes.of_path(path) for path in paths]
        mode = strictest(modes)
        if mode in ("none", "hashed"):
            return None
        return self._redacted.content if mode == "redacted" else str

    def _consents(self, org_path: str) -> bool:
        return any(path == EVERYTHING or is_within(org_path, path) for path in self._paths)


def read_order(document: Mapping[str, Any]) -> list[JudgeOrder]:
    """The orders that a request asks for. Raises :class:`BadInput`, :class:`NotFound`."""
    named = document.get("rubrics")
    names = sorted(RUBRICS) if named is None else named
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise BadInput("rubrics must be a list of names.")
    sessions = document.get("sessions") or []
    if not isinstance(sessions, list) or not all(isinstance(one, str) for one in sessions):
        raise BadInput("sessions must be a list of session ids.")
    limit = document.get("limit")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise BadInput(f"limit must be a whole number of 1 or more, not {limit!r}.")
    purpose: Purpose = "chosen" if sessions else "sample"
    return [
        JudgeOrder(
            find_rubric(name),
            purpose,
            tuple(sessions),
            limit,
            in_batch=document.get("now") is not True,
        )
        for name in names
    ]


def _candidate_rows(parts: Parts, order: JudgeOrder) -> Sequence[dict[str, Any]]:
    now_us = time.time_ns() // 1000
    if order.purpose != "sample":
        chosen = "AND session_id IN (SELECT unnest(?))"
        parameters: list[object] = ["", list(order.sessions), 0, now_us + DAY_US]
        return parts.lake.query(_CANDIDATES.format(chosen=chosen), parameters)
    settings = parts.settings
    since_us = now_us - round(settings.judge_window_days * DAY_US)
    until_us = now_us - round(settings.judge_idle_minutes * MINUTE_US)
    parameters = [day_of(since_us - DAY_US), since_us, until_us]
    return parts.lake.query(_CANDIDATES.format(chosen=""), parameters)


def _weights(publication: Publication | None) -> dict[str, float]:
    if publication is None:
        return {}
    return {arm.name: arm.weight / BUCKETS for arm in publication.arms}


def _org_path(trace: SessionTrace) -> str:
    """Where the session's last turn is charged: its judging counts there."""
    return trace.turns[-1].turn.org_path if trace.turns else ""
