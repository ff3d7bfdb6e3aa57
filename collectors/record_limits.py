"""What one record may be. A record beyond it is rejected by itself; the rest of its body is stored.

The limits are far above anything that a client sends (its texts end at 60 KB, its records have some
forty attributes), and low enough that no record can hold up what comes after it.
"""

from __future__ import annotations

from collections.abc import Mapping

from loop.domain.errors import BadInput

MAX_DEPTH = 32
MAX_ATTRIBUTES = 1024
MAX_ATTRIBUTE_BYTES = 4 * 1024 * 1024
MAX_AHEAD_US = 24 * 3600 * 1_000_000
"""How far ahead of the collector's clock a record may be. A clock that is days ahead would put
its turns under days to come, in every report from then on."""

AHEAD = "ahead_of_clock"
INVALID_ID = "invalid_id"
TOO_DEEP = "too_deep"
TOO_LARGE = "too_large"
TOO_MANY = "too_many_attributes"
_TEXTS = {
    AHEAD: "more than 24 hours ahead of the collector's clock; check the sender's",
    INVALID_ID: "spans without a valid trace id and span id",
    TOO_DEEP: f"nested more than {MAX_DEPTH} levels deep",
    TOO_LARGE: f"with an attribute larger than {MAX_ATTRIBUTE_BYTES} bytes",
    TOO_MANY: f"with more than {MAX_ATTRIBUTES} attributes",
}


class RecordRejected(BadInput):
    """A record is beyond a limit; where there is no record to reject, its whole body is."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"A record is {_TEXTS[reason]}.", fix="docs/http-api.md has the limits of a record."
        )
        self.reason = reason


def describe_rejections(rejected: Mapping[str, int]) -> str:
    """How many records of a body are rejected, and why."""
    return ". ".join(
        f"{count} of its records are {_TEXTS[reason]}" for reason, count in sorted(rejected.items())
    )


def check_pairs(count: int, largest_bytes: int = 0) -> None:
    """Raises :class:`RecordRejected` for too many attributes, or one that is too large."""
    if count > MAX_ATTRIBUTES:
        raise RecordRejected(TOO_MANY)
    if largest_bytes > MAX_ATTRIBUTE_BYTES:
        raise RecordRejected(TOO_LARGE)
