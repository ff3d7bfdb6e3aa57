"""Results of checks beside a label or a command: ``Lint: 0 issues``, ``| tests | 45/45 passed |``,
"`go vet` and `mise run test` pass".

Reports of agents end in lists and tables of this kind. A cell that also speaks of failures, of
what is to come or of a share of the tests makes no claim.
"""

from __future__ import annotations

import re
from typing import Literal

from evaluators.assertions import is_asserted, is_negated
from evaluators.claim import Claim, ClaimKind
from evaluators.commands import parse_command
from evaluators.runners import recognise

_NUMBER = r"\d{1,3}(?:,\d{3})+|\d{1,7}"
_MARK = r"(?:✅|✓|✔️?|🟢|☑️?)"
_KINDS: tuple[tuple[ClaimKind | Literal["path", "format"], str], ...] = (
    (
        "tests",
        r"(?:[\w-]+ ){0,2}tests?(?: (?:suites?|runs?|results?|status))?|(?:full |entire |whole )?"
        r"(?:test )?suite|pytest|unittest|jest|vitest|go test(?: \./\.\.\.)?|cargo test|npm test"
        r"|phpunit|rspec|ctest|tox|mocha|playwright"
        r"|composer test|mix test",
    ),
    (
        "path",
        r"[\w./@+-]{0,120}(?:tests?|spec)[\w./@+-]{0,80}\.\w{1,4}",
    ),
    (
        "lint",
        r"(?:[\w-]+ )?lint(?:er|ing|ers)?(?: (?:check|status|run))?|eslint|ruff(?: check)?|clippy"
        r"|golangci-lint"
        r"|biome|flake8|rubocop|go vet",
    ),
    (
        "format",
        r"(?:code )?format(?:ting)?(?: check)?|prettier|gofmt|cargo fmt",
    ),
    (
        "types",
        r"type-?\s?check(?:s|ing|er)?|types|tsc(?: --noemit)?|mypy|pyright|typescript",
    ),
    ("build", r"(?:[\w-]+ )?builds?(?: status)?|compile|compilation"),
)
_LABELS = "|".join(f"(?P<{kind}>{words})" for kind, words in _KINDS)
_SAID = (
    rf"(?:{_MARK}\s*)?\**\s*(?:all\s+)?(?:(?P<part>{_NUMBER})(?:\s*(?:/|of)\s*(?P<whole>{_NUMBER}))?\s*"
    r"(?:tests?\s*)?\W{0,3})?(?:(?:are|is|now|all|still)\s+){0,2}(?:pass(?:ed|es|ing)?|green|clean|ok"
    r"|success(?:ful|fully)?|succee(?:ds|ded)|(?:\d+ files? (?:inspected|checked),? )?no (?:lint "
    r"|type )?(?:errors|issues|problems|offenses|failures"
    r"|warnings)(?: found)?|(?:0|zero) (?:lint |type )?(?:errors|issues|warnings|failed|failures"
    r"|problems))(?![\w-])"
)
_RESULT = re.compile(
    rf"(?i)^[\s|>*+\-•#\d.)]*(?:{_MARK}\s*)?[*_`]*(?:{_LABELS})[*_`]*(?:\s*\((?P<paren>[^()]{{1,60}})\))?(?:\s*\|\s*`[^`|\n]{{1,80}}`(?=\s*\|))?"
    rf"\s*(?:[:=|→]|[—–-](?=\s))[\s*_`|]*(?:{_SAID}|(?P<part2>{_NUMBER})\s*/\s*(?P<whole2>{_NUMBER})[\s|]*{_MARK}|{_MARK}(?=\s*(?:$|[|,;.(·*])))"
)
_ONLY = re.compile(
    r"(?i)\b(?:pending|skipped|n/a|todo|tbd|planned|required|fail\w*|broken|red|except|but|other|remaining|some|most|not|half)\b"
)
_NO_FAILURES = re.compile(r"(?i)\b(?:0|no|zero) (?:\w+ )?fail(?:ed|ures?|ing)\b|\b0 skipped\b")
_SHARE_BEFORE = re.compile(
    r"(?i)(?:\d\s*(?:/|of)\s*\d+|\b(?:other|remaining|rest of the|but \w+))\s*$"
)
_WORD_ITEM = (
    r"(?:(?:the|full|all|whole|entire|existing|package|unit)\s+){0,3}(?:tests?(?:\s+suite)?|suite|lint(?:er|ing)?"
    r"|type-?\s?check(?:s|ing)?|types|builds?|formatting|vet|fmt|gofmt)"
)
_ITEM = rf"(?:`[^`\n]{{2,120}}`|{_WORD_ITEM})(?:\s*\([^()\n]{{0,60}}\))?"
_PASSES = (
    r"(?:pass(?:es|ed|ing)?|succee(?:ds?|ded)|(?:is|are|was|were|stays?|comes? back|came back"
    r"|runs?|ran)\s+(?:all\s+)?"
    r"(?:now\s+)?(?:clean(?:ly)?|green|successful|passing)|green|clean|exits? (?:with )?(?:code "
    r"|status )?0"
    r"|is (?:now )?free of (?:errors|warnings|issues)|(?:now )?reports? (?:every|all) \w+ passed"
    r"|(?:now )?(?:reports?|shows?|finds?|found) (?:no|0|zero) (?:\w+ )?(?:errors|issues|problems"
    r"|failures|warnings))"
)
_LIST = re.compile(
    rf"(?i)(?P<items>{_ITEM}(?:(?:\s*(?:,|/|&|\+)\s*(?:and\s+)?|\s+and\s+){_ITEM}){{0,7}})"
    rf"\s*(?:(?:are|is|have|has|all|both|now|still|each|also|again|two|three|four|completes? and"
    rf"|continues? to)\s+){{0,3}}{_PASSES}"
    r"(?=\s*(?:$|[.,;:!)*(|—–✅✓]|\b(?:and|with|now|again|successfully|cleanly|locally|too|after|on"
    r"|in|at|but|so|without|for|here|as|across|under|against)\b))"
)
_PASSES_THEM = re.compile(
    r"(?i)\bpass(?:es)?\s+(?P<items>`[^`\n]{2,120}`(?:\s*\([^()\n]{0,40}\))?(?:(?:\s*,\s*(?:and\s+)?"
    r"|\s+and\s+)`[^`\n]{2,120}`(?:\s*\([^()\n]{0,40}\))?){0,7})"
)
_TICKED = re.compile(rf"(?i)(?<!\w)(?P<item>{_WORD_ITEM})\s*[:=]?\s*{_MARK}")
_NAMED = re.compile(r"(?i)`(?P<name>[\w@./-]{2,60})` (?:is|are) (?:now |all )*green\b")
_EACH = re.compile(rf"(?i)`(?P<command>[^`\n]{{2,120}})`|(?P<word>{_WORD_ITEM})")
_TEST_PATH = re.compile(
    r"(?i)^[\w@./+-]*test[\w@./+-]*(?:/[\w@./+-]+|\.\w{1,5}|::\w+|\.tests?)$|^[\w/.+-]+/tests?/?$"
)


def read_results(sentence: str, words: str) -> list[Claim]:
    """The claims of a line of a list or table, or of a sentence about named commands."""
    lowered = sentence.lower()
    claims: list[Claim] = []
    result = _RESULT.match(sentence) if _has_label(lowered) else None
    if result is not None:
        claim = _result_claim(sentence, result, words)
        if claim is not None:
            claims.append(claim)
    named = _NAMED.search(sentence) if "green" in lowered and "`" in sentence else None
    if named and is_asserted(sentence, named.start(), named.end()):
        found = recognise((named.group("name"),))
        if not found:
            scope = (named.group("name"),)
            claims.append(Claim("tests", words, qualified=True, scope=scope))
    ticked = list(_TICKED.finditer(sentence)) if not claims and _has_mark(sentence) else []
    if len(ticked) > 1:
        claims += [claim for match in ticked for claim in _item_claims(match.group("item"), words)]
    for pattern in (_LIST, _PASSES_THEM):
        for match in (
            pattern.finditer(sentence)
            if "`" in sentence or "," in sentence or " and " in lowered
            else ()
        ):
            if (
                "`" not in match.group()
                and "," not in match.group()
                and " and " not in match.group()
            ):
                continue  # one thing, which the prose grammar reads
            if _SHARE_BEFORE.search(sentence[: match.start()]):
                continue
            if not is_asserted(
                sentence, match.start(), match.end(), own_negation=True
            ) or _ONLY.search(_NO_FAILURES.sub("", match.group())):
                continue
            for claim in _item_claims(match.group("items"), words):
                if all(known.kind != claim.kind or known.scope != claim.scope for known in claims):
                    claims.append(claim)
    return claims


def _has_mark(sentence: str) -> bool:
    return any(mark in sentence for mark in "✅✓✔☑🟢")


def _has_label(lowered: str) -> bool:
    return any(mark in lowered for mark in (":", "|", "=", "→", "—", "–", " - "))


def _result_claim(sentence: str, match: re.Match[str], words: str) -> Claim | None:
    rest = sentence[match.end() :]
    if match.group("paren") and is_negated(match.group("paren")):
        return None
    if _ONLY.search(_NO_FAILURES.sub("", rest)) or not is_asserted(
        sentence, match.start(), match.end(), own_negation=True
    ):
        return None
    part = match.group("part") or match.group("part2")
    whole = match.group("whole") or match.group("whole2")
    if part and whole and part != whole:
        return None
    for kind, _ in _KINDS:
        label = match.group(kind)
        if not label:
            continue
        if kind == "path":
            count = int((whole or part).replace(",", "")) if part else None
            return Claim("tests", words, count=count, qualified=True, scope=(label,))
        if kind == "format":
            return Claim("lint", words, scope=("formatting",))
        label = label.lower()
        qualifiers = () if kind != "tests" else tuple(_qualifiers(label))
        named = recognise(parse_command(label).segments[0].words) if kind != "tests" else ()
        return Claim(
            kind,
            words,
            total=kind == "tests" and not qualifiers and whole is not None,
            count=int((whole or part).replace(",", "")) if kind == "tests" and part else None,
            qualified=bool(qualifiers),
            scope=qualifiers or ((named[0].name,) if named else ()),
        )
    return None


def _qualifiers(label: str) -> list[str]:
    known = {
        "test", "tests", "suite", "suites", "run", "runs", "result", "results", "status",
    "all", "the",
        "full", "entire", "whole", "pytest", "unittest", "jest", "vitest", "go", "cargo", "npm",
        "phpunit", "rspec", "ctest", "tox", "mocha", "playwright", "composer", "mix",
        "./...",
    }  # fmt: skip
    return [word for word in label.split() if word not in known]


def _item_claims(items: str, words: str) -> list[Claim]:
    claims: list[Claim] = []
    for match in _EACH.finditer(items):
        command = match.group("command")
        if command is None:
            word = match.group("word").lower()
            kind: ClaimKind | None = (
                "tests"
                if "test" in word or "suite" in word
                else "lint"
                if "lint" in word
                else "types"
                if "type" in word
                else "build"
                if "build" in word
                else None
            )
            if kind:
                existing = ("existing",) if "existing" in word else ()
                claims.append(Claim(kind, words, total="suite" in word, scope=existing))
        elif _TEST_PATH.match(command):
            claims.append(Claim("tests", words, qualified=True, scope=(command,)))
        else:
            line = parse_command(command)
            for segment in line.segments if len(line.segments) <= 3 else ():
                claims += [
                    Claim(run.kind, words, qualified=run.subset, scope=(" ".join(segment.words),))
                    for run in recognise(segment.words)
                    if not run.bundled
                ]
    return claims
