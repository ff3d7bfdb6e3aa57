"""All that a set of sessions can say about a candidate off-policy: three outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from loop.domain.policies import Publication, RoutingPolicy
from optimizers.off_policy import EstimationLimits, OutcomeLog
from optimizers.turn_frame import TurnFrame

_ANYTHING = (0.0, float("inf"))


class SessionEvidence:
    """The sessions of a frame with what is known of them beside their turns.

    By session id: ``quality`` in [0, 1], ``wait_seconds`` (the time that its requests took in all),
    and ``labels``, names by dimension to slice by, such as the language. The cost of a session is
    the bill of its turns; a session with a turn that has no price has none.
    """

    def __init__(
        self,
        frame: TurnFrame,
        publications: Mapping[int, Publication] | None,
        quality: Mapping[str, float] | None,
        incumbent: RoutingPolicy,
        limits: EstimationLimits | None = None,
        *,
        wait_seconds: Mapping[str, float] | None = None,
        labels: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._frame = frame
        self._publications = publications or {}
        self._quality = quality or {}
        self._incumbent = incumbent
        self._limits = limits
        self._wait_seconds = wait_seconds or {}
        self.labels = labels or {}

    @cached_property
    def quality(self) -> OutcomeLog:
        return OutcomeLog(
            self._frame, self._publications, self._quality, self._incumbent, self._limits
        )

    @cached_property
    def cost_usd(self) -> OutcomeLog:
        frame = self._frame
        bill = np.bincount(frame.session, frame.cost_microusd, frame.n_sessions) / 1e6
        unpriced = np.bincount(frame.session[~frame.is_priced], minlength=frame.n_sessions)
        costs = {
            name: float(cost)
            for name, cost, missing in zip(frame.session_ids, bill, unpriced, strict=True)
            if not missing
        }
        return self._log("cost", costs)

    @cached_property
    def wait_seconds(self) -> OutcomeLog:
        return self._log("waiting time", self._wait_seconds)

    def _log(self, name: str, outcomes: Mapping[str, float]) -> OutcomeLog:
        return OutcomeLog(
            self._frame, self._publications, outcomes, self._incumbent, self._limits,
            outcome=name, bounds=_ANYTHING,
        )  # fmt: skip
