"""Is a cluster explained by the policy version that routed its sessions?

The chance of a scored session to be in the cluster under one version, against the chance under
the other versions of the *same publication*: those share out sessions by chance at the same time,
so nothing but the policy differs between them. Publications are pooled as strata (Mantel and
Haenszel 1959; variance of the log ratio by Greenland and Robins 1985). Versions that never shared
a publication with another are compared over time, and the answer says that it is no proof.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from scipy.stats import norm

from loop.domain.clusters import PolicyCheck, PolicyVerdict

LEVEL = 0.05  # of the test, over all clusters and versions together (Holm 1979)
MOST_OF_IT = 0.5  # the excess share from which on a version explains a cluster
FEWEST_SESSIONS = 20  # on either side of a comparison
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Routed:
    """Who routed a session: the publication's serial and the version of the session's arm."""

    serial: int
    policy_version: int


@dataclass(frozen=True, slots=True)
class _Table:
    """Sessions of one stratum: in the cluster and all, under the version and under others."""

    hits: int
    sessions: int
    other_hits: int
    other_sessions: int


@dataclass(frozen=True, slots=True)
class _Contrast:
    policy_version: int
    is_randomised: bool
    ratio: float
    low: float
    high: float
    p: float
    excess: float  # sessions of the cluster beyond the others' rate
    most_excess: float  # the same at the upper end of the interval


def check_policies(
    routed: Sequence[Routed | None], members: Sequence[Iterable[int]]
) -> list[PolicyCheck]:
    """One check per cluster. ``routed`` has an entry for each scored session (``None``: by no
    policy); ``members`` are each cluster's places in it."""
    clusters = [set(rows) for rows in members]
    contrasts = [_contrasts(routed, rows) for rows in clusters]
    adjusted = _holm([c.p for found in contrasts for c in found])
    checks = []
    for rows, found in zip(clusters, contrasts, strict=True):
        their = [next(adjusted) for _ in found]
        checks.append(_judge(rows, list(zip(found, their, strict=True)), routed))
    return checks


def _contrasts(routed: Sequence[Routed | None], rows: set[int]) -> list[_Contrast]:
    counts: dict[Routed, list[int]] = defaultdict(lambda: [0, 0])
    for row, by in enumerate(routed):
        if by is not None:
            counts[by][0] += row in rows
            counts[by][1] += 1
    versions = sorted({by.policy_version for by in counts})
    found = []
    for version in versions:
        strata = _strata(counts, version)
        contrast = _compare(version, strata, is_randomised=True)
        if contrast is None:
            pooled = _pooled(counts, version)
            contrast = _compare(version, [pooled], is_randomised=False)
        if contrast is not None:
            found.append(contrast)
    return found


def _strata(counts: dict[Routed, list[int]], version: int) -> list[_Table]:
    tables = []
    for serial in sorted({by.serial for by in counts if by.policy_version == version}):
        own = counts[Routed(serial, version)]
        others = [
            counts[by] for by in counts if by.serial == serial and by.policy_version != version
        ]
        if others:
            other_hits, other_sessions = (sum(each) for each in zip(*others, strict=True))
            tables.append(_Table(own[0], own[1], other_hits, other_sessions))
    return tables


def _pooled(counts: dict[Routed, list[int]], version: int) -> _Table:
    own = [n for by, n in counts.items() if by.policy_version == version]
    other = [n for by, n in counts.items() if by.policy_version != version]
    return _Table(
        sum(n[0] for n in own),
        sum(n[1] for n in own),
        sum(n[0] for n in other),
        sum(n[1] for n in other),
    )


def _compare(version: int, tables: Sequence[_Table], *, is_randomised: bool) -> _Contrast | None:
    """The pooled ratio; ``None`` where a side has too few sessions or no session is in it."""
    sessions = sum(table.sessions for table in tables)
    others = sum(table.other_sessions for table in tables)
    hits = sum(table.hits + table.other_hits for table in tables)
    if min(sessions, others) < FEWEST_SESSIONS or not hits:
        return None
    # Half a session is added on either side where one side has none, as is usual for ratios.
    extra = 0.5 if not all(_sides(tables)) else 0.0
    above = below = variance = 0.0
    for table in tables:
        total = table.sessions + table.other_sessions
        above += (table.hits + extra) * table.other_sessions / total
        below += (table.other_hits + extra) * table.sessions / total
        in_it = table.hits + table.other_hits + 2 * extra
        variance += (
            in_it * table.sessions * table.other_sessions
            - (table.hits + extra) * (table.other_hits + extra) * total
        ) / total**2
    error = math.sqrt(max(variance, 0.0) / (above * below))
    log_ratio = math.log(above / below)
    ratio, high = above / below, math.exp(log_ratio + _Z * error)
    p = 2 * float(norm.sf(abs(log_ratio) / error)) if error else 1.0
    own_hits = sum(table.hits for table in tables)
    return _Contrast(
        version,
        is_randomised,
        ratio,
        math.exp(log_ratio - _Z * error),
        high,
        p,
        own_hits * max(0.0, 1.0 - 1.0 / ratio),
        own_hits * max(0.0, 1.0 - 1.0 / high),
    )


def _sides(tables: Sequence[_Table]) -> tuple[int, int]:
    return sum(table.hits for table in tables), sum(table.other_hits for table in tables)


def _holm(values: Sequence[float]) -> Iterator[float]:
    order = sorted(range(len(values)), key=lambda place: values[place])
    adjusted, most = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, values[place] * (len(values) - rank)))
        adjusted[place] = most
    return iter(adjusted)


def _judge(
    rows: set[int], contrasts: list[tuple[_Contrast, float]], routed: Sequence[Routed | None]
) -> PolicyCheck:
    by_policy = sum(routed[row] is not None for row in rows)
    if not contrasts:
        reason = (
            "no policy routed its sessions"
            if not by_policy
            else f"no two policy versions served {FEWEST_SESSIONS} scored sessions each"
        )
        return PolicyCheck("not explained" if not by_policy else "can't tell", reason)
    raised = [(c, p) for c, p in contrasts if p < LEVEL and c.ratio > 1]
    contrast, _ = max(raised or contrasts, key=lambda item: (item[0].excess, item[0].ratio))
    share = contrast.excess / len(rows)
    verdict: PolicyVerdict
    if raised:
        verdict = "explained" if share >= MOST_OF_IT else "in part"
        if not contrast.is_randomised:
            verdict = "can't tell"
    else:
        is_open = any(c.most_excess / len(rows) >= MOST_OF_IT for c, _ in contrasts)
        verdict = "can't tell" if is_open else "not explained"
    numbers = (
        f"a session of version {contrast.policy_version} is {contrast.ratio:.2g} times as likely "
        f"to be in it as one of the others (95 % {contrast.low:.2g} to {contrast.high:.2g})"
    )
    basis = (
        "versions drawn by chance at the same time"
        if contrast.is_randomised
        else "the versions served at different times, so time or people may explain it as well"
    )
    return PolicyCheck(
        verdict,
        f"{numbers}; {basis}",
        contrast.policy_version,
        contrast.is_randomised,
        contrast.ratio,
        contrast.low,
        contrast.high,
        share,
    )
