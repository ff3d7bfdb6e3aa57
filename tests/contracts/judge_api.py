"""What the judge relies on of Messages and Message Batches, real or stood in for.

Subclass it and give ``judge_api`` (a :class:`JudgeApi`), ``model`` and ``patience_seconds`` (for a
batch). Against the real service it costs some cents: ``make judge-live``.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from evaluators.cluster_names import ClusterBrief
from evaluators.judge.answers import Judgement, read_answer
from evaluators.judge.cluster_names import MAX_OUTPUT_TOKENS, build_naming, read_name
from evaluators.judge.model_api import JudgeApi, RequestRejected
from evaluators.judge.requests import JudgeRequest, build_request
from evaluators.judge.rubrics import RUBRICS
from loop.domain.errors import Refused
from tests.evaluators.judged_traces import honest_trace


class JudgeApiContract:
    @pytest.fixture
    def judge_api(self) -> JudgeApi:
        raise NotImplementedError

    @pytest.fixture
    def stranger(self) -> JudgeApi:
        """The same address with a key that is none."""
        raise NotImplementedError

    @pytest.fixture
    def model(self) -> str:
        return "claude-haiku-4-5"

    @pytest.fixture
    def patience_seconds(self) -> float:
        return 30.0

    def request(self, model: str, rubric: str = "faithfulness") -> JudgeRequest:
        request = build_request(honest_trace(), RUBRICS[rubric], model)
        assert isinstance(request, JudgeRequest)
        return request

    @pytest.mark.parametrize("rubric", sorted(RUBRICS))
    def test_an_answer_keeps_to_the_form(
        self, judge_api: JudgeApi, model: str, rubric: str
    ) -> None:
        request = self.request(model, rubric)
        reply = judge_api.ask(request.body)
        assert reply.message["type"] == "message"
        assert reply.message["role"] == "assistant"
        assert reply.message["model"].startswith(model)
        assert reply.usage.total_input_tokens > 0
        assert reply.usage.output_tokens > 0
        judged = read_answer(request, reply.message)
        assert judged.failure is None
        self.is_sound(request, judged)

    def is_sound(self, request: JudgeRequest, judged: Judgement) -> None:
        questions = [asked.question for asked in request.asked if asked.question]
        assert set(judged.verdicts) == {question.key for question in questions}
        assert judged.score.value is None or 0 <= judged.score.value <= 1

    def test_a_name_is_of_the_words_that_were_offered(
        self, judge_api: JudgeApi, model: str
    ) -> None:
        raised = (("repeated_calls", 0.8, 0.1), ("tool_errors", 0.6, 0.1))
        brief = ClusterBrief(
            "repeated calls; billing",
            ("billing", "invoice"),
            raised,
            "more repeated calls",
            40,
            0.3,
        )
        request = build_naming(brief, model)
        reply = judge_api.ask(request.body)
        assert reply.message["stop_reason"] == "end_turn"
        assert read_name(request, reply.message)
        assert reply.usage.output_tokens <= MAX_OUTPUT_TOKENS

    def test_tokens_are_counted_before_they_are_spent(
        self, judge_api: JudgeApi, model: str
    ) -> None:
        request = self.request(model)
        counted = judge_api.count_tokens(request.body)
        used = judge_api.ask(request.body).usage.total_input_tokens
        assert counted == pytest.approx(used, rel=0.15)
        # No tokenizer of bytes makes more tokens than bytes: what budgets reserve by.
        assert used <= request.cached_bytes + request.own_bytes + 2_000

    def test_a_batch_answers_each_request_once(
        self, judge_api: JudgeApi, model: str, patience_seconds: float
    ) -> None:
        before_us = time.time_ns() // 1000 - 60_000_000
        requests = {f"judge_{name}": self.request(model, name) for name in RUBRICS}
        batch_id = judge_api.submit([(name, one.body) for name, one in requests.items()])
        assert batch_id in judge_api.find_batches(before_us)
        deadline = time.monotonic() + patience_seconds
        while not judge_api.is_ended(batch_id):
            assert time.monotonic() < deadline, "the batch did not end in time"
            time.sleep(min(5.0, patience_seconds / 1000))
        results = list(judge_api.results(batch_id))
        assert sorted(result.custom_id for result in results) == sorted(requests)
        for result in results:
            assert result.reply is not None, result.failure
            assert result.reply.message["usage"]["service_tier"] == "batch"
            request = requests[result.custom_id]
            self.is_sound(request, read_answer(request, result.reply.message))

    def test_a_key_that_is_none_is_refused(self, stranger: JudgeApi, model: str) -> None:
        with pytest.raises(Refused, match="401"):
            stranger.ask(self.request(model).body)

    def test_a_request_that_is_invalid_is_told_apart(self, judge_api: JudgeApi, model: str) -> None:
        body: dict[str, Any] = json.loads(json.dumps(self.request(model).body))
        body["output_config"]["format"]["schema"]["additionalProperties"] = True
        with pytest.raises(RequestRejected, match="400"):
            judge_api.ask(body)
