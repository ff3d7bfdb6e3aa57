"""Who may call: one bearer token for the installation, none on loopback.

Tokens per tenant with scopes come with the organization tree; until then a token is the
difference between inside and outside.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

Authorise = Callable[[str], str | None]
"""Takes a bearer token ("" without one); returns the credential's name, ``None`` to refuse."""
INSTALLATION = "installation"


def token_check(token: str) -> Authorise:
    """A check against the installation's token in constant time.

    Without one (loopback only) every call passes, under the empty credential.
    """

    def authorise(given: str) -> str | None:
        if not token:
            return ""
        return INSTALLATION if hmac.compare_digest(given.encode(), token.encode()) else None

    return authorise


def bearer_token(authorization: str) -> str:
    """The token of an ``Authorization: Bearer …`` header, "" when there is none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
