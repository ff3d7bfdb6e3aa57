"""One pass of the drainer, with what it quarantined logged and its progress noted."""

from __future__ import annotations

import logging
import time

from loop.domain.errors import Conflict
from loop.service.assemble import Parts
from loop.service.maintenance import writing_allowed
from loop.service.repricing_stage import PendingRepricing

logger = logging.getLogger("turnwise")


def drain_and_price(parts: Parts, repricing: PendingRepricing) -> bool:
    """A pass of the drainer, and a slice of a re-pricing where one is under way.

    During maintenance neither works, and the journal is free for who maintains.
    """
    with writing_allowed(parts.settings.data_dir) as allowed:
        if not allowed:
            parts.drainer.close()
            return False
        more = drain(parts)
        try:
            return repricing.advance() or more
        except Conflict:
            return more


def drain(parts: Parts) -> bool:
    """Moves what was acknowledged from the journal into the lake; whether to go on at once.

    While another process drains this journal there is nothing to do.
    """
    began = time.monotonic()
    try:
        report = parts.drainer.drain_once()
    except Conflict:
        return False
    for problem in report.quarantined:
        logger.warning("quarantined: %s", problem)
    if report.received or report.rejected:
        parts.stage_log.record(
            "collect",
            revision=parts.lake.max_revision(),
            at_us=time.time_ns() // 1000,
            done=report.stored,
            note=f"{report.turns} turns of {report.sessions} sessions in the last pass",
        )
    # A pause between commits keeps them few; under load the passes themselves are long enough.
    return time.monotonic() - began > parts.settings.drain_interval_ms / 1000
