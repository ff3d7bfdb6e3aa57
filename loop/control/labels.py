"""What people said of sessions and of single claims, and the anchors: their one writer.

A label is never edited: a later one of the same person on the same thing takes its place. Labels
hold no text of the session, only the key of the item.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Float,
    Index,
    Integer,
    String,
    Table,
    delete,
    func,
    insert,
    select,
)

from loop.control.store import metadata
from loop.domain.errors import BadInput

labels = Table(
    "labels",
    metadata,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("session_id", String(255), nullable=False),
    Column("rubric", String(40), nullable=False),
    Column("item", String(16), nullable=False),
    Column("value", Float, nullable=False),
    Column("labeller", String(255), nullable=False),
    Column("note", String(400), nullable=False),
    Column("probability", Float, nullable=False),
    Column("source", String(40), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("ix_labels_rubric_session_id", "rubric", "session_id"),
)
judge_anchors = Table(
    "judge_anchors",
    metadata,
    Column("rubric", String(40), primary_key=True),
    Column("session_id", String(255), primary_key=True),
    Column("input_digest", String(64), nullable=False),
    Column("frozen_by", String(255), nullable=False),
    Column("frozen_at_us", BigInteger, nullable=False),
)
MAX_NOTE_CHARS = 400
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Label:
    """``item`` is the key of a claim or call (``evaluators.judge.questions.key_of``), "" for the
    session as a whole. ``value`` is 1 for good, 0 for bad, or between. ``probability`` is that with
    which the session came to be labelled among the judged ones; 1 where all were equally likely.
    """

    session_id: str
    rubric: str
    value: float
    labeller: str
    item: str = ""
    note: str = ""
    probability: float = 1.0
    source: str = "api"
    at_us: int = 0

    def __post_init__(self) -> None:
        for name in ("session_id", "rubric", "labeller"):
            if not getattr(self, name).strip() or len(getattr(self, name)) > 255:
                raise BadInput(f"A label needs a {name} of at most 255 characters.")
        if not 0.0 <= self.value <= 1.0:
            raise BadInput(f"A label lies between 0 and 1, not at {self.value!r}.")
        if not 0.0 < self.probability <= 1.0:
            raise BadInput(f"A probability lies above 0 and up to 1, not at {self.probability!r}.")
        if self.item and not _is_key(self.item):
            raise BadInput(f"{self.item!r} is no key of an item.", fix="16 hex digits, or none.")
        if len(self.note) > MAX_NOTE_CHARS:
            raise BadInput(f"A note has at most {MAX_NOTE_CHARS} characters.")


@dataclass(frozen=True, slots=True)
class Anchor:
    """A session that is judged again and again; ``input_digest`` is that of its trace then."""

    rubric: str
    session_id: str
    input_digest: str
    frozen_by: str
    frozen_at_us: int


class LabelStore:
    """The only writer of ``labels`` and ``judge_anchors``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, given: Sequence[Label]) -> int:
        """Adds labels, all or none; how many say something new."""
        now_us = time.time_ns() // 1000
        stamped = [replace(label, at_us=label.at_us or now_us) for label in given]
        with self._engine.begin() as connection:
            known = {
                _place(label): (label.value, label.note, label.probability)
                for label in _current(connection.execute(select(labels)).mappings())
            }
            new = []
            for label in stamped:
                said = (label.value, label.note, label.probability)
                if known.get(_place(label)) != said:
                    known[_place(label)] = said
                    new.append(_row(label))
            if new:
                connection.execute(insert(labels), new)
        return len(new)

    def current(self, rubric: str | None = None, session_id: str | None = None) -> list[Label]:
        """The current labels, the oldest first; of one rubric or session, or all."""
        query = select(labels).order_by(labels.c.sequence)
        if rubric is not None:
            query = query.where(labels.c.rubric == rubric)
        if session_id is not None:
            query = query.where(labels.c.session_id == session_id)
        with self._engine.connect() as connection:
            return _current(connection.execute(query).mappings())

    def freeze(self, anchors: Sequence[Anchor]) -> None:
        """Makes these the anchors of their rubrics, in place of those before."""
        with self._engine.begin() as connection:
            for rubric in {anchor.rubric for anchor in anchors}:
                connection.execute(delete(judge_anchors).where(judge_anchors.c.rubric == rubric))
            rows = [
                {name: getattr(anchor, name) for name in anchor.__slots__} for anchor in anchors
            ]
            if rows:
                connection.execute(insert(judge_anchors), rows)

    def anchors(self, rubric: str) -> list[Anchor]:
        query = select(judge_anchors).where(judge_anchors.c.rubric == rubric)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(judge_anchors.c.session_id)).mappings()
            return [Anchor(**row) for row in rows]

    def count(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.scalar(select(func.count()).select_from(labels)) or 0)

    def forget(self, session_ids: Collection[str]) -> int:
        """Removes the sessions' labels and anchors; how many labels."""
        removed = 0
        names = sorted(set(session_ids))
        with self._engine.begin() as connection:
            for start in range(0, len(names), _CHUNK):
                chunk = names[start : start + _CHUNK]
                removed += connection.execute(
                    delete(labels).where(labels.c.session_id.in_(chunk))
                ).rowcount
                connection.execute(
                    delete(judge_anchors).where(judge_anchors.c.session_id.in_(chunk))
                )
        return removed


def _place(label: Label) -> tuple[str, str, str, str]:
    return label.session_id, label.rubric, label.item, label.labeller


def _current(rows: Iterable[Mapping[Any, Any]]) -> list[Label]:
    found: dict[tuple[str, str, str, str], Label] = {}
    for row in sorted(rows, key=lambda row: int(row["sequence"])):
        label = Label(**{name: row[name] for name in Label.__slots__})
        found.pop(_place(label), None)
        found[_place(label)] = label
    return list(found.values())


def _row(label: Label) -> dict[str, Any]:
    return {name: getattr(label, name) for name in label.__slots__}


def _is_key(item: str) -> bool:
    return len(item) == 16 and all(char in "0123456789abcdef" for char in item)
