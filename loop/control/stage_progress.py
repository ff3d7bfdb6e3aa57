"""How far each scheduled stage has come: the revision it has seen, and when it last succeeded."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Engine, String, Table, select

from loop.control.store import metadata

_PROGRESS = Table(
    "stage_progress",
    metadata,
    Column("stage", String(40), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("note", String(400), nullable=False),
)


@dataclass(frozen=True, slots=True)
class StageProgress:
    """``revision`` is the newest lake revision seen, ``done`` what was done in all."""

    stage: str
    revision: int = 0
    at_us: int = 0
    done: int = 0
    note: str = ""


class StageLog:
    """The only writer of ``stage_progress``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, stage: str) -> StageProgress:
        with self._engine.connect() as connection:
            row = connection.execute(select(_PROGRESS).where(_PROGRESS.c.stage == stage)).first()
        return StageProgress(*row) if row else StageProgress(stage)

    def record(self, stage: str, *, revision: int, at_us: int, done: int, note: str = "") -> None:
        """Moves the stage on; ``done`` is added to what was done."""
        with self._engine.begin() as connection:
            row = connection.execute(select(_PROGRESS).where(_PROGRESS.c.stage == stage)).first()
            values = {"revision": revision, "at_us": at_us, "note": note[:400]}
            if row is None:
                insert = _PROGRESS.insert().values(stage=stage, done=done, **values)
                connection.execute(insert)
            else:
                update = _PROGRESS.update().where(_PROGRESS.c.stage == stage)
                connection.execute(update.values(done=row.done + done, **values))
