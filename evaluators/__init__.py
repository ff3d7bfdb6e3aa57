"""Evaluators: what was good and bad about a session, from its own evidence."""

from evaluators.code_correctness import CodeCorrectness
from evaluators.contract import Evaluator
from evaluators.faithfulness import Faithfulness
from evaluators.tool_use import ToolUse


def default_evaluators() -> tuple[Evaluator, ...]:
    """The deterministic evaluators, which cost nothing and are always on."""
    return (Faithfulness(), ToolUse(), CodeCorrectness())


__all__ = ["CodeCorrectness", "Evaluator", "Faithfulness", "ToolUse", "default_evaluators"]
