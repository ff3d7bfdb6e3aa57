"""Judging: requests are sent while the day's money lasts, answers become scores."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from evaluators.contract import digest_trace
from evaluators.judge.answers import Judgement, failed, read_answer
from evaluators.judge.model_api import (
    MAX_BATCH_BYTES,
    MAX_BATCH_REQUESTS,
    AnswerLost,
    JudgeApi,
    Reply,
    RequestRejected,
)
from evaluators.judge.requests import JudgeRequest, judge_identity
from evaluators.judge.rubrics import find_rubric
from loop.control.judge_calls import JudgeCall, Reserved
from loop.control.labels import Anchor
from loop.domain.errors import Refused, Unavailable
from loop.service.assemble import Parts
from loop.service.judge_planning import (
    DAY_US,
    JudgeOrder,
    JudgePlan,
    PlannedCall,
    judged_rubrics,
    judging_limits,
    plan_judging,
    planned_calls,
)
from loop.service.judge_results import (
    Answer,
    collect,
    prices_today,
    record_nothing,
    settle_answers,
)
from loop.service.rollout_stage import read_publications

logger = logging.getLogger("turnwise")
COUNTED_REQUESTS = 20
"""Of a dry run: so many are counted by the API where that is asked for, the rest by their share."""
RESERVED_AT_ONCE = 200
ANSWERS_AT_ONCE = 25
"""Answers that are written together: each writing is a commit of the lake."""
Note = Callable[[str], None]


@dataclass(slots=True)
class JudgeReport:
    """What a pass came to. ``counts`` of sessions; ``stopped_by`` says what ended it early, and
    ``left_unjudged`` how many sessions that leaves."""

    plan: JudgePlan
    dry_run: bool
    planned: int = 0
    sent: int = 0
    judged: int = 0
    unscored: dict[str, int] = field(default_factory=dict)
    left_unjudged: int = 0
    stopped_by: str = ""
    estimated_microusd: int = 0
    set_aside_microusd: int = 0
    cost_microusd: int = 0
    batches: list[str] = field(default_factory=list)
    _answers: list[Answer] = field(default_factory=list)

    def take(self, parts: Parts, answer: Answer) -> None:
        """Counts one answer, and records it with the next ones."""
        self._answers.append(answer)
        self.cost_microusd += answer.cost_microusd or 0
        failure = answer.judgement.failure if answer.judgement else "changed"
        if failure:
            self.unscored[failure] = self.unscored.get(failure, 0) + 1
        else:
            self.judged += 1
        if len(self._answers) >= ANSWERS_AT_ONCE:
            self.flush(parts)

    def flush(self, parts: Parts) -> bool:
        """Records the answers taken so far; whether there were any."""
        answers, self._answers = self._answers, []
        if answers:
            settle_answers(parts, answers)
        return bool(answers)

    def to_document(self) -> dict[str, Any]:
        identity = self.plan.identity
        return {
            "rubric": identity.rubric,
            "version": identity.version,
            "model": identity.model,
            "dry_run": self.dry_run,
            **{
                name: self.plan.counts.get(name, 0)
                for name in ("considered", "not_sampled", "judged_before", "no_consent", "nothing")
            },
            **{
                name: getattr(self, name)
                for name in (
                    "planned", "sent", "judged", "unscored", "left_unjudged", "stopped_by",
                    "estimated_microusd", "set_aside_microusd", "cost_microusd", "batches",
                )
            },
        }  # fmt: skip


def judge(
    parts: Parts,
    order: JudgeOrder,
    *,
    dry_run: bool = False,
    count_tokens: bool = False,
    note: Note = lambda step: None,
) -> JudgeReport:
    """Judges what one order asks for, as far as the day's money goes.

    ``note`` is told how far it is. Raises :class:`BadInput` without a key or a price,
    :class:`Refused` for a key that may not; what was sent by then is recorded.
    """
    plan = plan_judging(parts, order, read_publications(parts))
    report = JudgeReport(plan, dry_run)
    calls = _limited(planned_calls(parts, order, plan), order, report)
    if dry_run:
        _estimate(parts, order, calls, report, count_tokens)
        return report
    with parts.judge_api() as api:
        if order.in_batch:
            _send_batch(parts, api, calls, report, note)
        else:
            _ask_now(parts, api, calls, report, note)
    report.left_unjudged = plan.candidates_left - report.planned
    return report


def _limited(
    calls: Iterator[PlannedCall], order: JudgeOrder, report: JudgeReport
) -> Iterator[PlannedCall]:
    for call in calls:
        if call.request is not None and report.planned == order.limit:
            report.stopped_by = report.stopped_by or f"the limit of {order.limit} calls"
            return
        yield call


def _estimate(
    parts: Parts,
    order: JudgeOrder,
    calls: Iterator[PlannedCall],
    report: JudgeReport,
    count_tokens: bool,
) -> None:
    prices = prices_today(parts)
    api = parts.judge_api() if count_tokens else None
    counted = typical = 0
    try:
        for planned in calls:
            if planned.request is None:
                report.plan.leave_out("nothing")
                continue
            report.planned += 1
            expected = prices.expected(planned.request, in_batch=order.in_batch)
            report.estimated_microusd += expected
            report.set_aside_microusd += planned.call.reserved_microusd
            if api is not None and report.planned <= COUNTED_REQUESTS:
                tokens = api.count_tokens(planned.request.body)
                counted += prices.expected(
                    planned.request, in_batch=order.in_batch, input_tokens=tokens
                )
                typical += expected
    finally:
        if api is not None:
            api.close()
    if typical:
        report.estimated_microusd = round(report.estimated_microusd * counted / typical)


def _requests(
    parts: Parts, calls: Iterator[PlannedCall], report: JudgeReport
) -> Iterator[tuple[JudgeCall, JudgeRequest]]:
    """What is to be sent. Sessions that give nothing to ask are unscored on the way."""
    nothing: list[tuple[JudgeCall, str]] = []
    try:
        for planned in calls:
            if planned.request is not None:
                yield planned.call, planned.request
                continue
            report.plan.leave_out("nothing")
            nothing.append((planned.call, planned.nothing))
    finally:
        record_nothing(parts, nothing)


def _reserve(parts: Parts, calls: Sequence[JudgeCall], report: JudgeReport) -> Reserved:
    """Sets the calls' money aside, as far as it goes."""
    reserved = parts.judge_calls.reserve(calls, judging_limits(parts.settings))
    for _ in reserved.busy:
        report.plan.leave_out("judged_before")
    report.planned += len(reserved.taken)
    report.set_aside_microusd += sum(call.reserved_microusd for call in reserved.taken)
    return reserved


def _send_batch(
    parts: Parts, api: JudgeApi, calls: Iterator[PlannedCall], report: JudgeReport, note: Note
) -> None:
    requests = _requests(parts, calls, report)
    group: list[tuple[JudgeCall, JudgeRequest]] = []
    size = 0
    while not report.stopped_by and (part := list(islice(requests, RESERVED_AT_ONCE))):
        bodies = {call.session_id: request for call, request in part}
        reserved = _reserve(parts, [call for call, _ in part], report)
        report.stopped_by = report.stopped_by or reserved.stopped_by
        for call in reserved.taken:
            request = bodies[call.session_id]
            group.append((call, request))
            size += request.own_bytes + request.cached_bytes
        note(f"{report.planned:,} requests written")
        if len(group) > MAX_BATCH_REQUESTS - RESERVED_AT_ONCE or size >= MAX_BATCH_BYTES:
            _submit(parts, api, group, report)
            group, size = [], 0
    if group:
        _submit(parts, api, group, report)


def _submit(
    parts: Parts,
    api: JudgeApi,
    group: Sequence[tuple[JudgeCall, JudgeRequest]],
    report: JudgeReport,
) -> None:
    ids = [call.call_id for call, _ in group]
    try:
        batch_id = api.submit([(call.call_id, request.body) for call, request in group])
    except AnswerLost:
        raise  # the batch may exist: it is looked for later
    except Exception:
        parts.judge_calls.release(ids)
        raise
    parts.judge_calls.mark_sent(ids, batch_id)
    report.batches.append(batch_id)
    report.sent += len(group)


def _ask_now(
    parts: Parts, api: JudgeApi, calls: Iterator[PlannedCall], report: JudgeReport, note: Note
) -> None:
    """Some requests at once. What ends the pass stops new ones; those on their way are finished."""
    requests = _requests(parts, calls, report)
    held: tuple[JudgeCall, JudgeRequest] | None = None
    waiting: dict[Future[Reply], tuple[JudgeCall, JudgeRequest]] = {}
    stopped: Exception | None = None
    with ThreadPoolExecutor(parts.settings.judge_concurrency) as threads:
        while True:
            while len(waiting) < parts.settings.judge_concurrency and not (
                stopped or report.stopped_by
            ):
                held = held or next(requests, None)
                if held is None:
                    break
                reserved = _reserve(parts, [held[0]], report)
                if reserved.stopped_by:
                    # Less than was set aside may be spent: what is answered frees the rest.
                    if report.flush(parts):
                        continue
                    if not waiting:
                        report.stopped_by = reserved.stopped_by
                    break
                for call in reserved.taken:
                    waiting[threads.submit(api.ask, held[1].body)] = (call, held[1])
                    report.sent += 1
                held = None
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                error = _take_answer(parts, *waiting.pop(future), future, report)
                stopped = stopped or error
            note(f"{report.judged + sum(report.unscored.values()):,} sessions answered")
    report.flush(parts)
    if isinstance(stopped, Unavailable):
        report.stopped_by = stopped.what
    elif stopped is not None:
        raise stopped


def _take_answer(
    parts: Parts,
    call: JudgeCall,
    request: JudgeRequest,
    future: Future[Reply],
    report: JudgeReport,
) -> Exception | None:
    """Takes the answer to one call; what should end the pass, if anything."""
    judgement: Judgement
    cost: int | None = 0
    try:
        reply = future.result()
    except RequestRejected:
        judgement = failed(request, "rejected_request")
    except AnswerLost:
        judgement, cost = failed(request, "lost"), None
    except (Refused, Unavailable) as error:
        parts.judge_calls.release([call.call_id])
        report.sent -= 1
        report.planned -= 1
        return error
    else:
        judgement = read_answer(request, reply.message)
        cost = prices_today(parts).cost(reply.usage, in_batch=False)
    report.take(parts, Answer(call, judgement, cost))
    return None


def rejudge_anchors(parts: Parts, rubric_name: str, *, in_batch: bool, note: Note) -> JudgeReport:
    """Judges the frozen sessions once more; those whose trace has changed are left out."""
    rubric = find_rubric(rubric_name)
    anchors = parts.labels.anchors(rubric_name)
    same = _unchanged(parts, anchors)
    order = JudgeOrder(rubric, "anchor", tuple(same), in_batch=in_batch)
    report = judge(parts, order, note=note)
    report.plan.count("changed", len(anchors) - len(same))
    return report


def _unchanged(parts: Parts, anchors: Sequence[Anchor]) -> list[str]:
    digests = {anchor.session_id: anchor.input_digest for anchor in anchors}
    traces = parts.lake.load_traces(list(digests))
    return [t.session_id for t in traces if digest_trace(t) == digests[t.session_id]]


def tick(parts: Parts) -> bool:
    """The scheduled look: collects batches, and sends what is due as new ones."""
    collect(parts)
    for rubric in judged_rubrics(parts.settings):
        report = judge(parts, JudgeOrder(rubric))
        if _anchors_are_due(parts, rubric.name):
            rejudge_anchors(parts, rubric.name, in_batch=True, note=lambda step: None)
        if report.sent or report.stopped_by:
            parts.stage_log.record(
                "judge",
                revision=0,
                at_us=time.time_ns() // 1000,
                done=report.sent,
                note=f"{rubric.name}: {report.sent} sent, {report.left_unjudged} left unjudged"
                + (f" by {report.stopped_by}" if report.stopped_by else ""),
            )
    return False


def _anchors_are_due(parts: Parts, rubric_name: str) -> bool:
    if not parts.labels.anchors(rubric_name):
        return False
    identity = judge_identity(find_rubric(rubric_name), parts.settings.judge_model).digest
    calls = [*parts.judge_calls.judged(rubric_name), *parts.judge_calls.unsettled()]
    newest = max(
        (c.created_at_us for c in calls if c.purpose == "anchor" and c.identity == identity),
        default=0,
    )
    return time.time_ns() // 1000 - newest > DAY_US
