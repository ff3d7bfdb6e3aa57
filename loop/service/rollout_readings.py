"""What the API, the command line and the pages read about rollouts.

A part of the organization sees the rollouts of policies that may route it, how far each is exposed,
and what the arms came to over its own sessions. Verdicts, their numbers and the log are of all
sessions, and not shown to it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from loop.access.view import View
from loop.domain.errors import NotFound
from loop.lake import Lake
from loop.service.assemble import Parts
from loop.service.policy_readings import concerns
from loop.service.rollout_stage import read_outcomes
from loop.service.session_readings import whole_sessions
from routing_policies.rollout_records import CANARY, CONTROL, STABLE, RolloutStatus
from routing_policies.rollout_units import summarise_arm

LATEST = "latest"
_OVER_ALL: dict[str, Any] = {
    "started_by": "",
    "end_reason": "",
    "gateways": None,
    "report": None,
    "log": (),
}


def list_rollouts(parts: Parts, view: View) -> dict[str, Any]:
    """The newest first; for a part of the organization without reports."""
    return {"rows": [_document(status, view) for status in _seen(parts, view)], "next": None}


def show_rollout(parts: Parts, rollout_id: str, view: View) -> dict[str, Any]:
    """One rollout; ``latest`` is the newest.

    Raises :class:`NotFound`, also for one that is no concern of the view's.
    """
    if rollout_id == LATEST:
        newest = _seen(parts, view)[:1]
        if not newest:
            raise NotFound(
                "There is no rollout yet.", fix="`turnwise policy publish VERSION` starts one."
            )
        status = newest[0]
    else:
        status = parts.rollouts.status(rollout_id)
        if not _may_route(parts, status, view):
            raise NotFound(
                f"There is no rollout {rollout_id!r}.", fix="`turnwise rollout list` shows all."
            )
    document = _document(status, view)
    if not view.sees_all:
        document["report"] = {"arms": _own_arms(parts.lake, status.rollout_id, view)}
    return document


def _seen(parts: Parts, view: View) -> list[RolloutStatus]:
    return [one for one in parts.rollouts.list_rollouts() if _may_route(parts, one, view)]


def _may_route(parts: Parts, status: RolloutStatus, view: View) -> bool:
    return view.sees_all or concerns(parts.versions.get(status.version).policy, view)


def _document(status: RolloutStatus, view: View) -> dict[str, Any]:
    document = {**status.to_document(), "is_part": not view.sees_all}
    if view.sees_all:
        return document
    return document | _OVER_ALL | {"sentence": _exposure(status)}


def _exposure(status: RolloutStatus) -> str:
    """How far it is, without why."""
    if not status.stage or status.ended_at_us is not None:
        return f"{status.state.replace('_', ' ')}."
    percent = status.canary_weights[status.stage - 1] / 100
    return (
        f"{status.state}: stage {status.stage} of {len(status.canary_weights)} "
        f"({percent:g} % canary)."
    )


def _own_arms(lake: Lake, rollout_id: str, view: View) -> list[dict[str, Any]]:
    outcomes = read_outcomes(lake, rollout_id)
    own = whole_sessions(lake, [outcome.session_id for outcome in outcomes], view)
    seen = [outcome for outcome in outcomes if outcome.session_id in own]
    return [asdict(summarise_arm(arm, seen)) for arm in (CANARY, STABLE, CONTROL)]
