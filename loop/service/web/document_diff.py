"""Two policy documents side by side: which lines go, which come, which stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any


@dataclass(frozen=True, slots=True)
class DiffRow:
    """One row: a line of each document, ``None`` where the other has no counterpart."""

    before: str | None
    after: str | None

    @property
    def is_changed(self) -> bool:
        return self.before != self.after


def diff_rows(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[DiffRow]:
    """Both documents in full, as indented JSON with sorted keys, aligned line by line."""
    old, new = _lines(before), _lines(after)
    rows: list[DiffRow] = []
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for _tag, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        for offset in range(max(old_to - old_from, new_to - new_from)):
            left, right = old_from + offset, new_from + offset
            rows.append(
                DiffRow(
                    old[left] if left < old_to else None,
                    new[right] if right < new_to else None,
                )
            )
    return rows


def _lines(document: Mapping[str, Any]) -> list[str]:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).split("\n")
