"""What a gateway checks before it routes by a publication."""

from __future__ import annotations

import json

from loop.domain.errors import BadInput, Conflict, Corrupt, Refused
from loop.domain.policies import Publication, RouteRequest, RoutingPolicy, bucket_of, decide
from loop.domain.policy_documents import parse_publication
from routing_policies.signing import TrustedKeys, verify

MAX_ENVELOPE_BYTES = 512 * 1024
MAX_RULES = 1000
_BUCKET_VECTOR = ("s1", "abc", 9688)
_PROBES = tuple(
    RouteRequest(
        requested_model="claude-opus-4-7",
        session_id="self-test",
        request_class=request_class,
        total_input_tokens=tokens,
        uncached_input_tokens=tokens,
        new_tokens=tokens,
        prompt_tokens=tokens,
        in_tool_loop=in_tool_loop,
        starts_user_turn=not in_tool_loop,
    )
    for tokens in (0, 1, 9_999, 10_000, 150_000, 2_000_000)
    for request_class in ("main", "subagent", "auxiliary")
    for in_tool_loop in (False, True)
)


def accept_publication(
    envelope: bytes, trusted: TrustedKeys, *, channel: str, lowest_serial: int, now_us: int
) -> Publication:
    """Verifies, parses and tries a publication; returns it when it may be routed by.

    ``lowest_serial`` is the highest serial seen so far: a lower one is an old publication played
    again. Raises :class:`BadInput` for what can't be read, :class:`Refused` for a signature that
    doesn't hold, another channel or an expired publication, :class:`Conflict` for an old serial,
    :class:`Corrupt` when the self-test fails.
    """
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise BadInput(f"The envelope is larger than {MAX_ENVELOPE_BYTES} bytes.")
    publication = read_publication(envelope, trusted)
    if publication.channel != channel:
        raise Refused(f"The publication is for channel {publication.channel!r}, not {channel!r}.")
    if publication.serial < lowest_serial:
        raise Conflict(
            f"Serial {publication.serial} is older than {lowest_serial}, which was seen before.",
            why="An old publication was played again, or the control store was set back.",
        )
    if publication.not_after_us <= now_us:
        raise Refused(f"The publication with serial {publication.serial} has expired.")
    self_test(publication)
    return publication


def read_publication(envelope: bytes, trusted: TrustedKeys) -> Publication:
    """Verifies the signature, then parses. Raises as :func:`accept_publication` does."""
    payload = verify(envelope, trusted)
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BadInput("The payload is not JSON.", why=str(error)) from error
    return parse_publication(document)


def self_test(publication: Publication) -> None:
    """Decides probe requests with every arm; raises :class:`Corrupt` or :class:`BadInput`."""
    salt, key, bucket = _BUCKET_VECTOR
    if bucket_of(salt, key) != bucket:
        raise Corrupt("This gateway computes other buckets than it must.")
    if len({arm.name for arm in publication.arms}) != len(publication.arms):
        raise BadInput("Two arms have the same name.")
    for arm in publication.arms:
        if len(arm.policy.rules) > MAX_RULES:
            raise BadInput(f"Arm {arm.name!r} has more than {MAX_RULES} rules.")
        for probe in _PROBES:
            _try(arm.name, arm.policy, probe)


def _try(arm: str, policy: RoutingPolicy, probe: RouteRequest) -> None:
    first = decide(policy, probe)
    if first != decide(policy, probe) or not first.model:
        raise Corrupt(f"Arm {arm!r} does not decide the same request the same way.")
    decide(policy, probe, first)
