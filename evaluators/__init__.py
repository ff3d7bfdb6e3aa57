"""Evaluators: what was good and bad about a session, from its own evidence."""

from evaluators.code_correctness import CodeCorrectness
from evaluators.contract import Evaluator
from evaluators.faithfulness import Faithfulness
from evaluators.registry import known_evaluators
from evaluators.tool_use import ToolUse


def default_evaluators() -> tuple[Evaluator, ...]:
    """The installed evaluators (entry points), which are always on, in order of name."""
    return known_evaluators().evaluators


__all__ = ["CodeCorrectness", "Evaluator", "Faithfulness", "ToolUse", "default_evaluators"]
