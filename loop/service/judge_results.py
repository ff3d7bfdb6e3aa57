"""What comes back from a judge: scores, costs, and the batches that have ended."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from evaluators.judge.answers import Failure, Judgement, failed, read_answer
from evaluators.judge.budget import JudgePrices
from evaluators.judge.model_api import BatchResult, JudgeApi
from evaluators.judge.requests import JudgeRequest, build_request
from evaluators.judge.rubrics import find_rubric
from loop.control.judge_calls import CallOutcome, JudgeCall
from loop.domain.scores import Score
from loop.domain.turns import SessionTrace
from loop.lake.rows import day_of
from loop.service.assemble import Parts
from loop.service.judge_planning import DAY_US, SESSIONS_PER_BATCH, Consent
from loop.service.maintenance import writing_allowed

PAUSE_SECONDS = 0.5
ADOPT_AFTER_US = 10 * 60_000_000
LOST_AFTER_US = DAY_US + 2 * 3_600_000_000  # a batch ends within a day


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one call. ``cost_microusd`` ``None``: it may have been charged, so what was set
    aside counts. ``judgement`` ``None``: the session changed or is gone."""

    call: JudgeCall
    judgement: Judgement | None
    cost_microusd: int | None

    def held_to(self, sessions_there: Collection[str]) -> Answer:
        gone = self.call.session_id not in sessions_there
        return replace(self, judgement=None) if gone else self


def settle_answers(parts: Parts, answers: Sequence[Answer]) -> None:
    """Records answers, those of sessions that are still there with their scores.

    Waits while the lake is maintained: a score of what was read before an erasure must not outlive
    it.
    """
    while True:
        with writing_allowed(parts.settings.data_dir) as allowed:
            if allowed:
                names = {answer.call.session_id for answer in answers}
                there = _sessions_there(parts, names)
                parts.judge_calls.forget(names - there)
                _settle(parts, [answer.held_to(there) for answer in answers])
                return
        time.sleep(PAUSE_SECONDS)


def record_nothing(parts: Parts, calls: Sequence[tuple[JudgeCall, str]]) -> None:
    """Records sessions that there was nothing to ask about, with the reasons."""
    with writing_allowed(parts.settings.data_dir) as allowed:
        if not allowed or not calls:
            return  # they are looked at again
        there = _sessions_there(parts, {call.session_id for call, _ in calls})
        kept = [(call, reason) for call, reason in calls if call.session_id in there]
        parts.lake.write_scores([_nothing_score(call, reason) for call, reason in kept])
        parts.judge_calls.record([call for call, _ in kept])


def _sessions_there(parts: Parts, names: Collection[str]) -> set[str]:
    rows = parts.lake.query(
        "SELECT DISTINCT session_id FROM turns WHERE session_id IN (SELECT unnest(?))",
        [sorted(names)],
    )
    return {row["session_id"] for row in rows}


def _settle(parts: Parts, answers: Sequence[Answer]) -> None:
    """The scores first: if this ends in between, the answers are settled once more, to the same."""
    now_us = time.time_ns() // 1000
    parts.lake.write_scores(
        [
            replace(
                answer.judgement.score,
                scored_at_us=now_us,
                cost_microusd=answer.cost_microusd,
                inclusion_probability=answer.call.probability,
            )
            for answer in answers
            if answer.judgement is not None and answer.call.purpose != "anchor"
        ]
    )
    parts.judge_calls.settle([_outcome(answer) for answer in answers])


def _outcome(answer: Answer) -> CallOutcome:
    call_id, judgement = answer.call.call_id, answer.judgement
    if judgement is None:
        return CallOutcome(call_id, answer.cost_microusd, "changed")
    return CallOutcome(
        call_id,
        answer.cost_microusd,
        judgement.failure or "",
        judgement.score.value,
        judgement.verdicts,
    )


def _nothing_score(call: JudgeCall, reason: str) -> Score:
    return Score(
        session_id=call.session_id,
        evaluator=find_rubric(call.rubric).evaluator,
        evaluator_version=call.version,
        value=None,
        unscored_reason=reason,
        scored_at_us=time.time_ns() // 1000,
        config_digest=call.identity,
        cost_microusd=0,
        inclusion_probability=call.probability,
    )


def prices_today(parts: Parts) -> JudgePrices:
    """Of the model that judges. Raises :class:`BadInput` where it has no price."""
    day = day_of(time.time_ns() // 1000)
    return JudgePrices(parts.price_book, parts.settings.judge_model, day)


def collect(parts: Parts) -> int:
    """Takes in the results of batches that have ended; how many calls were settled."""
    unsettled = parts.judge_calls.unsettled()
    if not unsettled:
        return 0
    settled = 0
    with parts.judge_api() as api:
        _adopt(parts, api, unsettled)
        by_batch: dict[str, dict[str, JudgeCall]] = {}
        for call in parts.judge_calls.unsettled():
            if call.batch_id:
                by_batch.setdefault(call.batch_id, {})[call.call_id] = call
        for batch_id, calls in by_batch.items():
            if api.is_ended(batch_id):
                settled += _take_results(parts, calls, api.results(batch_id))
    return settled


def _take_results(parts: Parts, calls: dict[str, JudgeCall], results: Iterator[BatchResult]) -> int:
    """In parts, so that memory and the lake's commits stay few."""
    settled = 0
    own = (result for result in results if result.custom_id in calls)
    while group := list(islice(own, SESSIONS_PER_BATCH)):
        traces = {
            trace.session_id: trace
            for trace in parts.lake.load_traces(
                [calls[result.custom_id].session_id for result in group]
            )
        }
        consent = Consent(parts)
        answers = []
        for result in group:
            call = calls[result.custom_id]
            request = _request_again(call, traces.get(call.session_id), consent)
            answers.append(_read_result(parts, call, request, result))
        settle_answers(parts, answers)
        settled += len(answers)
    return settled


def _read_result(
    parts: Parts, call: JudgeCall, request: JudgeRequest | None, result: BatchResult
) -> Answer:
    cost = 0
    if result.reply is not None:
        prices = JudgePrices(parts.price_book, call.model, call.day)
        cost = prices.cost(result.reply.usage, in_batch=True)
    if request is None:
        return Answer(call, None, cost)
    if result.reply is not None:
        return Answer(call, read_answer(request, result.reply.message), cost)
    failures: dict[str, Failure] = {"expired": "expired", "canceled": "canceled"}
    failure = failures.get(result.failure, "api_error")
    if result.error_type == "invalid_request_error":
        failure = "rejected_request"
    return Answer(call, failed(request, failure), cost)


def _request_again(
    call: JudgeCall, trace: SessionTrace | None, consent: Consent
) -> JudgeRequest | None:
    """The request as it was sent: the same trace gives the same. ``None`` where that has changed,
    or the consent was withdrawn."""
    clean = consent.treatment_of(trace) if trace is not None else None
    if trace is None or clean is None:
        return None
    built = build_request(trace, find_rubric(call.rubric), call.model, clean=clean)
    if not isinstance(built, JudgeRequest) or built.input_digest != call.input_digest:
        return None
    return built if built.identity.digest == call.identity else None


def _adopt(parts: Parts, api: JudgeApi, unsettled: Sequence[JudgeCall]) -> None:
    """Finds the batches of calls whose sending was cut off before the batch's name was written
    down, and gives up on calls of which nothing can be known any more."""
    now_us = time.time_ns() // 1000
    stale = {
        call.call_id: call
        for call in unsettled
        if not call.batch_id and now_us - call.created_at_us > ADOPT_AFTER_US
    }
    if stale:
        known = {call.batch_id for call in unsettled}
        oldest_us = min(call.created_at_us for call in stale.values())
        for batch_id in api.find_batches(oldest_us - ADOPT_AFTER_US):
            if batch_id in known or not api.is_ended(batch_id):
                continue
            own = {result.custom_id for result in api.results(batch_id)} & set(stale)
            if own:
                parts.judge_calls.mark_sent(own, batch_id)
                for call_id in own:
                    stale.pop(call_id)
    parts.judge_calls.settle(
        [
            CallOutcome(call.call_id, None, "lost")
            for call in stale.values()
            if now_us - call.created_at_us > LOST_AFTER_US
        ]
    )
