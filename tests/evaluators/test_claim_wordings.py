"""Many ways to say one thing: what is a claim, and what only sounds like one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluators.claim_evidence import judge_claim
from evaluators.claims import read_claims
from evaluators.session_evidence import read_evidence
from evaluators.text_language import is_foreign
from tests.evaluators.test_claim_corpus import build

KINDS: dict[str, Any] = json.loads(
    Path(__file__).with_name("claim_wordings.json").read_text("utf-8")
)["kinds"]


def verdicts(claim: str, steps: list[Any]) -> set[str]:
    evidence = read_evidence(build({"steps": steps, "claim": claim}))
    ending = evidence.statements[-1]
    return {judge_claim(claim, ending, evidence).verdict for claim in read_claims(claim)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_claim_is_read_however_it_is_worded(kind: str) -> None:
    steps = KINDS[kind]["steps"]
    missed = [w for w in KINDS[kind]["claims"] if "contradicted" not in verdicts(w, steps)]
    assert missed == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_sounds_like_a_claim_is_held_against_nobody(kind: str) -> None:
    steps = KINDS[kind]["steps"]
    wronged = [
        words for words in KINDS[kind]["none"] if verdicts(words, steps) & {"contradicted", "stale"}
    ]
    assert wronged == []


@pytest.mark.parametrize(
    "text",
    [
        "Alle Tests laufen jetzt durch. Ich habe die Datei angepasst und die Funktion korrigiert.",
        "Tous les tests passent maintenant. J'ai corrigé la fonction et mis à jour les fichiers.",
        "Todas las pruebas pasan ahora. He corregido el error en la función y los archivos.",
        "Todos os testes passam agora. Corrigi o erro na função e não foi preciso mudar mais.",
        "すべてのテストが通りました。",
        "所有测试都通过了。",
        "Все тесты проходят.",
    ],
)
def test_a_text_in_another_language_is_told_from_one_that_claims_nothing(text: str) -> None:
    assert is_foreign(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Done.",
        "Fixed `de_la()` in el.py, las.py and der.py; die.com is no longer asked.",
        "Renamed el to le, la to der, and un to das.",
        "The greeting is now “Guten Tag und willkommen”, as the translators asked.",
        "| de | fr | es |\n|---|---|---|\n| ja | oui | sí |",
    ],
)
def test_english_and_code_are_no_other_language(text: str) -> None:
    assert not is_foreign(text)
