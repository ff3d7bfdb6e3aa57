"""Searches go on after the process that ran them is gone, and the gate knows its units."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from loop.domain.errors import BadInput
from loop.domain.runs import OptimizationRun
from loop.service.assemble import assemble
from loop.service.gate_limits import parse_unit_limits, read_gate_rules
from loop.service.optimization_stage import start_run
from loop.service.settings import load_settings
from loop.service.stages import resume
from routing_policies.offline_gate import GateLimits, UnitLimits
from routing_policies.version_store import AS_REQUESTED


def test_a_run_that_was_cut_off_is_finished_by_the_next_process(tmp_path: Path) -> None:
    parts = assemble(load_settings({}, data_dir=tmp_path))
    assert resume(parts) is False
    begun = OptimizationRun(
        "run-old", "running", 5, None, 0, AS_REQUESTED, parts.lake.versions(), (), None, ""
    )
    parts.runs.begin(begun, {"trials": 3, "seed": 4}, at_us=5)
    assert resume(parts) is True
    deadline = time.monotonic() + 60
    while (run := parts.runs.load("run-old")).state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert run.state == "finished"
    assert run.started_at_us == 5
    assert (run.settings["trials"], run.settings["seed"]) == (3, 4)
    assert "the log holds 0 sessions" in run.outcome
    assert resume(parts) is False
    with pytest.raises(BadInput, match="no sampler"):
        start_run(parts, {"sampler": "magic"})
    parts.close()


def test_units_have_limits_of_their_own_where_the_settings_say_so(tmp_path: Path) -> None:
    environment = {
        "TURNWISE_GATE_MAX_QUALITY_LOSS": "0.03",
        "TURNWISE_GATE_LIMITS": "acme/pay:max_quality_loss=0.01,acme/pay:min_saving_share=-0.1,"
        "acme/lab:min_effective_sample_size=20",
    }
    rules = read_gate_rules(load_settings(environment, data_dir=tmp_path))
    assert rules.limits.max_quality_loss == 0.03
    assert rules.by_path == {
        "acme/pay": UnitLimits(0.01, 100.0, -0.1),
        "acme/lab": UnitLimits(0.03, 20.0, 0.0),
    }
    for wrong in ("acme", "acme:max_quality_loss", "acme:speed=1", "acme:min_saving_share=nan"):
        with pytest.raises(BadInput):
            parse_unit_limits([wrong], GateLimits())
