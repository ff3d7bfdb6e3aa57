"""What the replay takes for granted where the log can't tell, each with its source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MICROSECONDS = 1_000_000
_DATED = re.compile(r"-20\d{6}$")


def _default_minimums() -> dict[str, int]:
    # Third-party documentation of Anthropic's limits (docs.orq.ai, read November 2026); for
    # claude-opus-4-7 nothing was found, and it is taken to be as claude-opus-4-6.
    return {
        "claude-opus-4-5": 4_096,
        "claude-opus-4-6": 4_096,
        "claude-opus-4-7": 4_096,
        "claude-haiku-4-5": 4_096,
        "claude-sonnet-4-6": 2_048,
        "claude-sonnet-4-5": 1_024,
    }


def _default_ratios() -> dict[str, float]:
    # Anthropic's page on Haiku 5.5 states about 30 % more tokens for the same text from Opus 4.7
    # on than with Haiku 4.5. Every other model is taken at 1.0: not known, so not corrected.
    newer = ("claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-opus-5-5")
    return dict.fromkeys(newer, 1.3)


def _default_windows() -> dict[str, int]:
    # What the client states of each model (``contextWindow`` of its results, client 2.1.330); the
    # older models from published documentation.
    return {
        "claude-opus-4-7": 1_000_000,
        "claude-opus-4-6": 200_000,
        "claude-opus-4-5": 200_000,
        "claude-sonnet-4-6": 200_000,
        "claude-sonnet-4-5": 200_000,
        "claude-haiku-4-5": 200_000,
    }


def _default_outputs() -> dict[str, int]:
    # As the model API states them; what a gateway's parameter repair caps ``max_tokens`` at.
    return {
        "claude-opus-4-7": 128_000,
        "claude-opus-4-6": 128_000,
        "claude-sonnet-4-6": 64_000,
        "claude-haiku-4-5": 64_000,
    }


@dataclass(frozen=True, slots=True)
class ReplayAssumptions:
    """Facts about models that no log states; models are named without a date suffix.

    ``tokenizer_ratio``: tokens for the same text, relative to claude-haiku-4-5. ``verbosity``:
    how much text a model answers with, relative to the others. ``min_cacheable_tokens``: shorter
    prefixes are not cached. ``context_window_tokens``: what a model can take in, answer included,
    and ``max_output_tokens`` the longest answer. ``models_without_effort`` take none: a gateway
    drops it. ``lookback_blocks``: how many content blocks
    before a breakpoint the API looks for an earlier entry (``None``: all), and
    ``blocks_per_turn`` how many a turn adds to the conversation. The two times to live are those
    of the two kinds of cache write.
    """

    tokenizer_ratio: Mapping[str, float] = field(default_factory=_default_ratios)
    default_tokenizer_ratio: float = 1.0
    min_cacheable_tokens: Mapping[str, int] = field(default_factory=_default_minimums)
    default_min_cacheable_tokens: int = 1_024
    verbosity: Mapping[str, float] = field(default_factory=dict)
    context_window_tokens: Mapping[str, int] = field(default_factory=_default_windows)
    max_output_tokens: Mapping[str, int] = field(default_factory=_default_outputs)
    models_without_effort: frozenset[str] = frozenset({"claude-haiku-4-5"})
    lookback_blocks: int | None = 20
    blocks_per_turn: float = 3
    short_ttl_us: int = 5 * 60 * MICROSECONDS
    long_ttl_us: int = 60 * 60 * MICROSECONDS

    def ratio(self, model: str) -> float:
        return self.tokenizer_ratio.get(undated(model), self.default_tokenizer_ratio)

    def answer_ratio(self, model: str) -> float:
        """Tokens of an answer, relative to a model of ratio 1 and verbosity 1."""
        return self.ratio(model) * self.verbosity.get(undated(model), 1.0)

    def longest_answer(self, model: str) -> int | None:
        """In the model's own tokens; ``None`` where it is not known."""
        return self.max_output_tokens.get(undated(model))

    def window(self, model: str) -> int | None:
        """What the model can take in, answer included; ``None`` where it is not known."""
        return self.context_window_tokens.get(undated(model))

    @property
    def lookback_turns(self) -> int | None:
        """How many turns ago a model may last have been used for its cache to be found."""
        if self.lookback_blocks is None:
            return None
        return int(self.lookback_blocks / self.blocks_per_turn)

    def ceiling(self, model: str) -> int | None:
        """The largest input to route to a model, ``None`` where its window is not known: three
        quarters of it, to leave room for the answer and for another tokenizer."""
        window = self.window(model)
        return None if window is None else window * 3 // 4

    def minimum(self, model: str) -> int:
        return self.min_cacheable_tokens.get(undated(model), self.default_min_cacheable_tokens)


def undated(model: str) -> str:
    """A model's name without its release date: claude-haiku-4-5-20251001 is claude-haiku-4-5."""
    return _DATED.sub("", model)
