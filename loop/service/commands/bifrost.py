"""``turnwise policy push-bifrost``: a policy as rules of a running Bifrost."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from loop.domain.errors import BadInput
from loop.domain.policy_documents import parse_policy
from loop.service.api_client import ApiClient
from loop.service.commands import reads
from loop.service.printing import print_json, print_lines

TOKEN_VARIABLE = "BIFROST_TOKEN"  # noqa: S105


@click.command("push-bifrost")
@click.argument("version", type=int)
@click.option("--url", required=True, help="Bifrost's address.")
@click.option("--provider", default="anthropic", show_default=True, help="Provider of the models.")
@click.option("--arm", default="", help="Only for sessions of this arm, as the edge proxy says.")
@click.option(
    "--scope",
    type=click.Choice(["global", "customer", "team", "virtual_key"]),
    default="global",
    show_default=True,
    help="Whom the rules are for.",
)
@click.option("--scope-id", default="", help="Bifrost's id of that customer, team or key.")
@click.option(
    "--priority", type=int, default=0, show_default=True, help="Priority of the first rule."
)
@click.option("--name", default="turnwise", show_default=True, help="How the rules' names begin.")
@click.option("--dry-run", is_flag=True, help="Write nothing; say what would be.")
@reads
def push_bifrost(
    client: ApiClient,
    version: int,
    as_json: bool,
    *,
    url: str,
    provider: str,
    arm: str,
    scope: str,
    scope_id: str,
    priority: int,
    name: str,
    dry_run: bool,
) -> None:
    """Write a version's rules into Bifrost, before which an edge proxy stamps headers.

    Pushing twice changes nothing; rules of other names are left alone. What Bifrost can't say is
    printed, and a rule that it can't say at all refuses the push. The token is BIFROST_TOKEN.

    JSON: {"created", "updated", "deleted", "unchanged", "notes", "rules"}.
    """
    # Imported here: other commands need no gateways.
    from routing_policies.exports.bifrost import bifrost_rules
    from routing_policies.gateways.bifrost_push import push_rules

    if (scope == "global") == bool(scope_id):
        raise BadInput("--scope-id goes with every --scope but global, and not with that.")
    policy = parse_policy(client.get(f"/v1/policies/{version}")["document"])
    wanted = bifrost_rules(
        policy, name=name, provider=provider, arm=arm, scope=scope, scope_id=scope_id,
        first_priority=priority,
    )  # fmt: skip
    token = os.environ.get(TOKEN_VARIABLE, "")
    pushed = push_rules(
        wanted, name=name, url=url, scope=scope, scope_id=scope_id, token=token, dry_run=dry_run
    )
    if as_json:
        return print_json({**asdict(pushed), "notes": wanted.notes, "rules": wanted.rules})
    verb = "Would be" if dry_run else "Rules"
    counts = ", ".join(f"{count} {name}" for name, count in asdict(pushed).items())
    print_lines(f"{verb}: {counts}.", *(f"not said: {note}" for note in wanted.notes))
    return None
