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


@dataclass(frozen=True, slots=True)
class ReplayAssumptions:
    """Facts about models that no log states; models are named without a date suffix.

    ``tokenizer_ratio``: tokens for the same text, relative to claude-haiku-4-5.
    ``min_cacheable_tokens``: shorter prefixes are not cached. The two times to live are those of
    the two kinds of cache write.
    """

    tokenizer_ratio: Mapping[str, float] = field(default_factory=_default_ratios)
    default_tokenizer_ratio: float = 1.0
    min_cacheable_tokens: Mapping[str, int] = field(default_factory=_default_minimums)
    default_min_cacheable_tokens: int = 1_024
    short_ttl_us: int = 5 * 60 * MICROSECONDS
    long_ttl_us: int = 60 * 60 * MICROSECONDS

    def ratio(self, model: str) -> float:
        return self.tokenizer_ratio.get(undated(model), self.default_tokenizer_ratio)

    def minimum(self, model: str) -> int:
        return self.min_cacheable_tokens.get(undated(model), self.default_min_cacheable_tokens)


def undated(model: str) -> str:
    """A model's name without its release date: claude-haiku-4-5-20251001 is claude-haiku-4-5."""
    return _DATED.sub("", model)
