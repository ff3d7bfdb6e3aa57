"""What the demo claims, and whether it holds: checked against what the service answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    words: str
    holds: bool
    detail: str


class Claims:
    """Collects claims; one of the same words is kept once and holds only if it always did."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def note(self, words: str, holds: bool, detail: str) -> None:
        before = self._claims.get(words)
        if before is None or before.holds:
            self._claims[words] = Claim(words, holds, detail)

    def hold(self) -> bool:
        return all(claim.holds for claim in self._claims.values())

    def lines(self) -> list[str]:
        return [
            f"{'✓' if claim.holds else '✕'} {claim.words}"
            + (f" ({claim.detail})" if claim.detail else "")
            for claim in self._claims.values()
        ]
