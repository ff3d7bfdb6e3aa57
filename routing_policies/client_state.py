"""The last-known-good publication of a gateway, on its own disk.

A gateway that starts while the service is away routes by it. It is verified again when it is
read; what can't be verified is left alone, and the gateway starts with nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from loop.domain.errors import Corrupt


@dataclass(frozen=True, slots=True)
class SavedPublication:
    """The bytes as they were served, and their ETag."""

    envelope: bytes
    etag: str


class LastKnownGood:
    """One file, replaced whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> SavedPublication | None:
        """``None`` when there is none; raises :class:`Corrupt` for a file that can't be read."""
        try:
            document = json.loads(self.path.read_bytes())
            envelope = base64.b64decode(document["envelope"], validate=True)
            return SavedPublication(envelope, str(document["etag"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, binascii.Error) as error:
            raise Corrupt(
                f"{self.path} is no saved publication.",
                why=str(error),
                fix="The gateway goes on without it; delete the file.",
            ) from error

    def save(self, saved: SavedPublication) -> None:
        """Replaces the file durably: a crash leaves the old one or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}.draft")
        document = {"envelope": base64.b64encode(saved.envelope).decode(), "etag": saved.etag}
        with draft.open("w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
