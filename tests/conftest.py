"""What every test lives under: no network beyond this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A shared machine stalls now and then: a slow example is not a wrong one. A change is judged on the
# same examples each time; the search for new ones goes on at the developers', the longer one with
# TEST_EXAMPLES.
settings.register_profile(
    "turnwise",
    deadline=None,
    derandomize="CI" in os.environ,
    max_examples=int(os.environ.get("TEST_EXAMPLES", "50")),
)
settings.load_profile("turnwise")

_connect = socket.socket.connect


def _is_local(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0])
    return host in ("localhost", "::1") or host.startswith("127.")


@pytest.fixture(autouse=True, scope="session")
def _loopback_only() -> Iterator[None]:
    """A test that reaches out of the machine fails where it tries to."""

    def connect(self: socket.socket, address: object) -> None:
        if not _is_local(address):
            raise RuntimeError(f"a test tried to reach {address!r}")
        _connect(self, address)  # type: ignore[arg-type]

    socket.socket.connect = connect  # type: ignore[method-assign,assignment]
    yield
    socket.socket.connect = _connect  # type: ignore[method-assign]
