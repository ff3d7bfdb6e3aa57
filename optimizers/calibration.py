"""The cache model held against the log: what it says the logged routes read, wrote and cost.

A replay believes the log wherever it can, so that the models as served give back the bill to the
micro-dollar. That says nothing of the model that prices what a policy changes; this does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizers.replay import Replayer
from optimizers.replay_assumptions import undated
from optimizers.turn_columns import Integers

CLOSE_SHARE = 0.05  # of a request's cacheable prompt
ALL = "all"


@dataclass(frozen=True, slots=True)
class Calibration:
    """The model beside the log, over the requests of one served model and class.

    ``reads_close_share``: of the requests with a cacheable prompt, those whose reads the model
    gives to within 5 % of that prompt; ``None`` where there are none. What is not read is
    written, so a write errs by the same tokens the other way.
    """

    model: str
    request_class: str
    requests: int
    billed_cost_microusd: int
    modelled_cost_microusd: int
    logged_cache_read_tokens: int
    modelled_cache_read_tokens: int
    logged_cache_write_tokens: int
    modelled_cache_write_tokens: int
    reads_close_share: float | None
    cost_close_share: float | None  # of the billed requests, those within 5 % of their bill

    @property
    def residual(self) -> float | None:
        """Modelled cost against the bill, as a share of the bill; ``None`` without one."""
        if self.billed_cost_microusd == 0:
            return None
        return self.modelled_cost_microusd / self.billed_cost_microusd - 1.0


def calibrate(replayer: Replayer) -> tuple[Calibration, ...]:
    """By served model and request class, the dearest first; the last entry is of all requests.

    Only requests that were served and have a price count.
    """
    frame = replayer.frame
    usable = replayer.is_modelled
    groups = []
    for model, on_model in _by_model(frame.served_model.values, frame.served_model.codes):
        for name in frame.request_class.values:
            chosen = usable & on_model & frame.request_class.equals(name)
            if chosen.any():
                groups.append(_compare(replayer, model, name, chosen))
    groups.sort(key=lambda group: -group.billed_cost_microusd)
    return (*groups, _compare(replayer, ALL, ALL, usable))


def describe_calibration(rows: Sequence[Calibration]) -> tuple[str, ...]:
    """In words: how far the model is off the bill, by model and class."""
    words = []
    for row in rows:
        if row.residual is None:
            continue
        name = "All requests" if row.model == ALL else f"{row.model}, {row.request_class}"
        close = "" if row.reads_close_share is None else (
            f"; it gives the cache reads of {100 * row.reads_close_share:.1f} % of them to within "
            f"{100 * CLOSE_SHARE:.0f} % of the prompt"
        )  # fmt: skip
        words.append(
            f"{name}: the cache model is {100 * row.residual:+.2f} % off the bill of "
            f"{row.requests:,} requests{close}."
        )
    return tuple(words)


def _compare(
    replayer: Replayer, model: str, request_class: str, chosen: NDArray[np.bool_]
) -> Calibration:
    frame = replayer.frame
    rows = np.flatnonzero(chosen)
    billed, modelled = frame.cost_microusd[rows], replayer.modelled_turn_cost_microusd[rows]
    logged_read, read = frame.cache_read_tokens[rows], replayer.modelled_read_tokens[rows]
    logged_write = (frame.cache_creation_5m_tokens + frame.cache_creation_1h_tokens)[rows]
    prompt = logged_read + logged_write
    is_close = np.abs(read - logged_read) <= CLOSE_SHARE * prompt
    is_cost_close = np.abs(modelled - billed) <= CLOSE_SHARE * billed
    return Calibration(
        model,
        request_class,
        requests=len(rows),
        billed_cost_microusd=int(billed.sum()),
        modelled_cost_microusd=int(modelled.sum()),
        logged_cache_read_tokens=int(logged_read.sum()),
        modelled_cache_read_tokens=int(read.sum()),
        logged_cache_write_tokens=int(logged_write.sum()),
        modelled_cache_write_tokens=int((prompt - read).sum()),
        reads_close_share=_share(is_close, prompt > 0),
        cost_close_share=_share(is_cost_close, billed > 0),
    )


def _share(held: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(held[among].mean()) if among.any() else None


def _by_model(names: Sequence[str], codes: Integers) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each model without its dates, and which rows it served."""
    plain = [undated(name) for name in names]
    for model in dict.fromkeys(plain):
        yield model, np.isin(codes, [code for code, name in enumerate(plain) if name == model])
