"""What others need to read the tables: the protocol's version, and the example that is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deltalake import DeltaTable

from loop.lake import Lake
from loop.ledger.chargeback import spend
from tests.lake.lake_records import turn

EXAMPLE = Path(__file__).parents[2] / "examples" / "lake" / "read_with_duckdb.py"


def test_the_example_sums_as_turnwise_does_and_any_reader_of_delta_may_read(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path))
    for revision in (1, 2, 3):
        lake.write_turns(
            [turn(n, developer=f"d{n}", cost_microusd=n + revision) for n in range(revision)],
            [],
            revision=revision,
        )
        if revision == 2:
            lake.compact()
    ran = subprocess.run(
        [sys.executable, EXAMPLE, str(tmp_path)], check=True, capture_output=True, text=True
    )
    expected = [
        f"{row['developer']} {row['turns']} {row['cost_microusd']}"
        for row in spend(lake, ["developer"])
    ]
    assert sorted(ran.stdout.splitlines()) == sorted(expected)
    protocol = DeltaTable(str(tmp_path / "turns")).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    assert (protocol.reader_features, protocol.writer_features) == (None, None)
