"""Where a judge stands: what its labels say of it, and whether it may decide anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from evaluators.calibration.agreement import Agreement, RatedItem, measure_agreement
from evaluators.calibration.drift import Drift, measure_drift
from evaluators.calibration.prediction_powered import (
    CorrectedMean,
    JudgedItem,
    correct_mean,
    rectify,
)
from evaluators.judge.rubrics import RUBRICS
from evaluators.judge.sampling import draw
from loop.control.judge_calls import JudgeCall
from loop.control.labels import Label
from loop.domain.errors import BadInput

GOOD = 0.75
"""From here on a label or a judgement is good: of single items, only full credit is."""


@dataclass(frozen=True, slots=True)
class CalibrationLimits:
    """What a judge needs to decide anything. ``min_kappa`` is for the low end of the interval."""

    min_kappa: float
    min_labelled_sessions: int
    max_flip_share: float


@dataclass(frozen=True, slots=True)
class Standing:
    """One identity of a judge. ``refusals`` say why it may not decide anything; empty when it may.

    ``mean`` and ``by_arm`` are what people would have said on average, by the judge's sample; an
    arm's is ``None`` where it has too few labels.
    """

    rubric: str
    version: str
    identity: str
    model: str
    calls: int
    judged_sessions: int
    unscored: Mapping[str, int]
    cost_microusd: int
    agreement: Agreement
    drift: Drift
    mean: CorrectedMean | None
    by_arm: Mapping[str, CorrectedMean | None]
    refusals: tuple[str, ...]


def judge_standings(
    calls: Sequence[JudgeCall], labels: Sequence[Label], limits: CalibrationLimits
) -> list[Standing]:
    """One for each identity that has judged, the one that judged last first."""
    by_identity: dict[str, list[JudgeCall]] = {}
    for call in calls:
        by_identity.setdefault(call.identity, []).append(call)
    newest = sorted(by_identity.values(), key=lambda own: -own[-1].created_at_us)
    return [_standing(own, labels, limits) for own in newest]


def judged_items(calls: Iterable[JudgeCall], labels: Iterable[Label]) -> list[JudgedItem]:
    """The judged items of one identity with their labels.

    Where any item has a label of its own, items are what is counted; else whole sessions are.
    """
    calls = list(calls)
    values = _label_values(labels)
    latest = {call.session_id: call for call in calls if not call.failure}
    by_item = any(item for (_, item) in values)
    found = []
    for call in latest.values():
        menu = RUBRICS[call.rubric].verdicts
        rows: list[tuple[str, float]] = []
        if by_item:
            for key, name in call.verdicts.items():
                verdict = menu.get(name)
                if verdict is not None and verdict.credit is not None:
                    rows.append((key, verdict.credit))
        elif call.value is not None:
            rows.append(("", call.value))
        for key, judged in rows:
            label, probability = values.get((call.session_id, key), (None, 1.0))
            found.append(JudgedItem(call.session_id, judged, label, call.probability, probability))
    return found


def rectified_sessions(calls: Iterable[JudgeCall], labels: Iterable[Label]) -> dict[str, float]:
    """A corrected value for each sampled session of one identity; none without enough labels.

    A session's label is a person's for the whole session, or the mean over its items where all of
    them are labelled. Sessions that were drawn with a higher probability than others are thinned
    by the same draw, so that those that are left were drawn alike.
    """
    sampled = {c.session_id: c for c in calls if c.purpose == "sample" and c.value is not None}
    if not sampled:
        return {}
    lowest = min(call.probability for call in sampled.values())
    kept = [call for call in sampled.values() if draw(call.session_id) < lowest]
    values = _label_values(labels)
    items = []
    for call in kept:
        label, probability = _session_label(call, values)
        assert call.value is not None
        items.append(JudgedItem(call.session_id, call.value, label, 1.0, probability))
    labelled = [item for item in items if item.label is not None]
    if all(item.label_probability == 1.0 for item in labelled):  # all were equally likely
        share = len(labelled) / max(1, len(items))
        items = [replace(item, label_probability=share or 1.0) for item in items]
    try:
        power = correct_mean(items).power
    except BadInput:
        return {}
    return rectify(items, power)


def _session_label(
    call: JudgeCall, values: Mapping[tuple[str, str], tuple[float, float]]
) -> tuple[float | None, float]:
    whole = values.get((call.session_id, ""))
    if whole is not None:
        return whole
    menu = RUBRICS[call.rubric].verdicts
    keys = [key for key, name in call.verdicts.items() if menu[name].credit is not None]
    found = [values.get((call.session_id, key)) for key in keys]
    known = [value for value in found if value is not None]
    if not known or len(known) < len(keys):
        return None, 1.0
    return sum(value for value, _ in known) / len(known), known[0][1]


def _standing(
    calls: Sequence[JudgeCall], labels: Sequence[Label], limits: CalibrationLimits
) -> Standing:
    last = calls[-1]
    own = [label for label in labels if label.rubric == last.rubric]
    judging = [call for call in calls if call.purpose != "anchor"]
    sampled = [call for call in judging if call.purpose == "sample"]
    rated = [
        RatedItem(item.session_id, item.label >= GOOD, item.judged >= GOOD)
        for item in judged_items(judging, own)
        if item.label is not None
    ]
    agreement = measure_agreement(rated)
    drift = measure_drift(
        ((c.session_id, c.verdicts) for c in calls if c.purpose == "anchor" and not c.failure),
        limits.max_flip_share,
    )
    arms = sorted({call.arm for call in sampled})
    unscored: dict[str, int] = {}
    for call in judging:
        if call.failure:
            unscored[call.failure] = unscored.get(call.failure, 0) + 1
    return Standing(
        rubric=last.rubric,
        version=last.version,
        identity=last.identity,
        model=last.model,
        calls=len(calls),
        judged_sessions=len({call.session_id for call in judging if not call.failure}),
        unscored=unscored,
        cost_microusd=sum(
            call.reserved_microusd if call.cost_microusd is None else call.cost_microusd
            for call in calls
        ),
        agreement=agreement,
        drift=drift,
        mean=mean_of(judged_items(sampled, own)),
        by_arm={
            arm: mean_of(judged_items([c for c in sampled if c.arm == arm], own))
            for arm in (arms if len(arms) > 1 else ())
        },
        refusals=refusals_of(agreement, drift, limits),
    )


def refusals_of(agreement: Agreement, drift: Drift, limits: CalibrationLimits) -> tuple[str, ...]:
    """Why a judge may not decide anything, each in a sentence's part; none when it may."""
    found = []
    if agreement.sessions < limits.min_labelled_sessions:
        found.append(
            f"{agreement.sessions} of its sessions are labelled, fewer than "
            f"{limits.min_labelled_sessions}"
        )
    kappa = agreement.kappa
    if kappa is None:
        found.append("its agreement with people can't be told from chance")
    elif kappa.low < limits.min_kappa:
        found.append(
            f"its agreement with people is kappa {kappa.estimate:.2f} (95 % interval "
            f"{kappa.low:.2f} to {kappa.high:.2f}); the low end must reach {limits.min_kappa:g}"
        )
    if drift.is_alarm:
        found.append(
            f"it says otherwise than before on {drift.flips} of {drift.items} anchor items, more "
            f"than the allowed {drift.allowed_flip_share:.0%} can explain"
        )
    return tuple(found)


def mean_of(items: Sequence[JudgedItem]) -> CorrectedMean | None:
    """The corrected mean; ``None`` where there are too few labels."""
    try:
        return correct_mean(items)
    except BadInput:
        return None


def _label_values(labels: Iterable[Label]) -> dict[tuple[str, str], tuple[float, float]]:
    """Of several people's labels on one thing their mean, with the chance of being labelled."""
    values: dict[tuple[str, str], list[Label]] = {}
    for label in labels:
        values.setdefault((label.session_id, label.item), []).append(label)
    return {
        place: (sum(label.value for label in group) / len(group), group[0].probability)
        for place, group in values.items()
    }
