"""Made-up profiles of sessions with known ways to go wrong, and some that are like nothing else.

Each mode raises three features and speaks of things from a vocabulary of its own, beside words
that all share; noise raises any three and speaks of anything. All of it is invented.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluators.session_clusters import ProfiledSession
from evaluators.session_features import FEATURE_NAMES, PROFILE_VERSION
from loop.domain.clusters import NamedShare, SessionProfile

NOISE = -1
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class KnownModes:
    """``own_words`` of a mode's ``vocabulary`` and ``common_words`` of 200 are in each session;
    ``noise_share`` of the low-scoring sessions belong to no mode."""

    modes: int = 9
    noise_share: float = 0.25
    own_words: int = 12
    vocabulary: int = 40
    common_words: int = 10
    wobble: float = 0.15  # of the features, standard deviation

    def make(
        self, low: int, *, good: int = 0, seed: int = 0, first: int = 0
    ) -> tuple[list[ProfiledSession], dict[str, int]]:
        """Sessions, and the mode of each low-scoring one (``NOISE`` for none). The modes are the
        same under every seed, the sessions of another seed or ``first`` are others."""
        fixed, generator = np.random.default_rng(7), np.random.default_rng((seed, first))
        columns = len(FEATURE_NAMES)
        centres = np.zeros((self.modes, columns))
        for centre in centres:
            centre[fixed.choice(columns, 3, replace=False)] = fixed.uniform(0.4, 1.0, 3)
        sessions, truth = [], {}
        for number in range(first, first + low + good):
            name = f"s{number:06d}"
            is_low = number - first < low
            mode = int(generator.integers(self.modes))
            if not is_low or generator.random() < self.noise_share:
                mode = NOISE
            values = np.zeros(columns)
            if mode != NOISE:
                values = centres[mode].copy()
            elif is_low:
                values[generator.choice(columns, 3, replace=False)] = generator.uniform(0.2, 1, 3)
            moved = generator.random(columns) < 0.3
            values = np.clip(values + moved * generator.normal(0, self.wobble, columns), 0, 1)
            if is_low:
                truth[name] = mode
            quality = generator.uniform(0.1, 0.6) if is_low else generator.uniform(0.75, 1.0)
            sessions.append(
                ProfiledSession(
                    SessionProfile(
                        name,
                        PROFILE_VERSION,
                        0,
                        tuple(
                            NamedShare(feature, float(value))
                            for feature, value in zip(FEATURE_NAMES, values, strict=True)
                            if value
                        ),
                        self._words(mode, generator),
                    ),
                    float(quality),
                    cost_microusd=int(generator.lognormal(11, 1)),
                )
            )
        return sessions, truth

    def _words(self, mode: int, generator: np.random.Generator) -> tuple[str, ...]:
        if mode == NOISE:
            own = [
                (int(generator.integers(self.modes)), int(generator.integers(self.vocabulary)))
                for _ in range(self.own_words)
            ]
        else:
            chosen = generator.choice(self.vocabulary, self.own_words, replace=False)
            own = [(mode, int(word)) for word in chosen]
        common = generator.choice(200, self.common_words, replace=False)
        return tuple(_word(*pair) for pair in own) + tuple(_word(25, int(w)) for w in common)


def _word(group: int, number: int) -> str:
    return "q" + _LETTERS[group] + _LETTERS[number // 26] + _LETTERS[number % 26]
