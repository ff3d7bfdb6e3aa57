"""Who may call: one bearer token for the installation, none on loopback.

Tokens per tenant with scopes come with the organization tree; until then a token is the
difference between inside and outside.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

Authorise = Callable[[str | None], bool]
"""Takes the ``Authorization`` header's value (or ``None``) and says whether the call may pass."""


def token_check(token: str) -> Authorise:
    """A check for ``Bearer <token>`` in constant time; an empty token lets everything pass."""
    expected = f"Bearer {token}".encode()

    def authorise(header: str | None) -> bool:
        if not token:
            return True
        return header is not None and hmac.compare_digest(header.encode(), expected)

    return authorise
