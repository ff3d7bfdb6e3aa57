"""What was rolled back may not come again for a while, nor may a channel flap.

A document that was rolled back is in quarantine; a channel in which rollouts were rolled back again
and again is frozen. A person may override either, which is recorded.
"""

from __future__ import annotations

from loop.domain.errors import Refused
from loop.domain.lifecycle import Actor, ActorKind, State
from routing_policies.number_words import duration
from routing_policies.transitions import PolicyVersion
from routing_policies.version_store import VersionStore

WEEK_US = 7 * 86_400 * 1_000_000


def check_freeze(
    store: VersionStore, record: PolicyVersion, allowed: int, actor: Actor, *, override: bool
) -> str:
    """Returns "" when fewer than ``allowed`` rollouts of the channel were rolled back in the last
    seven days, or words about an override. Raises :class:`Refused` otherwise."""
    since_us = store.now_us() - WEEK_US
    ends = [
        move.at_us
        for version in store.list_versions(channel=record.channel, states=(State.ROLLED_BACK,))
        for move in store.transitions(version.version)
        if move.to_state is State.ROLLED_BACK and move.at_us > since_us
    ]
    if len(ends) < allowed:
        return ""
    if override and actor.kind is ActorKind.PERSON:
        return f"freeze after {len(ends)} rollbacks in 7 d overridden by {actor.name}"
    left = (sorted(ends)[-allowed] - since_us) / 1e6
    raise Refused(
        f"Channel {record.channel} is frozen for {duration(left)} more.",
        why=f"{len(ends)} of its versions were rolled back in the last 7 d; {allowed} are enough.",
        fix="Find out why; a person may start it all the same, by saying so.",
    )


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
