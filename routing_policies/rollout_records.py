"""The records of a rollout: its plan, what sessions came to, and what was concluded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from loop.domain.errors import BadInput, Corrupt
from loop.domain.estimates import Interval, Verdict
from loop.domain.policies import BUCKETS
from loop.domain.scores import QualityMeasure

CANARY, STABLE, CONTROL = "canary", "stable", "control"

# "stay": the rollout goes on, but not to a next stage.
Action = Literal["none", "stay", "hold", "roll_back"]
GuardrailKind = Literal["hard", "statistical", "measurement", "cap"]
StepKind = Literal["wait", "hold", "advance", "promote", "roll_back"]
RolloutState = Literal["starting", "canary", "paused", "promoted", "rolled_back", "withdrawn"]


@dataclass(frozen=True, slots=True)
class HardLimits:
    """Absolute limits on the canary arm, looked at in windows of ``window_sessions`` sessions.

    Rates are per turn. Two consecutive windows over a limit roll back at once, without waiting
    for sessions to mature. ``max_gateway_failure_rate`` is of the answers that the gateways' own
    log names, so it needs no telemetry. ``None`` sets no limit.
    """

    max_error_rate: float | None = 0.2
    max_refusal_rate: float | None = 0.2
    max_gateway_failure_rate: float | None = 0.2
    max_cost_per_session_microusd: int | None = None
    window_sessions: int = 20

    def __post_init__(self) -> None:
        if self.window_sessions < 1:
            raise BadInput("A window of a hard limit holds at least one session.")


@dataclass(frozen=True, slots=True)
class CostReference:
    """What a session of the channel cost before the rollout, in micro-dollars: its mean, and the
    cap above which a session's cost counts as the cap (a high quantile). Both are fixed before the
    first session, so what is tested does not depend on what is seen."""

    mean_microusd: float
    cap_microusd: float

    def __post_init__(self) -> None:
        if not 0 < self.mean_microusd <= self.cap_microusd < math.inf:
            raise BadInput("A cost reference needs a mean above 0 and a cap that is not below it.")


@dataclass(frozen=True, slots=True)
class OtherMargins:
    """What else must not get worse, each as the loss that a promotion must rule out; a loss that is
    shown to be above half of it rolls back. ``None``: not watched.

    ``tool_use`` in points of that score (0 to 1), ``failed_turns`` in the share of a session's
    turns that failed or were refused, ``duration`` in how much longer a session's turns take
    (.5: half as long again), ``cost`` in how much more a session costs than ``reference.mean``;
    without a ``cost_reference`` the cost is not watched.
    """

    tool_use: float | None = 0.05
    failed_turns: float | None = 0.05
    duration: float | None = 0.5
    cost: float | None = 0.25
    cost_reference: CostReference | None = None

    def __post_init__(self) -> None:
        margins = (self.tool_use, self.failed_turns, self.duration, self.cost)
        if any(margin is not None and not 0 < margin < math.inf for margin in margins):
            raise BadInput("A margin is a loss above 0, or none.", why=f"They are {margins}.")


@dataclass(frozen=True, slots=True)
class ExposureCaps:
    """How far a canary may reach before it is promoted. Beyond a cap of sessions or developers the
    ramp stops; a canary that spends more in an hour is rolled back. ``None``: no cap."""

    max_canary_sessions: int | None = None
    max_canary_developers: int | None = None
    max_canary_usd_per_hour: float | None = None

    def __post_init__(self) -> None:
        caps = (self.max_canary_sessions, self.max_canary_developers, self.max_canary_usd_per_hour)
        if any(cap is not None and not 0 < cap < math.inf for cap in caps):
            raise BadInput("A cap is above 0, or none.", why=f"They are {caps}.")


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """How a policy is exposed and when that ends. Qualities are in [0, 1], so .02 is 2 points.

    ``canary_weights`` in 1/10,000, rising; control always gets the same weight, so no weight is
    above 5,000. ``alpha`` is the whole chance of ever rolling back, on any statistical guardrail, a
    policy that is not worse (``rollout_metrics`` has each one's share of it); the confidence
    sequences that are shown, and that a promotion needs, cover both sides with 1 - ``alpha`` each.
    Of quality, ``tolerance`` is the loss that never rolls back, ``margin`` the loss that a
    promotion must rule out.
    """

    canary_weights: tuple[int, ...] = (100, 500, 1000, 2500, 5000)
    margin: float = 0.02
    tolerance: float = 0.0
    alpha: float = 0.05
    min_units: int = 200  # scored sessions of canary and control before quality decides anything
    min_canary_units: int = 30
    min_stage_units: int = 50  # scored sessions that began in a stage before the next one
    stage_dwell_seconds: float = 3600.0
    maturation_seconds: float = 900.0  # age at which a session should have been scored
    horizon_seconds: float = 7 * 86_400.0
    missing_sessions: int = 20  # canary sessions in a row without a score that hold
    fallback_seconds: float = 7200.0  # how long it may last that nothing can be measured
    min_telemetry_share: float = 0.8  # of the last 100 matured canary sessions
    live_seconds: float = 60.0  # a gateway that asked within this time must acknowledge
    quarantine_hours: float = 24.0  # doubles with each rollback of the same document
    max_rollbacks_per_week: int = 3  # in the channel; then only a person's override starts another
    hard: HardLimits = HardLimits()
    others: OtherMargins = OtherMargins()
    caps: ExposureCaps = ExposureCaps()

    def __post_init__(self) -> None:
        weights = self.canary_weights
        if not weights or any(b <= a for a, b in zip((0, *weights), weights, strict=False)):
            raise BadInput(f"A rollout's canary weights must rise from above 0: {weights}.")
        if weights[-1] > BUCKETS // 2:
            raise BadInput(
                f"A canary weight of {weights[-1]} leaves no matched control.",
                fix=f"Use at most {BUCKETS // 2} (50 %).",
            )
        if not (0 < self.alpha < 1 and self.margin > 0 and 0 <= self.tolerance <= self.margin):
            raise BadInput(
                "A rollout needs 0 < alpha < 1, a margin above 0 and a tolerance up to the margin.",
                why=f"alpha={self.alpha}, margin={self.margin}, tolerance={self.tolerance}",
            )
        counts = (self.min_stage_units, self.missing_sessions, self.max_rollbacks_per_week)
        if min(counts) < 1:
            raise BadInput(
                "min_stage_units, missing_sessions and max_rollbacks_per_week are at least 1."
            )
        for name in ("stage_dwell", "maturation", "horizon", "fallback", "live"):
            value = getattr(self, f"{name}_seconds")
            if not (math.isfinite(value) and value >= 0):
                raise BadInput(f"{name}_seconds is {value!r}.", fix="Write 0 or more.")

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> RolloutPlan:
        """Raises :class:`BadInput` for unknown keys or values of another kind."""
        values = dict(document)
        try:
            values["canary_weights"] = tuple(
                int(weight) for weight in values.get("canary_weights", cls().canary_weights)
            )
            values["hard"] = HardLimits(**values.get("hard", {}))
            others = dict(values.get("others", {}))
            reference = others.get("cost_reference")
            others["cost_reference"] = CostReference(**reference) if reference else None
            values["others"] = OtherMargins(**others)
            values["caps"] = ExposureCaps(**values.get("caps", {}))
            return cls(**values)
        except (TypeError, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput("This is no plan of a rollout.", why=str(error)) from error


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """One session of a rollout, as known now.

    ``arm``, ``serial`` and ``assigned_at_us`` are those of its first decision within this
    rollout. ``turns`` 0: decided, but no telemetry came. ``errors`` and ``refusals`` count turns;
    ``cost_microusd`` is ``None`` while a turn is unpriced. ``duration_ms`` is the mean of its turns
    (``None``: not known), ``tool_use`` that score. ``gateway_answers`` and ``gateway_failures``
    count its requests in the gateways' log by the status that they were answered with; ``gateway``
    is the kind of gateway that decided first.
    """

    session_id: str
    arm: str
    serial: int
    rollout_id: str
    assigned_at_us: int
    quality: float | None = None
    cost_microusd: int | None = None
    turns: int = 0
    errors: int = 0
    refusals: int = 0
    duration_ms: float | None = None
    tool_use: float | None = None
    gateway_answers: int = 0
    gateway_failures: int = 0
    gateway: str = ""
    developer: str = ""


@dataclass(frozen=True, slots=True)
class ArrivedDecisions:
    """What has arrived of the gateways' log in a rollout: decisions by instance, and the time of
    the newest one (0: none)."""

    by_instance: Mapping[str, int]
    newest_at_us: int


@dataclass(frozen=True, slots=True)
class DecisionLog:
    """What gateways say they have decided, some time ago, against what has arrived of just these.
    ``silent_seconds``: since the newest decision that arrived, or the start."""

    said: int
    arrived: int
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """What an arm's sessions came to. Means are over scored, and over priced, sessions."""

    arm: str
    sessions: int
    scored: int
    turns: int
    errors: int
    refusals: int
    quality_mean: float | None
    cost_per_session_microusd: float | None


@dataclass(frozen=True, slots=True)
class PathPoint:
    """The confidence sequence of the quality difference at one session, for charts."""

    units: int
    assigned_at_us: int
    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One guardrail at one look. ``value`` against ``limit`` where it is a number."""

    name: str
    kind: GuardrailKind
    verdict: Verdict
    action: Action
    reason: str
    value: float | None = None
    limit: float | None = None
    units: int = 0


@dataclass(frozen=True, slots=True)
class JudgeReading:
    """What a judge says of a rollout's arms: the difference of canary minus control, each corrected
    by the labels of its own sessions, with a 95 % interval; ``None`` where an arm has too few.

    ``measure`` says which judge, and why it may not decide anything.
    """

    measure: QualityMeasure
    difference: Interval | None = None
    judged_sessions: int = 0


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """What the sessions say at one look. ``units``: scored, matured sessions of both arms.

    ``low`` and ``high`` bound the mean difference of canary minus control with 1 - alpha at all
    looks together; ``None`` before there are enough units. ``quality_words`` is the verdict on
    quality in a sentence. ``is_not_inferior``: every statistical guardrail has passed;
    ``undecided`` says in words which have neither passed nor failed.
    """

    at_us: int
    units: int
    stage_units: int
    canary_units: int
    waiting_units: int  # assigned, not yet matured
    unscored_units: int  # matured without a score
    estimate: float | None
    low: float | None
    high: float | None
    running_low: float | None
    running_high: float | None
    e_value: float
    is_worse: bool
    is_not_inferior: bool
    quality_words: str
    arms: tuple[ArmSummary, ...]
    guardrails: tuple[Guardrail, ...]
    path: tuple[PathPoint, ...]
    undecided: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> RolloutReport:
        """Reads what :meth:`to_document` wrote; raises :class:`Corrupt`."""
        try:
            values = {
                **document,
                "arms": tuple(ArmSummary(**arm) for arm in document["arms"]),
                "guardrails": tuple(Guardrail(**one) for one in document["guardrails"]),
                "path": tuple(PathPoint(**point) for point in document["path"]),
                "undecided": tuple(document.get("undecided", ())),
            }
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise Corrupt("A stored rollout report can't be read.", why=str(error)) from error


@dataclass(frozen=True, slots=True)
class Step:
    """What the controller does at one look, and why."""

    kind: StepKind
    reason: str


@dataclass(frozen=True, slots=True)
class Gateways:
    """Gateway instances against the serial that must be in force.

    ``behind``: alive and not there yet; ``rejected``: alive and refusing it, with their words;
    ``stale``: not heard of lately, which may serve an earlier serial until it expires.
    """

    serial: int
    live: tuple[str, ...]
    behind: tuple[str, ...]
    rejected: tuple[str, ...]
    stale: tuple[str, ...]

    @property
    def are_current(self) -> bool:
        return not self.behind and not self.rejected


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A line of a rollout's log: a state move, or a publication (``serial``)."""

    at_us: int
    what: str
    actor: str
    reason: str
    serial: int | None = None


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """A rollout as people and pages see it. ``stage`` counts from 1; 0 before the first.

    ``finished``: ended, and every live gateway has acknowledged that. ``report`` is the document
    of the last :class:`RolloutReport`, kept after the end.
    """

    rollout_id: str
    channel: str
    version: int
    stable_version: int
    state: RolloutState
    finished: bool
    stage: int
    canary_weights: tuple[int, ...]
    sentence: str
    step: StepKind
    plan: Mapping[str, Any]
    started_by: str
    started_at_us: int
    stage_started_at_us: int | None
    ended_at_us: int | None
    end_reason: str
    completed_at_us: int | None
    looked_at_us: int | None
    gateways: Gateways
    report: Mapping[str, Any] | None
    log: tuple[LogEntry, ...]

    @property
    def rollback_complete(self) -> bool:
        """Rolled back, and no live gateway decides by the canary any more."""
        return self.state == "rolled_back" and self.completed_at_us is not None

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "rollback_complete": self.rollback_complete}
