"""The forms that move a policy or steer a rollout, and what guards them.

A form is a plain POST. It is taken only from this origin's own pages (``Sec-Fetch-Site``, and
``Origin`` where a browser sends no such header), needs a name and a reason, and carries the
review cycle that was looked at, so that a stale page can't decide on something else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from loop.domain.errors import BadInput, Conflict, Refused, TurnwiseError
from loop.service.web.responses import SECURITY_HEADERS, path_of, render_error

MAX_FORM_BYTES = 64 * 1024

Act = Callable[[str, int | str, str, str, int | None], object]
"""``act(verb, version or rollout id, actor's name, reason, review cycle)``: makes the move or
raises a :class:`TurnwiseError`; :class:`Conflict` when it moved on since it was looked at."""


@dataclass(frozen=True, slots=True)
class Move:
    """A form: ``title`` is the outcome and ``effect`` what happens to traffic, ``button`` repeats
    it, ``keep`` is the way out."""

    verb: str
    title: str
    effect: str
    button: str
    keep: str
    is_urgent: bool = False


def offered_moves(policy: Mapping[str, Any]) -> tuple[Move, ...]:
    """The moves that a person may make on a policy in its state (``loop.domain.lifecycle``)."""
    version, state = policy["version"], policy["state"]
    approve = Move(
        "approve",
        f"Approve version {version}",
        "It may then be rolled out: its first canary stage begins with a small share of sessions.",
        f"Approve version {version}",
        "Leave it in review",
    )
    reject = Move(
        "reject",
        f"Reject version {version}",
        "It ends here. The same document may be proposed again as a new version.",
        f"Reject version {version}",
        f"Leave it {str(state).replace('_', ' ')}",
    )
    publish = Move(
        "publish",
        f"Start the canary of version {version}",
        "Gateways pull a new serial in which a small share of sessions follow this policy.",
        f"Start the canary of version {version}",
        "Leave it approved",
    )
    roll_back = Move(
        "rollback",
        f"Roll back version {version} now",
        "Gateways pull a new serial without it; sessions go back to the stable policy.",
        f"Roll back version {version}",
        "Keep it in service",
        is_urgent=True,
    )
    submit = Move(
        "submit",
        f"Submit version {version} for review",
        "A second person decides on it, in a new review cycle.",
        f"Submit version {version}",
        f"Leave it {str(state).replace('_', ' ')}",
    )
    offered: dict[str, tuple[Move, ...]] = {
        "proposed": (reject,),
        "gate_passed": (submit, reject),
        "gate_inconclusive": (submit, reject),
        "in_review": (approve, reject),
        "approved": (publish, reject),
        "canary": (roll_back,),
        "paused": (roll_back,),
        "active": (roll_back,),
    }
    return offered.get(state, ())


def offered_steers(rollout: Mapping[str, Any]) -> tuple[Move, ...]:
    """What a person may do to a rollout that has not finished."""
    if rollout.get("finished"):
        return ()
    hold = Move(
        "pause",
        "Pause this rollout",
        "It stays at its stage: no more sessions are added, the canary's keep their policy.",
        "Pause the rollout",
        "Let it go on",
    )
    go_on = Move(
        "resume",
        "Resume this rollout",
        "It goes on from the stage where it was paused.",
        "Resume the rollout",
        "Keep it paused",
    )
    roll_back = Move(
        "rollback",
        "Roll back now",
        "Gateways pull a new serial; every session goes back to the stable policy.",
        "Roll back now",
        "Let it go on",
        is_urgent=True,
    )
    return (go_on if rollout.get("state") == "paused" else hold, roll_back)


def action_routes(act: Act) -> list[BaseRoute]:
    """POST routes: ``/policies/{v}/{verb}`` and ``/rollouts/{id}/{verb}``."""

    async def move_policy(request: Request) -> Response:
        return await _act(request, "policies", request.path_params["version"], act)

    async def steer_rollout(request: Request) -> Response:
        return await _act(request, "rollouts", request.path_params["rollout_id"], act)

    def route(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
        return Route(path, endpoint, methods=["POST"], max_body_size=MAX_FORM_BYTES)

    return [
        *(route(f"/policies/{{version:int}}/{verb}", move_policy) for verb in _POLICY_VERBS),
        *(route(f"/rollouts/{{rollout_id}}/{verb}", steer_rollout) for verb in _ROLLOUT_VERBS),
    ]


_POLICY_VERBS = ("submit", "approve", "reject", "publish", "rollback")
_ROLLOUT_VERBS = ("pause", "resume", "rollback")


async def _act(request: Request, section: str, target: int | str, act: Act) -> Response:
    verb = request.url.path.rpartition("/")[2]
    address = path_of(section, target)
    try:
        check_same_origin(request)
        async with request.form(max_files=0, max_fields=10) as form:
            actor, reason = _text(form, "actor"), _text(form, "reason")
            cycle = _cycle(form)
        await run_in_threadpool(act, verb, target, actor, reason, cycle)
    except Conflict as error:
        changed = Conflict(
            f"Changed since you looked: {error.what}",
            why=error.why,
            fix=error.fix or "Look at it as it is now, then decide again.",
        )
        return render_error(request, changed, section, back=address)
    except TurnwiseError as error:
        return render_error(request, error, section, back=address)
    return RedirectResponse(address, 303, dict(SECURITY_HEADERS))


def check_same_origin(request: Request) -> None:
    """Raises :class:`Refused` for a post that another site's page may have caused.

    Browsers send ``Sec-Fetch-Site`` with every request to a trustworthy origin and ``Origin``
    with every POST; a client that sends neither is no browser and can't be made to act by a page.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    same = site == "same-origin" if site else True
    if same and origin is not None:
        same = urlsplit(origin).netloc == request.headers.get("Host")
    if not same:
        raise Refused(
            "The form was sent from another site.",
            why="Only turnwise's own pages may make moves.",
            fix="Open the page here and send it again.",
        )


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        raise BadInput(f"The {name} is missing.", fix="Fill it in: it is kept with the move.")
    return text


def _cycle(form: FormData) -> int | None:
    value = form.get("review_cycle")
    if value in (None, ""):
        return None
    if not isinstance(value, str) or not value.isdecimal():
        raise BadInput(f"review_cycle={value!r} is no review cycle.")
    return int(value)
