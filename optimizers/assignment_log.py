"""Which arm each session drew, with what probability, and what each arm would have done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from loop.domain.policies import BUCKETS, Publication, RoutingPolicy
from optimizers.replay_assumptions import undated
from optimizers.routing import Routes, routes
from optimizers.turn_columns import replace_texts
from optimizers.turn_frame import TurnFrame

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
_EFFORTS = 1_000
_CATEGORIES = 6


@dataclass(slots=True)
class Vocabulary:
    """Codes of texts, given out as they are met."""

    codes: dict[str, int] = field(default_factory=dict)

    def encode(self, texts: tuple[str, ...]) -> Integers:
        return np.array([self.codes.setdefault(t, len(self.codes)) for t in texts], np.int64)


def route_codes(policy: RoutingPolicy, frame: TurnFrame, vocabulary: Vocabulary) -> Integers:
    """What a policy does to each turn (model and effort) as one number, shape ``(n,)``."""
    return codes_of(routes(policy, frame), vocabulary)


def codes_of(routed: Routes, vocabulary: Vocabulary) -> Integers:
    """As :func:`route_codes`, of routes that were decided before."""
    model = vocabulary.encode(tuple(map(undated, routed.models)))
    effort = vocabulary.encode(routed.efforts)
    return model[routed.model] * _EFFORTS + effort[routed.rule]


def split_code(code: int) -> tuple[int, int]:
    """The vocabulary's codes of the model and of the effort in a route's number."""
    return divmod(code, _EFFORTS)


def with_set_efforts(frame: TurnFrame, publications: Mapping[int, Publication]) -> TurnFrame:
    """The frame with the efforts that arms set in the place of those that were asked for."""
    draws = _Draws.of(publications)
    effort = frame.effort
    decided = ~np.isnan(frame.propensity)
    for index, policy in enumerate(draws.policies):
        if not any(rule.effort for rule in policy.rules):
            continue
        routed = routes(policy, frame)
        arms = {
            (serial, name)
            for serial, kind in draws.kinds.items()
            for name, (_, _, of_arm) in draws.arms[kind].items()
            if of_arm == index
        }
        for serial, name in sorted(arms):
            here = decided & (frame.serial == serial) & frame.arm.equals(name)
            rows = np.flatnonzero(here & (np.array(routed.efforts, object)[routed.rule] != ""))
            texts = [routed.efforts[rule] for rule in routed.rule[rows].tolist()]
            effort = replace_texts(effort, rows.tolist(), texts)
    return frame if effort is frame.effort else replace(frame, logged_effort=effort)


@dataclass(frozen=True, slots=True, eq=False)
class AssignmentLog:
    """``s`` sessions with a known outcome (a quality, a cost, …) that kept one randomised arm from
    their first decision to the last.

    ``probability`` is that of routing the session as it was routed, over all arms.
    """

    frame: TurnFrame  # these sessions only
    decided: Booleans  # (n,) turns that a gateway decided
    vocabulary: Vocabulary
    outcome: Floats  # (s,)
    drawn_codes: Integers  # (n,) what the session's own arm does
    arm_codes: tuple[Integers, ...]  # (n,) for each distinct arm policy
    arm_weights: Floats  # (s, arms): the probability of each arm policy in the session's draw
    probability: Floats  # (s,)
    features: Floats  # (s, f): what was known when the session began, standardised
    randomised_sessions: int  # with or without an outcome
    redrawn_share: float  # of all sessions with a propensity: drew anew under one publication
    unfaithful_share: float
    wrong_propensity_share: float

    def __len__(self) -> int:
        return len(self.outcome)

    @classmethod
    def read(
        cls,
        frame: TurnFrame,
        publications: Mapping[int, Publication],
        session_outcomes: Mapping[str, float],
    ) -> AssignmentLog:
        """Picks the usable sessions of a frame.

        Left out are sessions without a logged propensity, of an unknown or killed publication,
        whose draw changed on the way (a rollout that moved on), or without an outcome.
        """
        draws = _Draws.of(publications)
        serials, place = np.unique(frame.serial, return_inverse=True)
        kinds = np.array([draws.kinds.get(int(serial), -1) for serial in serials], np.int64)
        kind = kinds[place]
        decided = ~np.isnan(frame.propensity) & (kind >= 0)
        arm = draws.arm_table(frame.arm.values)[kind, frame.arm.codes]
        first = _first_rows(frame, decided)
        is_drawn = first >= 0
        at = np.maximum(first, 0)
        of_session = at[frame.session]
        moved = kind != kind[of_session]
        other_arm = (arm != arm[of_session]) | (frame.propensity != frame.propensity[of_session])
        is_steady = ~_any_row(frame, decided & (moved | other_arm))
        is_redrawn = _any_row(frame, decided & ~moved & other_arm)
        outcome = np.array([session_outcomes.get(name, np.nan) for name in frame.session_ids])
        is_known = is_drawn & is_steady & (arm[at] >= 0) if len(frame) else is_drawn
        chosen = is_known & ~np.isnan(outcome)
        part = frame.of_sessions(chosen)
        rows = chosen[frame.session]
        return _assemble(
            part, decided[rows], outcome[chosen], draws, kind[at][chosen], arm[at][chosen],
            frame.propensity[at][chosen], int(is_known.sum()),
            float(is_redrawn.sum() / max(1, is_drawn.sum())),
        )  # fmt: skip

    def agrees(self, left: Integers, right: Integers) -> Booleans:
        """In which sessions two ways of routing are the same at every decided turn."""
        return _agree(self.frame, self.decided, left, right)

    def is_supported(self, codes: Integers) -> Booleans:
        """In which sessions some arm that could have been drawn routes just so."""
        supported = np.zeros(len(self), bool)
        for index, arm in enumerate(self.arm_codes):
            supported |= (self.arm_weights[:, index] > 0) & self.agrees(codes, arm)
        return supported

    def chance_of(self, code: int) -> Floats:
        """How probable the draw made it that each turn is routed so, shape ``(n,)``."""
        chance = np.zeros(len(self.frame))
        for index, arm in enumerate(self.arm_codes):
            chance += self.arm_weights[self.frame.session, index] * (arm == code)
        return chance

    def folds(self, count: int) -> Integers:
        """A fold for each session, by its first instant: copies of a session go together."""
        start = self.frame.started_at_us[self.frame.session_starts()].astype(np.uint64)
        mixed = start * np.uint64(0x9E3779B97F4A7C15)
        return (mixed >> np.uint64(33)).astype(np.int64) % count


@dataclass(frozen=True, slots=True)
class _Draws:
    """The kinds of draw that sessions went through: publications that differ in their serial or
    their dates alone are one kind."""

    kinds: dict[int, int]  # by serial
    arms: tuple[dict[str, tuple[int, float, int]], ...]  # per kind: name → place, weight, policy
    policies: tuple[RoutingPolicy, ...]

    @classmethod
    def of(cls, publications: Mapping[int, Publication]) -> _Draws:
        kinds: dict[int, int] = {}
        known: dict[object, int] = {}
        arms: list[dict[str, tuple[int, float, int]]] = []
        policies: list[RoutingPolicy] = []
        places: dict[str, int] = {}
        for serial, publication in publications.items():
            if publication.kill:
                continue
            named: dict[str, tuple[int, float, int]] = {}
            for place, arm in enumerate(publication.arms):
                digest = arm.policy.digest
                if digest not in places:
                    places[digest] = len(policies)
                    policies.append(arm.policy)
                named[arm.name] = (place, arm.weight / BUCKETS, places[digest])
            key = (publication.salt, tuple(named.items()))
            if key not in known:
                known[key] = len(arms)
                arms.append(named)
            kinds[serial] = known[key]
        return cls(kinds, tuple(arms), tuple(policies))

    def arm_table(self, names: tuple[str, ...]) -> Integers:
        """The place of each named arm per kind; the last row answers -1 for no kind at all."""
        table = np.full((len(self.arms) + 1, max(1, len(names))), -1, np.int64)
        for kind, named in enumerate(self.arms):
            for code, name in enumerate(names):
                table[kind, code] = named.get(name, (-1,))[0]
        return table

    def weights(self, kinds: Integers) -> Floats:
        table = np.zeros((max(1, len(self.arms)), len(self.policies)))
        for kind, named in enumerate(self.arms):
            for _, weight, policy in named.values():
                table[kind, policy] += weight
        return table[kinds]


def _assemble(
    frame: TurnFrame,
    decided: Booleans,
    outcome: Floats,
    draws: _Draws,
    kind: Integers,
    arm: Integers,
    propensity: Floats,
    randomised: int,
    redrawn: float,
) -> AssignmentLog:
    vocabulary = Vocabulary()
    codes = tuple(route_codes(policy, frame, vocabulary) for policy in draws.policies)
    own = [list(draws.arms[k].values())[a] for k, a in zip(kind, arm, strict=True)]
    weight = np.array([entry[1] for entry in own])
    policy = np.array([entry[2] for entry in own], np.int64)
    weights = draws.weights(kind)
    drawn = np.zeros(len(frame), np.int64)
    for index, code in enumerate(codes):
        here = policy[frame.session] == index
        drawn[here] = code[here]
    probability = np.zeros(len(outcome))
    for index, code in enumerate(codes):
        probability += weights[:, index] * _agree(frame, decided, code, drawn)
    # The drawn arm counts with the propensity that was logged when it was drawn.
    probability += propensity - weight
    is_logged = decided & ~frame.routed_model.equals("")
    routed = vocabulary.encode(tuple(map(undated, frame.routed_model.values)))
    differs = is_logged & (routed[frame.routed_model.codes] != drawn // _EFFORTS)
    unfaithful = np.bincount(frame.session[differs], minlength=len(outcome)) > 0
    wrong = np.abs(propensity - weight) > 1e-6
    return AssignmentLog(
        frame, decided, vocabulary, outcome, drawn, codes, weights, probability,
        _features(frame, decided), randomised, redrawn,
        float(unfaithful.mean()) if len(outcome) else 0.0,
        float(wrong.mean()) if len(outcome) else 0.0,
    )  # fmt: skip


def _any_row(frame: TurnFrame, rows: Booleans) -> Booleans:
    """In which sessions some row is marked."""
    marked: Booleans = np.bincount(frame.session[rows], minlength=frame.n_sessions) > 0
    return marked


def _first_rows(frame: TurnFrame, decided: Booleans) -> Integers:
    """The first decided row of each session in time, -1 for none."""
    order = np.arange(len(frame)) if frame.time_order is None else frame.time_order
    rows = order[decided[order]]
    first = np.full(frame.n_sessions, -1, np.int64)
    first[frame.session[rows][::-1]] = rows[::-1]
    return first


def _agree(frame: TurnFrame, decided: Booleans, left: Integers, right: Integers) -> Booleans:
    differs = (left != right) & decided
    differing = np.bincount(frame.session[differs], minlength=frame.n_sessions)
    return np.equal(differing, 0)


def _features(frame: TurnFrame, decided: Booleans) -> Floats:
    """What the gateway knew at the first decision, so that no arm can have shaped it."""
    first = _first_rows(frame, decided)
    if len(first) == 0:
        return np.zeros((0, 0))
    columns: list[NDArray[np.float64]] = [
        np.log1p(numbers[first].astype(float))
        for numbers in (frame.total_input_tokens, frame.new_tokens, frame.prompt_chars)
    ]
    columns.append(np.log1p(np.maximum(frame.logged_prompt_tokens[first], 0).astype(float)))
    for texts in (frame.requested_model, frame.repository, frame.org_path):
        codes = texts.codes[first]
        counts = np.bincount(codes, minlength=len(texts.values))
        names = sorted(range(len(texts.values)), key=lambda c: (-counts[c], texts.values[c]))
        columns.extend((codes == code).astype(float) for code in names[1:_CATEGORIES])
    table = np.stack(columns, axis=1)
    spread = table.std(axis=0)
    varies = spread > 1e-12
    scaled: Floats = (table[:, varies] - table[:, varies].mean(axis=0)) / spread[varies]
    return scaled
