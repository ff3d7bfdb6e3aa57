"""What estimates know of sessions beside their turns."""

from __future__ import annotations

from pathlib import Path

from loop.lake import Lake
from loop.service.session_facts import labels_of, read_wait_seconds
from tests.lake.lake_records import content, turn


def test_waiting_time_and_language_come_from_the_tables(tmp_path: Path) -> None:
    lake = Lake.open(str(tmp_path / "lake"))
    turns = [
        turn(1, "s1", duration_ms=1_500),
        turn(2, "s1", duration_ms=500),
        turn(3, "s2", duration_ms=700),
        turn(4, "s2", duration_ms=None),
    ]
    inputs = [
        ('{"file_path": "/repo/a.go", "old_string": "x.py"}', "s1"),
        ('{"command": "cat notes.md"}', "s1"),
        ('{"file_path":"/repo/b.GO"}', "s1"),
        ('{"file_path":"/repo/c.py"}', "s1"),
        ('{"file_path":"/repo/unknown.zzz"}', "s2"),
    ]
    texts = [
        content(number, session_id, kind="tool_input", text=text, tool_use_id=f"toolu_{number}")
        for number, (text, session_id) in enumerate(inputs)
    ]
    lake.write_turns(turns, texts, revision=1)
    assert read_wait_seconds(lake) == {"s1": 2.0}
    assert labels_of(lake) == {"language": {"s1": "Go"}}
