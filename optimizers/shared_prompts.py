"""Tools and system prompts, which sessions keep warm for each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizers.turn_columns import Integers
from optimizers.turn_frame import TurnFrame

Booleans = NDArray[np.bool_]
NOT_SHARED = -1


class SharedPrompts:
    """Which turns of a frame may find, on a model, a system prompt that another session left.

    Segments of one request class share one as far as the log shows it (``is_shared``, one per
    segment). A turn in ``is_touch`` leaves it on the model that it goes to until ``expiry_us``.
    """

    def __init__(
        self, frame: TurnFrame, is_shared: Booleans, is_touch: Booleans, expiry_us: Integers
    ) -> None:
        self.started_at_us = frame.started_at_us
        classes = frame.request_class.codes.astype(np.int16)
        self.group = np.where(is_shared[frame.segment], classes, np.int16(NOT_SHARED))
        self.order = np.argsort(frame.started_at_us, kind="stable").astype(np.int32)
        # Turns of one instant have one place: none of them can have found what another left.
        in_time = frame.started_at_us[self.order]
        self.place = np.empty(len(frame), np.int32)
        self.place[self.order] = np.searchsorted(in_time, in_time).astype(np.int32)
        touched = np.where(is_touch, self.group, np.int16(NOT_SHARED))
        self.touched = touched[self.order]
        self.expiry_us = expiry_us[self.order]


class SharedWorld:
    """The shared prompts of one world: every turn sent to one model."""

    def __init__(self, prompts: SharedPrompts, model: Integers) -> None:
        self._prompts = prompts
        self._model = model[prompts.order]
        self._touches: dict[tuple[int, int], tuple[Integers, Integers]] = {}

    def is_warm(self, code: int, rows: Integers) -> Booleans:
        """Whether an earlier turn of the class left its system prompt on the model, and it still
        lives when each of the rows starts."""
        prompts = self._prompts
        warm = np.zeros(len(rows), bool)
        groups = prompts.group[rows]
        for group in np.unique(groups).tolist():
            if group == NOT_SHARED:
                continue
            chosen = np.flatnonzero(groups == group)
            places, ends = self._touches_of(code, group)
            last = np.searchsorted(places, prompts.place[rows[chosen]]) - 1
            alive = ends.take(np.maximum(last, 0), mode="clip") if len(ends) else 0
            warm[chosen] = (last >= 0) & (alive >= prompts.started_at_us[rows[chosen]])
        return warm

    def _touches_of(self, code: int, group: int) -> tuple[Integers, Integers]:
        """In order of time: the places of the touches, and until when the latest of each and all
        before it lives."""
        if (code, group) not in self._touches:
            prompts = self._prompts
            places = np.flatnonzero((self._model == code) & (prompts.touched == group))
            ends = np.maximum.accumulate(prompts.expiry_us[places])
            self._touches[code, group] = places, ends
        return self._touches[code, group]


def find_sharing(
    frame: TurnFrame,
    openings: Integers,
    system: NDArray[np.float64],
    served: Integers,
    is_touch: Booleans,
    expiry_us: Integers,
) -> SharedPrompts | None:
    """Which segments share their system prompt with others of their class, as the log shows it:
    those whose first turn (``openings``) read some of it, and those that nobody could have kept
    it warm for. A segment that began cold although one that is known to share had just used the
    model has a prompt of its own. ``None`` where no segment is seen to share.

    ``system`` is the length of each segment's system prompt, 0 where it is not known.
    """
    proves = np.zeros(len(system), bool)
    proves[frame.segment[openings]] = frame.cache_read_tokens[openings] > 0
    if not proves.any():
        return None
    everyone = np.ones(len(system), bool)
    asked = SharedPrompts(frame, everyone, is_touch & proves[frame.segment], expiry_us)
    world = SharedWorld(asked, served)
    cold = openings[frame.cache_read_tokens[openings] == 0]
    is_shared = system > 0
    for code in np.unique(served[cold]).tolist():
        here = cold[served[cold] == code]
        is_shared[frame.segment[here[world.is_warm(code, here)]]] = False
    return SharedPrompts(frame, is_shared, is_touch, expiry_us)
