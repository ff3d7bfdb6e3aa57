"""Days: UTC, as ISO text."""

from __future__ import annotations

from datetime import date
from functools import lru_cache

_DAY_US = 86_400_000_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def utc_day(at_us: int) -> str:
    """The ISO day of a time in microseconds since the epoch.

    Raises ValueError or OverflowError for a time outside years 1 to 9999.
    """
    return _iso_day(at_us // _DAY_US)


@lru_cache(maxsize=1024)
def _iso_day(days: int) -> str:
    return date.fromordinal(_EPOCH_DAY + days).isoformat()
