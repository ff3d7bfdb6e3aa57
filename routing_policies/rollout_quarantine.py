"""A policy that was rolled back may not come again for a while."""

from __future__ import annotations

from loop.domain.errors import Refused
from loop.domain.lifecycle import Actor, ActorKind, State
from routing_policies.number_words import duration
from routing_policies.transitions import PolicyVersion
from routing_policies.version_store import VersionStore


def check_quarantine(
    store: VersionStore, record: PolicyVersion, hours: float, actor: Actor, *, override: bool
) -> str:
    """Returns "" when the document of ``record`` may be rolled out, or words about an override.

    The quarantine counts from the document's last rollback under any version, and doubles with
    each. Raises :class:`Refused` within it, unless a person overrides.
    """
    ends = [
        move.at_us
        for twin in store.by_digest(record.digest)
        if twin.state is State.ROLLED_BACK
        for move in store.transitions(twin.version)
        if move.to_state is State.ROLLED_BACK
    ]
    if not ends:
        return ""
    seconds = hours * 3600 * 2.0 ** (len(ends) - 1)
    left = seconds - (store.now_us() - max(ends)) / 1e6
    if left <= 0:
        return ""
    if override and actor.kind is ActorKind.PERSON:
        return f"quarantine of {duration(left)} overridden by {actor.name}"
    times = "once" if len(ends) == 1 else f"{len(ends)} times"
    raise Refused(
        f"The policy of version {record.version} was rolled back {times}; it is in quarantine "
        f"for {duration(left)} more.",
        fix="A person may start it all the same, by saying so.",
    )
