"""The registry as a Git repository: one commit for each transition, by who made it, at its time.

Commits are made of nothing but the record, so the same record gives the same commit ids, on any
machine; a later export goes on from where the one before ended.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loop.domain.errors import Conflict, Unavailable

BRANCH = "refs/heads/main"
_TRAILER = re.compile(r"^Turnwise-Sequence: (\d+)\nTurnwise-Hash: ([0-9a-f]{64})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class HistoryExport:
    """What an export did: commits made now, and the commit that the branch ends with."""

    commits: int
    head: str


def export_history(
    folder: Path, documents: Mapping[int, Mapping[str, Any]], moves: Sequence[Mapping[str, Any]]
) -> HistoryExport:
    """Brings ``folder`` up to date.

    ``documents`` are the policies by version, ``moves`` every transition in its order, as
    ``GET /v1/policy-transitions`` gives it. Raises :class:`Conflict` when the repository holds
    another history, :class:`Unavailable` without git.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "HEAD").exists() and not (folder / ".git").exists():
        _git(folder, "init", "--quiet", f"--initial-branch={BRANCH.rpartition('/')[2]}")
    done, last_hash = _exported(folder)
    known = {move["sequence"]: move["hash"] for move in moves}
    if done and known.get(done) != last_hash:
        raise Conflict(
            f"{folder} holds the history of another registry.",
            why=f"Its transition {done} is not the one of this registry.",
            fix="Export into an empty folder.",
        )
    fresh = [move for move in moves if move["sequence"] > done]
    if fresh:
        stream = b"".join(
            _commit(move, documents, goes_on=done > 0 and move is fresh[0]) for move in fresh
        )
        _git(folder, "fast-import", "--quiet", "--date-format=raw", given=stream)
        if (folder / ".git").exists():
            _git(folder, "reset", "--quiet", "--hard", BRANCH)
    return HistoryExport(len(fresh), _git(folder, "rev-parse", BRANCH).strip() if moves else "")


def _exported(folder: Path) -> tuple[int, str]:
    """Sequence and hash of the last transition that is there; 0 for none."""
    if not _git(folder, "for-each-ref", BRANCH):
        return 0, ""
    found = _TRAILER.search(_git(folder, "log", "-1", "--format=%B", BRANCH))
    if found is None:
        raise Conflict(f"{folder} is no export of a registry.", fix="Export into an empty folder.")
    return int(found[1]), found[2]


def _commit(
    move: Mapping[str, Any], documents: Mapping[int, Mapping[str, Any]], *, goes_on: bool
) -> bytes:
    version, start = move["version"], move["from"] or "new"
    message = (
        f"Version {version}: {start} → {move['to']}\n\n{move['reason']}\n\n"
        f"Turnwise-Sequence: {move['sequence']}\nTurnwise-Hash: {move['hash']}\n"
    ).encode()
    name = re.sub(r"[<>\n]", " ", move["actor"]).strip()
    who = f"{name} <{move['actor'].partition(':')[0]}@turnwise> {move['at_us'] // 1_000_000} +0000"
    kept = ("version", "actor", "reason", "review_cycle", "at_us")
    state = {"state": move["to"], **{key: move[key] for key in kept}}
    files = {
        f"policies/{version}/policy.json": documents[version],
        f"policies/{version}/state.json": state,
        f"policies/{version}/transitions/{move['sequence']}.json": dict(move),
    }
    parts = [
        f"commit {BRANCH}\ncommitter {who}\ndata {len(message)}\n".encode(),
        message,
        # Within one stream a commit follows the one before by itself.
        f"from {BRANCH}^0\n".encode() if goes_on else b"",
    ]
    for path, content in files.items():
        text = (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        parts += [f"M 100644 inline {path}\ndata {len(text)}\n".encode(), text, b"\n"]
    return b"".join([*parts, b"\n"])


def _git(folder: Path, *arguments: str, given: bytes | None = None) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], input=given, capture_output=True, check=True
        )
    except FileNotFoundError as error:
        raise Unavailable("There is no git here.", fix="Install git.") from error
    except subprocess.CalledProcessError as error:
        raise Unavailable(
            f"git {arguments[0]} failed.", why=error.stderr.decode(errors="replace")[-500:]
        ) from error
    return done.stdout.decode()
