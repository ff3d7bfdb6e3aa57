"""For the tests of evaluators, here and in other packages; needs pytest and hypothesis.

Subclass :class:`EvaluatorContract` and give it a fixture ``evaluator``.
"""

from evaluators.testing.evaluator_contract import EvaluatorContract
from evaluators.testing.trace_strategies import traces

__all__ = ["EvaluatorContract", "traces"]
