"""What a request of a judge costs: at most, about, and in the end."""

from __future__ import annotations

from typing import Protocol

from evaluators.judge.requests import MAX_OUTPUT_TOKENS, JudgeRequest
from loop.domain.errors import BadInput
from loop.domain.money import PriceBook, Terms
from loop.domain.turns import TokenUsage

OVERHEAD_TOKENS = 2_000
"""What the API may add to a request of its own: for the form of the answer, above all."""
TYPICAL_BYTES_PER_TOKEN = 3.5
TYPICAL_OUTPUT_TOKENS = 60  # for one item
BATCH = Terms(service_tier="batch")


class Sized(Protocol):
    """A request: the bytes that are the same in all of its kind, and the others."""

    @property
    def cached_bytes(self) -> int: ...

    @property
    def own_bytes(self) -> int: ...


class JudgePrices:
    """Prices of one model on one day. Raises :class:`BadInput` for a model without any: a budget
    could not be held."""

    def __init__(self, book: PriceBook, model: str, day: str) -> None:
        self._book, self._model, self._day = book, model, day
        self.cost(TokenUsage(input_tokens=1), in_batch=True)

    def cost(self, usage: TokenUsage, *, in_batch: bool) -> int:
        """Micro-dollars."""
        cost = self._book.cost(self._model, self._day, usage, BATCH if in_batch else Terms())
        if cost.microusd is None:
            raise BadInput(
                f"What the judge {self._model} costs is not known: {cost.unpriced_reason}.",
                fix="Add its price, for batches too: `turnwise prices set`.",
            )
        return cost.microusd

    def most(
        self, request: Sized, *, in_batch: bool, output_tokens: int = MAX_OUTPUT_TOKENS
    ) -> int:
        """The most that a request can cost: no tokenizer of bytes makes more tokens than bytes."""
        usage = TokenUsage(
            input_tokens=request.own_bytes + OVERHEAD_TOKENS,
            cache_creation_5m_tokens=request.cached_bytes,
            output_tokens=output_tokens,
        )
        return self.cost(usage, in_batch=in_batch)

    def expected(
        self, request: JudgeRequest, *, in_batch: bool, input_tokens: int | None = None
    ) -> int:
        """About what it will cost, without any help of the cache."""
        size = (request.own_bytes + request.cached_bytes) / TYPICAL_BYTES_PER_TOKEN
        usage = TokenUsage(
            input_tokens=round(size) if input_tokens is None else input_tokens,
            output_tokens=TYPICAL_OUTPUT_TOKENS * len(request.asked),
        )
        return self.cost(usage, in_batch=in_batch)
