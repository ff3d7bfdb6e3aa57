"""The routes that sessions and agents are kept on, in a bounded memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from loop.domain.policies import Route, RouteRequest, RoutingPolicy, decide, unit_key

MAX_UNITS = 100_000
TTL_SECONDS = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class _Kept:
    route: Route
    policy_digest: str
    used_at: float


class KeptRoutes:
    """Remembers the last route of each unit; the least recently used ones are forgotten.

    Safe between threads. A route made by another policy than the one in force counts no more,
    with one exception: inside a tool loop the model stays until the loop has ended, when the
    policy in force asks for that (``guards.tool_loop_lock``).
    """

    def __init__(
        self,
        *,
        max_units: int = MAX_UNITS,
        ttl_seconds: float = TTL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_units = max_units
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def decide(self, policy: RoutingPolicy, policy_digest: str, request: RouteRequest) -> Route:
        """The route of ``request``, which is then the kept one of its unit."""
        key, now = unit_key(policy, request), self._clock()
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and now - kept.used_at > self._ttl_seconds:
                kept = None
            if kept is not None and kept.policy_digest != policy_digest:
                if policy.guards.tool_loop_lock and request.in_tool_loop:
                    self._kept.move_to_end(key)
                    route = decide(policy, request, kept.route)
                    return Route(route.model, "guard:tool_loop_lock", route.effort)
                kept = None
            route = decide(policy, request, None if kept is None else kept.route)
            self._kept[key] = _Kept(route, policy_digest, now)
            self._kept.move_to_end(key)
            while len(self._kept) > self._max_units:
                self._kept.popitem(last=False)
        return route
