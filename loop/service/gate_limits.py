"""The gate's limits as the settings write them: for all, and for parts of the organization."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from loop.domain.errors import BadInput
from loop.service.settings import Settings
from routing_policies.offline_gate import GateLimits, UnitLimits

_OF_UNITS = {item.name: item for item in fields(UnitLimits)}


@dataclass(frozen=True, slots=True)
class GateRules:
    """The limits, and by organization path those of the units that have their own."""

    limits: GateLimits
    by_path: dict[str, UnitLimits]


def read_gate_rules(settings: Settings) -> GateRules:
    """Raises :class:`BadInput` for an entry that can't be read."""
    limits = GateLimits(
        max_quality_loss=settings.gate_max_quality_loss,
        min_effective_sample_size=settings.gate_min_effective_sample_size,
        min_saving_share=settings.gate_min_saving_share,
        min_sessions=settings.gate_min_sessions,
    )
    return GateRules(limits, parse_unit_limits(settings.gate_limits, limits))


def parse_unit_limits(entries: Iterable[str], limits: GateLimits) -> dict[str, UnitLimits]:
    """``PATH:LIMIT=NUMBER`` entries by path; what a path does not set is as for everybody."""
    found: dict[str, UnitLimits] = {}
    for entry in entries:
        path, _, limit = entry.strip().rpartition(":")
        name, _, text = limit.partition("=")
        path, name = path.strip("/ "), name.strip()
        if not path or name not in _OF_UNITS:
            raise BadInput(
                f"gate_limits: {entry!r} is no limit of a path.",
                fix=f"Write PATH:LIMIT=NUMBER, with one of {', '.join(_OF_UNITS)}.",
            )
        try:
            value = float(text)
        except ValueError as error:
            raise BadInput(f"gate_limits: {text!r} is no number.") from error
        known = found.get(path) or UnitLimits(
            limits.max_quality_loss, limits.min_effective_sample_size
        )
        found[path] = replace(known, **{name: value})
    return found
