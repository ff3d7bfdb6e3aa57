"""The routes that sessions and agents are kept on, in a bounded memory."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from loop.domain.errors import Corrupt
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

    def decide(
        self,
        policy: RoutingPolicy,
        policy_digest: str,
        request: RouteRequest,
        *,
        keep: bool = True,
    ) -> Route:
        """The route of ``request``, which is then the kept one of its unit if ``keep``."""
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
            if not keep:
                return route
            self._kept[key] = _Kept(route, policy_digest, now)
            self._kept.move_to_end(key)
            while len(self._kept) > self._max_units:
                self._kept.popitem(last=False)
        return route

    def save(self, path: Path) -> None:
        """Writes what is kept, for the process that comes after this one."""
        with self._lock:
            now, kept = self._clock(), list(self._kept.items())
        rows = [
            [*key, asdict(one.route), one.policy_digest, now - one.used_at] for key, one in kept
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.draft")
        draft.write_text(json.dumps({"units": rows}))
        draft.replace(path)

    def load(self, path: Path) -> None:
        """Takes up what another process saved; nothing where there is no file.

        Raises :class:`Corrupt` for a file that can't be read; then nothing is taken up.
        """
        try:
            rows = json.loads(path.read_bytes())["units"]
            now = self._clock()
            kept = {
                (str(session), str(agent)): _Kept(Route(**route), str(digest), now - float(age))
                for session, agent, route, digest, age in rows
            }
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Corrupt(
                f"{path} holds no kept routes.",
                why=str(error),
                fix="Delete it: sessions are then routed anew.",
            ) from error
        with self._lock:
            self._kept.update(kept)
