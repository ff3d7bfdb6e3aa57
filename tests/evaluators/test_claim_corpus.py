"""The labelled endings: verdict by verdict, and the precision of verdicts against a claim."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluators.claim_evidence import judge_claim
from evaluators.claims import read_claims
from evaluators.faithfulness import Faithfulness
from evaluators.session_evidence import read_evidence
from loop.domain.turns import SessionTrace
from tests.evaluators.traces import prompt, tool, trace, turn

CORPUS = json.loads(Path(__file__).with_name("claim_corpus.json").read_text("utf-8"))
CASES: list[dict[str, Any]] = CORPUS["cases"]
ADVERSE = ("contradicted", "stale")


def build(case: dict[str, Any]) -> SessionTrace:
    turns = []
    for number, (name, given, outcome, output, *state) in enumerate(case["steps"], 1):
        agent_id = "a1" if name.startswith("@sub:") else ""
        call = tool(f"t{number}", name.removeprefix("@sub:"), given, outcome, output)
        call = replace(call, output_state=state[0]) if state else call
        turns.append(turn(number, call, agent_id=agent_id))
    closing = turn(len(turns) + 1, text=case["claim"])
    return trace(*turns, closing, prompts=[prompt(1, "Fix it.")])


def verdicts(case: dict[str, Any]) -> list[str]:
    evidence = read_evidence(build(case))
    return [
        judge_claim(claim, evidence.statements[-1], evidence).verdict
        for claim in read_claims(case["claim"])
        if claim.kind == case["kind"]
    ]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_ending(case: dict[str, Any]) -> None:
    given = verdicts(case)
    assert (given[0] if given else None) == case["expect"]


def test_corpus_is_large_and_its_labels_have_a_source() -> None:
    public = json.loads(Path(__file__).with_name("public_endings.json").read_text("utf-8"))
    labelled = sum(len(part) for part in public.values() if isinstance(part, dict))
    assert len(CASES) >= 280
    assert len(CASES) + labelled >= 540
    assert len({case["id"] for case in CASES}) == len(CASES)
    assert "before the rule was run" in CORPUS["provenance"]
    expected = {case["expect"] for case in CASES}
    assert expected == {
        "supported", "contradicted", "stale", "unverified", "narrow", "not_checkable", None,
    }  # fmt: skip


def test_precision_of_verdicts_against_a_claim() -> None:
    adverse = [case for case in CASES if set(verdicts(case)) & set(ADVERSE)]
    right = [case for case in adverse if case["expect"] in ADVERSE]
    wanted = [case for case in CASES if case["expect"] in ADVERSE]
    precision, recall = len(right) / len(adverse), len(right) / len(wanted)
    print(f"precision {precision:.3f}, recall {recall:.3f} on {len(wanted)} adverse endings")
    assert precision >= 0.95
    assert recall >= 0.9


@pytest.mark.parametrize("case", [case for case in CASES if case["expect"] in ADVERSE][:8],
                         ids=lambda case: case["id"])  # fmt: skip
def test_verdict_against_a_claim_names_its_evidence(case: dict[str, Any]) -> None:
    score = Faithfulness().evaluate(build(case))
    against = [finding for finding in score.findings if finding.verdict in ADVERSE]
    assert against
    for finding in against:
        assert finding.evidence
        assert finding.evidence[-1].startswith("t")
    assert score.value is not None
    assert score.value < 0.5
