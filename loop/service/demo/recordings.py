"""Sends the shipped recordings of the real client through the real OTLP ports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx

from loop.domain.errors import NotFound, Unavailable
from loop.service.demo.service_process import ServiceAddresses

RECORDINGS = Path(__file__).parents[3] / "examples" / "recordings"


@dataclass(frozen=True, slots=True)
class Recording:
    """One body as the client sent it."""

    session: str
    signal: str
    protocol: str
    endpoint: str
    content_type: str
    path: Path


def read_recordings(folder: Path = RECORDINGS) -> list[Recording]:
    """The recorded bodies in the order they were received. Raises :class:`NotFound`."""
    index = folder / "index.json"
    if not index.exists():
        raise NotFound(f"There are no recordings in {folder}.", fix="Run the demo from a checkout.")
    rows: list[dict[str, Any]] = json.loads(index.read_text())
    return [
        Recording(
            row["session"],
            row["signal"],
            row["protocol"],
            row["endpoint"],
            row["content_type"],
            folder / row["path"],
        )
        for row in sorted(rows, key=lambda row: row["received_unix"])
    ]


def read_expected(folder: Path = RECORDINGS) -> list[dict[str, Any]]:
    """What the model API really served in each recorded session."""
    expected: list[dict[str, Any]] = json.loads((folder / "expected.json").read_text())
    return expected


def transcripts(folder: Path = RECORDINGS) -> Iterator[Path]:
    """The transcript folders among the recordings."""
    yield from sorted(folder.glob("*/transcript"))


def send_recordings(
    recordings: list[Recording],
    addresses: ServiceAddresses,
    on_progress: Callable[[int, int], None],
) -> int:
    """Sends each body by its own protocol; returns the bytes that were acknowledged.

    Raises :class:`Unavailable` when one is not acknowledged.
    """
    sent = 0
    with (
        httpx.Client(base_url=addresses.otlp_http, timeout=30) as client,
        grpc.insecure_channel(addresses.otlp_grpc) as channel,
    ):
        for done, recording in enumerate(recordings, 1):
            body = recording.path.read_bytes()
            if recording.protocol == "grpc":
                channel.unary_unary(recording.endpoint)(body, timeout=30)
            else:
                headers = {"Content-Type": recording.content_type}
                response = client.post(recording.endpoint, content=body, headers=headers)
                if response.status_code != 200:
                    raise Unavailable(
                        f"{recording.path.name} was answered {response.status_code}.",
                        why=response.text[:200],
                    )
            sent += len(body)
            on_progress(done, len(recordings))
    return sent
