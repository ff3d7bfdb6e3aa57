"""The notebook runs from top to bottom on a run that a search has just made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from loop.domain.scores import QUALITY, Score
from loop.domain.turns import TokenUsage, Turn
from loop.service.assemble import Parts, assemble
from loop.service.logged_turns import load_frame
from loop.service.settings import load_settings
from optimizers.routing_search import SearchSettings, search
from tests.optimizers.randomised_logs import HAIKU, OPUS, RandomisedLog, all_to, randomised_log

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebooks" / "review_a_run.ipynb"


def turns_of(log: RandomisedLog) -> list[Turn]:
    frame = log.frame
    return [
        Turn(
            turn_id=turn_id,
            request_id=turn_id,
            session_id=frame.session_ids[frame.session[row]],
            started_at_us=int(frame.started_at_us[row]),
            ended_at_us=int(frame.started_at_us[row]) + 500,
            sequence=row,
            org_path=frame.org_path.at(row),
            repository=frame.repository.at(row),
            requested_model=frame.requested_model.at(row),
            served_model=frame.served_model.at(row),
            usage=TokenUsage(
                int(frame.input_tokens[row]),
                int(frame.output_tokens[row]),
                int(frame.cache_read_tokens[row]),
                int(frame.cache_creation_5m_tokens[row]),
            ),
            duration_ms=900,
            starts_prompt=bool(frame.starts_user_turn[row]),
            cost_microusd=int(frame.cost_microusd[row]),
        )
        for row, turn_id in enumerate(frame.turn_ids)
    ]


def store_a_run(parts: Parts) -> None:
    log = randomised_log(60, 400)
    parts.lake.write_turns(turns_of(log), [], revision=1)
    parts.lake.write_decisions(log.decisions, journal="test", position=1)
    parts.lake.write_scores(
        [Score(name, QUALITY, "1", value) for name, value in log.quality.items()]
    )
    run = search(
        load_frame(parts),
        parts.price_book,
        incumbent=all_to(OPUS),
        models=(OPUS, HAIKU),
        publications=log.publications,
        session_quality=log.quality,
        settings=SearchSettings(trials=40, quality_margin=0.1, min_cell_sessions=20),
        run_id="run-notebook",
        table_versions=parts.lake.versions(),
        study_url=parts.settings.control_url,
    )
    assert run.found is not None, run.outcome
    parts.runs.save(run)


def test_the_notebook_runs_and_says_what_the_record_says(tmp_path: Path) -> None:
    parts = assemble(load_settings({}, data_dir=tmp_path))
    store_a_run(parts)
    run = parts.runs.load("run-notebook")
    assert run.test is not None
    parts.close()
    environment = os.environ | {"TURNWISE_DATA_DIR": str(tmp_path), "COLUMNS": "118"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "scripts" / "run_notebook", NOTEBOOK],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert ran.returncode == 0, ran.stderr
    assert run.outcome in ran.stdout
    assert f"{run.test.saving_share:.1%}" in ran.stdout
    assert "opus" in ran.stdout  # the arms, by DuckDB
    assert "as recorded" in ran.stdout
    assert "gate " in ran.stdout


def test_the_notebook_holds_its_outputs_and_no_error() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert {o["output_type"] for cell in code for o in cell["outputs"]} == {"stream"}
