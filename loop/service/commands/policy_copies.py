"""``turnwise policy verify | export | history``: policies as others read and keep them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from loop.domain.errors import BadInput
from loop.domain.policies import BUCKETS
from loop.domain.policy_documents import parse_policy
from loop.service.api_client import ApiClient
from loop.service.commands import reads
from loop.service.printing import print_json, print_lines, show, talk
from routing_policies.acceptance import accept_publication
from routing_policies.policy_exports import FORMATS, export_policy
from routing_policies.policy_history import export_history
from routing_policies.signing import TrustedKeys


@click.command("verify")
@click.argument("envelope", required=False, type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--keys",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The trusted public keys, as GET /v1/gateway/keys answers them (default: the service's).",
)
@click.option("--channel", default="prod", show_default=True, help="Who it must be for.")
@click.option(
    "--seen", type=int, default=0, help="The highest serial seen so far: an older one is refused."
)
@reads
def verify(
    client: ApiClient,
    envelope: str | None,
    keys: Path | None,
    channel: str,
    seen: int,
    as_json: bool,
) -> None:
    """Check a publication as a gateway does: signature, channel, serial, expiry, self-test.

    ENVELOPE is a file (`-`: stdin) as GET /v1/gateway/policy answers it; without one, what the
    service serves now. Exits with 2 or 3 when it does not hold. JSON: {serial, channel, keyids,
    issued_at_us, not_after_us, kill, arms: [{name, weight, policy_version, policy_digest}]}.
    """
    given = _envelope(client, envelope, channel)
    if keys is None:
        talk.print("The service's own keys are taken at its word: --keys names those you trust.")
        trusted = TrustedKeys.from_document(client.get("/v1/gateway/keys"))
    else:
        trusted = TrustedKeys.from_document(_read_json(keys.read_bytes(), str(keys)))
    publication = accept_publication(
        given, trusted, channel=channel, lowest_serial=seen, now_us=time.time_ns() // 1000
    )
    signed_by = [one["keyid"] for one in json.loads(given)["signatures"]]
    arms: list[dict[str, Any]] = [
        {
            "name": arm.name,
            "weight": arm.weight,
            "policy_version": arm.policy_version,
            "policy_digest": arm.policy.digest,
        }
        for arm in publication.arms
    ]
    answer: dict[str, Any] = {
        "serial": publication.serial,
        "channel": publication.channel,
        "keyids": [keyid for keyid in signed_by if keyid in trusted.keys],
        "issued_at_us": publication.issued_at_us,
        "not_after_us": publication.not_after_us,
        "kill": publication.kill,
        "arms": arms,
    }
    if as_json:
        return print_json(answer)
    print_lines(
        f"serial {publication.serial} of channel {publication.channel} holds, signed by "
        f"{', '.join(answer['keyids'])}, until {show(publication.not_after_us, 'time')} UTC",
        *(
            f"  {arm['name']} {show(arm['weight'] / BUCKETS, 'share')}: "
            f"version {arm['policy_version']}, {arm['policy_digest']}"
            for arm in arms
        ),
    )
    return None


@click.command("export")
@click.argument("version", type=int)
@click.option(
    "--to", "system", type=click.Choice(sorted(FORMATS)), required=True, help="As whose rules."
)
@reads
def export(client: ApiClient, version: int, system: str, as_json: bool) -> None:
    """Print a version as rules of another system; what they can't say goes to stderr.

    JSON: {system, document, not_expressed, needs}.
    """
    shown = client.get(f"/v1/policies/{version}")
    made = export_policy(parse_policy(shown["document"]), system, f"{shown['name']}-{version}")
    if as_json:
        return print_json(made.to_document())
    print_lines(json.dumps(made.document, indent=2, ensure_ascii=False))
    for line in made.needs:
        talk.print(f"Needs {line}.")
    for line in made.not_expressed:
        talk.print(f"Not expressed: {line}.")
    return None


@click.command("history")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@reads
def history(client: ApiClient, folder: Path, as_json: bool) -> None:
    """Keep every version in a Git repository: one commit for each transition, by who made it.

    Goes on where the export before ended. JSON: {commits, head}.
    """
    moves = client.get("/v1/policy-transitions")["rows"]
    documents = {
        version: client.get(f"/v1/policies/{version}")["document"]
        for version in sorted({move["version"] for move in moves})
    }
    made = export_history(folder, documents, moves)
    if as_json:
        return print_json({"commits": made.commits, "head": made.head})
    print_lines(f"{made.commits} commits; {folder} ends with {made.head[:12] or 'none'}.")
    return None


def _envelope(client: ApiClient, given: str | None, channel: str) -> bytes:
    if given is None:
        answer = client.get(f"/v1/gateway/policy?channel={channel}")
        return json.dumps(answer).encode()
    return sys.stdin.buffer.read() if given == "-" else Path(given).read_bytes()


def _read_json(text: bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadInput(f"{name} holds no JSON.", why=str(error)) from error
