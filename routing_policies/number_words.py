"""Numbers as people read them in verdicts: points, percent, dollars and durations."""

from __future__ import annotations


def points(quality: float) -> str:
    """A difference of qualities in points of 100, signed: ``−0.3``."""
    return f"{quality * 100:+.1f}".replace("-", "−")


def percent(share: float) -> str:
    """``31.0 %``."""
    return f"{share * 100:.1f} %".replace("-", "−")


def signed_percent(share: float) -> str:
    """``+2.0 %``."""
    return f"{share * 100:+.1f} %".replace("-", "−")


def dollars(microusd: float) -> str:
    """Of micro-dollars: ``$1.2345``."""
    return f"${microusd / 1_000_000:,.4f}"


def duration(seconds: float) -> str:
    """The two largest parts: ``2 h 5 min``, ``45 s``, ``7 d``."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
