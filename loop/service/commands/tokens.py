"""``turnwise token``: credentials."""

from __future__ import annotations

from typing import Any

import click

from loop.service.api_client import ApiClient
from loop.service.commands import actor_option, reads
from loop.service.printing import Column, print_json, print_lines, print_rows, talk

why_option = click.option("--reason", default="", help="Why: it is kept with the change.")


@click.group()
def token() -> None:
    """Credentials of the API, the collectors and the gateways."""


@token.command("create")
@click.argument("name")
@click.option(
    "--verbs",
    required=True,
    help="By comma: ingest, gateway, read, content, optimize, review, publish, admin.",
)
@click.option("--node", "node_id", default="", help="Node it is bound to (default: all).")
@click.option("--developer", default="", help="Who sends with it, where it is one person's.")
@click.option("--days", "expires_days", type=click.IntRange(min=1), help="Days until it expires.")
@why_option
@actor_option
@reads
def create_token(client: ApiClient, as_json: bool, verbs: str, **options: Any) -> None:
    """Make a credential. Its token is printed once, alone on stdout, and can't be had again.

    A running server knows it within two seconds. JSON: the credential with its "token".
    """
    answer = client.post("/v1/tokens", options | {"verbs": verbs.split(",")})
    _print_token(answer, as_json=as_json)


@token.command("list")
@reads
def list_tokens(client: ApiClient, as_json: bool) -> None:
    """Every credential, ended ones too; never a secret. JSON: {"rows": [...], "next": null}."""
    answer = client.get("/v1/tokens")
    if as_json:
        return print_json(answer)
    columns = [
        Column("token_id", "token"),
        Column("name", "name"),
        Column("node_id", "node"),
        Column("developer", "developer"),
        Column("verbs", "verbs"),
        Column("state", "state"),
        Column("expires_at_us", "expires (UTC)", "time"),
        Column("last_used_at_us", "last used (UTC)", "time"),
    ]
    print_rows(answer["rows"], columns, "No credentials yet: `turnwise token create` makes one.")
    return None


@token.command("rotate")
@click.argument("token_id")
@click.option(
    "--overlap-hours",
    type=click.IntRange(min=0),
    default=168,
    show_default=True,
    help="How long the old token still works.",
)
@why_option
@actor_option
@reads
def rotate_token(
    client: ApiClient, token_id: str, overlap_hours: int, as_json: bool, **options: Any
) -> None:
    """Make a second token of the same scope; the old one works until the overlap ends.

    JSON: the new credential with its "token".
    """
    document = options | {"overlap_seconds": overlap_hours * 3600}
    _print_token(client.post(f"/v1/tokens/{token_id}/rotate", document), as_json=as_json)


@token.command("revoke")
@click.argument("token_id")
@why_option
@actor_option
@reads
def revoke_token(client: ApiClient, token_id: str, as_json: bool, **options: Any) -> None:
    """End a credential; every process refuses it within two seconds. JSON: the credential."""
    answer = client.post(f"/v1/tokens/{token_id}/revoke", options)
    if as_json:
        return print_json(answer)
    talk.print(f"{answer['name']} ({token_id}) is revoked.")
    return None


def _print_token(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    where = answer["node_id"] or "the whole installation"
    talk.print(
        f"{answer['name']} ({answer['token_id']}) for {where}: {', '.join(answer['verbs'])}."
    )
    talk.print("This token is shown once:")
    print_lines(answer["token"])
