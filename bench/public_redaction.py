"""What redaction takes out of public Claude Code session files: only sums leave this module."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from collectors.personal_data import find_personal
from collectors.redaction import find_secrets, may_hold_secrets
from collectors.secret_values import is_secret_value, names_a_secret

RAW = "claude_code_sessions/raw"


def measure_public(data: Path) -> dict[str, Any]:
    """Counts of what is replaced, by kind, and how many different texts that are."""
    counts: Counter[str] = Counter()
    different: set[tuple[str, bytes]] = set()
    personal: Counter[str] = Counter()
    totals: Counter[str] = Counter()

    def walk(node: Any, name: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, key)
        elif isinstance(node, list):
            for value in node:
                walk(value, name)
        elif isinstance(node, str):
            content = node.encode(errors="surrogatepass")
            if names_a_secret(name) and is_secret_value(name, node, is_literal=True):
                found = [("assigned-secret", content)]
            else:
                found = [
                    (span.kind, content[span.start : span.end]) for span in find_secrets(content)
                ]
            counts.update(kind for kind, _ in found)
            different.update(found)

    for path in sorted((data / RAW).glob("*.jsonl.gz")):
        totals["files"] += 1
        with gzip.open(path) as lines:
            for line in lines:
                if not line.strip():
                    continue
                totals["lines"] += 1
                totals["bytes"] += len(line)
                personal.update(find_personal(line.decode(errors="replace")))
                if may_hold_secrets(line):
                    totals["lines_looked_into"] += 1
                    walk(orjson.loads(line), "")
    return {
        **totals,
        "replaced": dict(counts),
        "different": len(different),
        "personal": dict(personal),
    }
