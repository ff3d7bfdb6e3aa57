"""What a credential may do. ``loop/service/route_rules.py`` says which route needs which verb."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from loop.domain.errors import BadInput


class Verb(StrEnum):
    """None implies another. ``turnwise token create --verbs`` takes several, by comma."""

    INGEST = "ingest"  # send telemetry, transcripts
    GATEWAY = "gateway"  # pull policies, acknowledge them, report decisions
    READ = "read"  # see spend, sessions, scores, policies: no texts
    CONTENT = "content"  # with read: also the texts of prompts, answers and tools
    OPTIMIZE = "optimize"  # evaluate, cluster, search, propose, gate
    REVIEW = "review"  # submit, approve, reject
    PUBLISH = "publish"  # publish, explore, steer and roll back
    ADMIN = "admin"  # credentials, the organization, rules, settings


ALL_VERBS = frozenset(Verb)


def parse_verbs(names: Iterable[str]) -> frozenset[Verb]:
    """The verbs of their names. Raises :class:`BadInput` for none and for an unknown one."""
    given = [name.strip() for name in names if name.strip()]
    if unknown := [name for name in given if name not in set(Verb)]:
        raise BadInput(f"{unknown[0]!r} is no verb.", fix=f"One or more of {', '.join(Verb)}.")
    if not given:
        raise BadInput("A credential needs a verb.", fix=f"One or more of {', '.join(Verb)}.")
    return frozenset(Verb(name) for name in given)
