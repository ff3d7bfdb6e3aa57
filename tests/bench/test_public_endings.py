"""The claim rules on public endings, where the public sets lie beside the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.public_endings import differences, judge_endings, measure

DATA = Path(__file__).parents[3] / "shared" / "data"


# The labels are ours and here; the endings are others' texts, which may not be copied into the
# project. The hand-made corpus (tests/evaluators) holds the same rules everywhere.
@pytest.mark.skipif(not DATA.is_dir(), reason="the public sets are not part of this project")
def test_verdicts_against_public_endings_are_right() -> None:
    endings = judge_endings(DATA)
    assert len(endings) == 263
    found = measure(endings)
    assert found["adverse_right"] >= 0.95 * found["adverse_verdicts"]
    assert found["adverse_found"] >= 2, list(differences(endings))
    supported = {row["given"]: row["claims"] for row in found["verdicts"]
                 if row["label"] == "supported"}  # fmt: skip
    judged = sum(count for given, count in supported.items() if given != "no claim")
    assert supported["supported"] >= 0.9 * judged
