"""DeepEval's deterministic tool metric over turns from standard input, in its own environment.

Started by ``bench.bench_evaluators``; needs nothing of turnwise. A line is one turn: the tools that
were called and those that were expected (here the same). Prints how many it judged and its CPU
time. ``ToolCorrectnessMetric`` compares names and inputs and asks no model when no tools on offer
are given.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ["DEEPEVAL_TELEMETRY_OPT_OUT"] = "YES"
os.environ["DEEPEVAL_DISABLE_DOTENV"] = "1"

from deepeval.metrics import ToolCorrectnessMetric  # type: ignore[import-not-found]
from deepeval.test_case import LLMTestCase, ToolCall, ToolCallParams  # type: ignore[import-not-found]


def metric() -> ToolCorrectnessMetric:
    """The metric makes an OpenAI client unless a model is given; this one is never asked."""
    from deepeval.models import DeepEvalBaseLLM  # type: ignore[import-not-found]

    class Unasked(DeepEvalBaseLLM):  # type: ignore[misc]
        def load_model(self) -> object:
            return None

        def generate(self, *args: object, **kwargs: object) -> str:
            raise AssertionError("no model may be asked")

        async def a_generate(self, *args: object, **kwargs: object) -> str:
            raise AssertionError("no model may be asked")

        def get_model_name(self) -> str:
            return "unasked"

    return ToolCorrectnessMetric(
        model=Unasked(),
        async_mode=False,
        evaluation_params=[ToolCallParams.INPUT_PARAMETERS, ToolCallParams.OUTPUT],
    )


def main() -> None:
    turns = [json.loads(line) for line in sys.stdin]
    judged = metric()
    started = time.process_time()
    for turn in turns:
        calls = [
            ToolCall(name=call["name"], input_parameters=call["input"], output=call["output"])
            for call in turn["calls"]
        ]
        case = LLMTestCase(
            input=turn["prompt"],
            actual_output=turn["answer"],
            tools_called=calls,
            expected_tools=list(calls),
        )
        judged.measure(case, _show_indicator=False)
        if judged.score != 1.0:
            raise AssertionError(judged.reason)
    print(json.dumps({"turns": len(turns), "cpu_seconds": time.process_time() - started}))


if __name__ == "__main__":
    main()
