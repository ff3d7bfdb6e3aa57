"""Recall and precision of redaction per kind of secret, on a small generated corpus."""

from __future__ import annotations

import pytest

from bench.bench_redaction import Tally, own_spans, tally
from bench.redaction_corpus import DECOYS, MAKERS, corpus

SEED = 7
PER_KIND = 60
# A value beside a name is judged by its characters: of one in a hundred they say too little.
RECALL = dict.fromkeys(MAKERS, 1.0) | {"assigned-secret": 0.95, "authorization": 0.95}
PRECISION = 0.99


@pytest.fixture(scope="module")
def counted() -> Tally:
    return tally(corpus(SEED, PER_KIND), own_spans)


@pytest.mark.parametrize("kind", MAKERS)
def test_planted_secrets_are_found_and_nothing_beside_them(counted: Tally, kind: str) -> None:
    planted, right, wrong = (of[kind] for of in (counted.planted, counted.right, counted.wrong))
    assert planted == PER_KIND
    assert counted.found[kind] >= RECALL[kind] * planted
    assert right >= PRECISION * (right + wrong)


@pytest.mark.parametrize("kind", DECOYS)
def test_what_only_looks_like_a_secret_is_left(counted: Tally, kind: str) -> None:
    assert counted.decoys[kind] > PER_KIND / 2
    assert counted.spoilt[kind] <= (1 - PRECISION) * counted.decoys[kind]
