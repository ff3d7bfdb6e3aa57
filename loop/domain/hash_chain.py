"""Records in a hash chain: one that was altered, removed or put elsewhere is found.

Each record names the hash of the one before it, and its own hash covers all of it.
"""

from __future__ import annotations

import hashlib

from loop.domain.policies import canonical_json

FIRST_HASH = "0" * 64  # what the first record of a chain follows


def hash_of(document: object) -> str:
    """SHA-256 in hex over the canonical JSON of a record that names the hash before it."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def link_problem(
    *,
    place: int,
    sequence: int,
    previous_hash: str,
    expected_previous: str,
    computed_hash: str,
    stored_hash: str,
) -> str:
    """What is wrong with the record at a place (1, 2, 3 …) of a chain; "" when nothing is."""
    if sequence != place:
        return f"number {place} is missing"
    if previous_hash != expected_previous:
        return "does not follow the one before it"
    if computed_hash != stored_hash:
        return "was altered after it was written"
    return ""
