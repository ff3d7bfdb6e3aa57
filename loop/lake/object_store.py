"""Where the lake lies: a folder, or a prefix of an S3-compatible bucket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loop.domain.errors import BadInput

ENDPOINT = "TURNWISE_S3_ENDPOINT"
# delta-rs reads a path as a URL in some places and stops at, or misreads, these.
_UNUSABLE = frozenset("%[]^|\\")


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """``uri`` is an absolute path or ``s3://bucket/prefix``, without a slash at its end.

    ``options`` are delta-rs's storage options; those not given are read from the ``AWS_*``
    variables of the environment.
    """

    uri: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    def table_uri(self, name: str) -> str:
        return f"{self.uri}/{name}"


def locate_store(
    store_uri: str,
    storage_options: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> ObjectStore:
    """Reads a store's address. Raises :class:`BadInput` for a scheme other than ``s3``."""
    environment = os.environ if environment is None else environment
    scheme, separator, rest = store_uri.partition("://")
    if not store_uri or (separator and (scheme not in ("s3", "file") or not rest.strip("/"))):
        raise BadInput(
            f"TURNWISE_STORE_URI={store_uri!r} names no store.",
            fix="Write the path of a folder or s3://BUCKET/PREFIX.",
        )
    if scheme != "s3":
        folder = Path(rest if separator else store_uri).expanduser().resolve()
        if unusable := sorted(_UNUSABLE & set(str(folder))):
            raise BadInput(
                f"TURNWISE_STORE_URI={store_uri!r}: the path must not contain {unusable[0]!r}."
            )
        return ObjectStore(str(folder))
    options = {"aws_conditional_put": "etag", **(storage_options or {})}
    endpoint = environment.get(ENDPOINT, "")
    if endpoint and "aws_endpoint_url" not in options:
        options["aws_endpoint_url"] = endpoint
    if options.get("aws_endpoint_url", "").startswith("http://"):
        options.setdefault("aws_allow_http", "true")
    return ObjectStore(store_uri.rstrip("/"), options)
