"""What a sentence says of tests, linters, type checks and builds: that they pass, in prose.

Results in lists and tables, and commands named literally: ``check_results``.
"""

from __future__ import annotations

import re

from evaluators.assertions import is_asserted, is_negated
from evaluators.claim import Claim, ClaimKind

_END = (
    r"(?=\s*(?:$|[.,;:!)*_✓✅—–(|]|\b(?:and|with|now|again|successfully|cleanly|locally|too"
    r"|as well|after|on|in|at|but|so|without (?:any )?(?:errors?|failures?|issues?|warnings?)"
    r"|for|under|across|here|this time|including|plus|both|everywhere|throughout|overall|end to end"
    r"|unchanged|and)\b|—))"
)
_NUMBER = r"\d{1,3}(?:,\d{3})+|\d+"
_FINDS_NOTHING = (
    r"(?:(?:now|still) )?(?:reports?|reported|shows?|finds?|found|returns?) (?:no|0"
    r"|zero) (?:\w+ )?(?:errors|issues"
    r"|problems|warnings)\b"
)
_WELL = r"(?:successfully|cleanly|without (?:any )?(?:errors|issues|problems|warnings))"
_TESTS = re.compile(
    r"(?i)(?P<quant>\b(?:all|both|every|each|entire|full|whole"
    r"|complete)\b)?(?:\s+(?:of\s+)?(?:the|my|our|its|these|those)\b)?"
    rf"[\s*`(]*(?P<num>\b(?:{_NUMBER})\b(?!\s*/))?[\s*]*"
    r"(?P<qual>(?:[\w`/.'-]+\s+){0,3}?)(?P<noun>\b(?:tests?|test\s+cases?|test\s+suites?|suites?"
    r"|specs?|test\s+runs?))\b"
    rf"(?:\s*\((?P<paren>[^)]*)\))?"
    r"(?P<where>\s+(?:in|for|under|of)\s+(?:the\s+)?`[^`\n]{2,80}`(?:\s+(?:package|module|folder))?)?"
    r"(?P<list>(?:\s*(?:,|/|\band\b|&|\+)\s*(?:and\s+)?(?:the\s+)?(?:lint(?:er|ing)?"
    r"|type-?\s?check(?:s|ing|er)?|types|builds?|formatting|vet|fmt|`[^`]+`))*)[\s*_]*(?:(?:are"
    r"|is|have|has|all|still|now|also|successfully|currently|been|both|again|(?:executed|run) and"
    r"|fully|completely|entirely|continues? to|remains?"
    r"|stays?|(?:came|comes?) back|r[au]ns?|finished|completed|went|back to)\s+)*"
    rf"(?P<verb>pass(?:es|ed|ing)?|green|succeed(?:s|ed)?|clean(?:ly)?){_END}"
)
_TOTAL = re.compile(r"(?i)\b(?:all|every|entire|full|whole|complete)\b")
_TEST_WORD = re.compile(r"(?i)\b(?:tests?|jest|pytest|vitest|suite|specs?|phpunit|rspec)\b")
_COUNTED = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
_NUMBER_WORDS = {word: number for number, word in enumerate(_COUNTED.split("|"), 2)}
_PRONOUN = re.compile(
    rf"(?i)\b(?:both|they all|they|all(?: of them| {_NUMBER}| (?:{_COUNTED}))?)\s+(?:(?:now|are"
    rf"|still)\s+)*"
    rf"(?:pass(?:es|ed|ing)?|green){_END}|\b(?P<part>{_NUMBER})/(?P=part)\s+(?:(?:now|are|all)\s+)*"
    rf"(?:pass(?:es|ed|ing)?|green){_END}|^\W*(?:no|zero|0) failures{_END}"
)
_SIDES = re.compile(
    rf"(?i)^\W*both (?:sides|suites|projects|packages|halves|runs|apps|services)\s+(?:(?:are"
    rf"|now)\s+)*"
    rf"(?:pass(?:es|ed|ing)?|green){_END}"
)
_ZERO_FAILED = re.compile(
    rf"(?i)\b(?P<num>{_NUMBER}) (?:(?:tests?|examples?)(?: pass(?:ed|ing)?)?|passed),? (?:and "
    rf"|with )?"
    r"(?:0|no|zero) (?:failures|failed|failing|errors)\b"
)
_EVERYTHING = re.compile(
    rf"(?i)(?:^|\beverything(?:'s| is)?|\ball(?:\s+\w+)?\s+checks|\ball)\W*(?:(?:are|is|all|now"
    rf"|still)\s+)*(?:all\s+)?(?P<verb>green|clean|passing|pass(?:es|ed)?|checks? out){_END}"
)
_EVERYTHING_START = re.compile(r"(?i)^\W*(?:all|everything|all \w+ checks|all checks)\b")
_LINT = re.compile(
    rf"(?i)\b(?:lint(?:er|ing|ers)?|eslint|ruff|golangci-lint|clippy|credo|biome"
    rf"|flake8)\b(?:\s*\([^)]*"
    r"\))?(?P<mid>(?:\s*(?:,|/|\band\b)\s*(?:the\s+)?(?:type-?\s?check(?:s|ing)?|types|tests"
    r"|builds?|formatting|fmt|`[^`]+`))*)[\s*:_]*(?:(?:is|are|all|both|now|still|also"
    r"|comes? back|runs?)\s+)*"
    rf"(?:clean|pass(?:es|ed|ing)?|green){_END}|\b(?:no|zero|0) lint(?:er|ing)? (?:errors|issues"
    rf"|warnings)\b|^\W*clean lint{_END}|\bno (?:eslint|ruff|clippy) (?:errors|issues|warnings)\b"
    rf"|\b(?:eslint|ruff|clippy|biome|flake8|linter) {_FINDS_NOTHING}"
    rf"|\bpass(?:es)? lint(?:ing)?{_END}"
    rf"|\blint(?:ing)? (?:completed|finished|ran) {_WELL}{_END}"
)
_TYPES = re.compile(
    rf"(?i)\b(?:type-?\s?check(?:s|ing|er)?|types|tsc|mypy|pyright)\b[\s*:_]*(?:(?:is|are|all"
    rf"|both|now|still|also)\s+)*(?:clean|pass(?:es|ed|ing)?|green){_END}|\b(?:no|zero"
    rf"|0) type errors\b|\bno (?:typescript|tsc|mypy|pyright) errors\b"
    rf"|\b(?:tsc|mypy|pyright|typescript) {_FINDS_NOTHING}"
)
_BUILD = re.compile(
    rf"(?i)\bbuilds?[\s*:_]*(?:(?:is|are|all|both|now|still|also|verified|confirmed)\s+)*"
    rf"(?:clean(?:ly)?|pass(?:es"
    rf"|ed|ing)?|green|succe(?:eds?|eded|ssful))(?:ly)?{_END}|^\W*(?:it |everything |code |that "
    rf"|this )?(?:now )?(?:builds|compiles)(?: is)? (?:clean(?:ly)?|successfully|fine"
    rf"|without errors){_END}|\bcompiles (?:cleanly|successfully)\b"
    rf"|\b(?:code|project|app|everything|crate|firmware|image|it) (?:still |now |all )*(?:builds"
    rf"|compiles)"
    rf"(?: fine| ok)?(?=\s*(?:$|[.;!,]|and (?:the |all )?tests?\b|again\b|without\b))"
    rf"|\bbuilds fine{_END}"
    rf"|\bbuild (?:completed|completes|finished|finishes|ran|runs) {_WELL}{_END}"
    rf"|\bbuilds {_WELL}{_END}"
)
_BUILDS_AND_PASSES = re.compile(
    rf"(?i)^\W*(?:everything |it |code |all )?(?:now )?builds (?:and|&) (?:the )?(?:tests? )?"
    rf"pass(?:es)?{_END}"
)
_LISTED = {
    "lint": re.compile(r"(?i)\blint"),
    "types": re.compile(r"(?i)type-?\s?check|\btypes\b"),
    "build": re.compile(r"(?i)\bbuilds?\b"),
    "tests": re.compile(r"(?i)\btests\b"),
}
_GENERIC_QUALIFIERS = frozenset((
    "the", "our", "its", "these", "those", "test", "project's", "project", "whole",
    "full", "entire",
    "all", "now", "automated", "current", "test-suite", "every", "each", "and", "run", "complete",
    "suite's",
))  # fmt: skip
# They narrow which run is meant, and still speak of all that it holds.
_WHOLE_KINDS = frozenset((
    "unit", "existing", "pytest", "unittest", "ctest", "phpunit", "bats", "jest",
    "vitest", "go", "cargo", "python", "rust",
    "backend's",
))  # fmt: skip
# Of the tests that the session itself made or touched: no other words tell which.
_OWN = frozenset((
    "new", "added", "updated", "modified", "rewritten", "regression", "newly", "my", "both",
    "additional", "corresponding", "relevant", "related", "associated", "affected", "targeted",
    "focused", "extra", "matching",
))  # fmt: skip
_PARTIAL = frozenset((
    "but", "except", "excluding", "other", "others", "remaining", "rest", "half", "certain",
    "unaffected", "unrelated", "of", "one", "two", "two-thirds", "majority", "than", "minus",
))  # fmt: skip
_NO_QUALIFIERS = frozenset((
    "that", "and", "with", "so", "to", "confirmed", "verified", "ensured", "then", "also", "after",
    "since", "because", "is", "are", "was", "were", "has", "have", "as", "now", "yes",
    "ran", "done",
    "fixed", "here", "where", "both", "plus", "for", "in", "on", "of",
))  # fmt: skip
_PART_OF = re.compile(r"(?i)\b(?!(?:suite|set|all|total)\b)[a-z]\w*\s+of\b")
_SHARE = re.compile(
    rf"(?i)(?P<part>\b(?:{_NUMBER}))\s*(?:/|(?:out )?of(?: the| all)?)\s*(?P<whole>(?:{_NUMBER}))\b"
)
_NUMBERED_THING = re.compile(
    r"(?i)\b(?:phase|task|step|part|level|sprint|issue|python|node|java|es|http|version|milestone"
    r"|story|chapter|week|section|group|batch|round|iteration|tier|stage|module|unit|rails|django"
    r"|vue|react|angular|php|ruby|status|error|code|pr|bug|ticket|case|scenario)\s*#?$|#$|%\s*$"
)
_STATUS_CODES = frozenset((
    200, 201, 204, 301, 302, 304, 400, 401, 402, 403, 404, 405, 409, 410, 413, 418, 422, 429, 500,
    501, 502, 503, 504,
))  # fmt: skip
_MARKS = re.compile("[✅✓✔☑\ufe0f]")
_ALL_OF = re.compile(r"(?i)\b100 ?% of (?:all |the )?")
_RUNNER_PASSES = re.compile(
    r"(?i)\b(?P<runner>pytest|jest|vitest|unittest|go test|cargo test|npm test|tox|nox|phpunit"
    r"|rspec|ctest"
    r"|mocha|playwright|cypress|mix test|bats)(?: suite| run)?\s+"
    rf"(?:(?:now|all|still|also|is|run)\s+)*(?:pass(?:es|ed)|green|clean|succeed(?:s|ed)){_END}"
)
_AND_EVERYTHING = re.compile(
    r"(?i)(?:\band|[:;,])\s+everything(?:'s| is)?(?: now| still)?\s+(?:pass(?:es|ed|ing)|green)"
    + _END
)
_ONLY_GREEN = re.compile(r"(?i)^\W*green\W*$")
_NO_TEST_FAILURES = re.compile(r"(?i)\b(?:no|zero|0) (?:failing tests|test failures)\b")
_HOOKS = re.compile(
    r"(?i)\bhooks?\s+(?:(?:have|has|all|also|were|are)\s+)*pass(?:ed|es|ing)?\b(?:\s*\((?P<what>[^)]{1,120})\))?"
)
_BUILDS_AND_TESTS = re.compile(
    rf"(?i)\bbuilds,? (?:and|&) (?:the )?tests? (?:clean(?:ly)?|green|successfully){_END}"
)


def read_check_claims(sentence: str, words: str, context: str) -> list[Claim]:
    """The claims of one sentence; ``context`` is the sentence before it."""
    claims: list[Claim] = []
    plain = sentence if sentence.isascii() else _MARKS.sub(" ", sentence)
    if "%" in plain:
        plain = _ALL_OF.sub("all ", plain)
    lowered = plain.lower()
    names_tests = "test" in lowered or "suite" in lowered or "spec" in lowered
    for match in _TESTS.finditer(plain) if names_tests else ():
        start = match.start("quant") if match.group("quant") else match.start("noun")
        if not is_asserted(plain, start, match.end("verb")):
            continue
        if match.group("paren") and is_negated(match.group("paren")):
            continue
        claim = _tests_claim(plain, match, words)
        if claim is not None:
            claims.append(claim)
            claims += _listed(match.group("list"), words)
    zero = _ZERO_FAILED.search(plain) if "fail" in lowered or "error" in lowered else None
    if zero and is_asserted(plain, zero.start(), zero.start() + 1):
        claims.append(Claim("tests", words, count=int(zero.group("num").replace(",", ""))))
    for pattern in (_RUNNER_PASSES, _AND_EVERYTHING, _NO_TEST_FAILURES) if not claims else ():
        found = pattern.search(plain)
        if found and is_asserted(plain, found.start(), found.end(), own_negation=True):
            runner = found.groupdict().get("runner")
            claims.append(Claim("tests", words, scope=(runner.lower(),) if runner else ()))
            break
    hooks = _HOOKS.search(plain) if "hook" in lowered else None
    if hooks and is_asserted(plain, hooks.start(), hooks.end()):
        for kind in _kinds_in(hooks.group("what") or ""):
            if all(claim.kind != kind for claim in claims):
                claims.append(Claim(kind, words, subject="hooks"))
    if (
        not claims
        and ("pass" in lowered or "green" in lowered or "failures" in lowered)
        and (_TEST_WORD.search(plain) or _TEST_WORD.search(context))
    ):
        pronoun = _PRONOUN.search(plain)
        if pronoun and is_asserted(plain, pronoun.start(), pronoun.end(), own_negation=True):
            part = pronoun.group("part")
            claims.append(Claim("tests", words, count=int(part.replace(",", "")) if part else None))
    if "builds" in lowered and not claims:
        both = _BUILDS_AND_PASSES.search(plain) or _BUILDS_AND_TESTS.search(plain)
        if both and is_asserted(plain, both.start(), both.end()):
            claims += [Claim("build", words), Claim("tests", words)]
    for kind, hint, pattern in _OTHER_CHECKS:
        if not hint.search(lowered) or any(claim.kind == kind for claim in claims):
            continue
        for match in pattern.finditer(plain):
            if is_asserted(plain, match.start(), match.end(), own_negation=True):
                claims.append(Claim(kind, words, scope=_tool_named(match.group())))
                if kind == "lint" and match.group("mid"):
                    claims += _listed(match.group("mid"), words)
                break
    if not claims and (_SIDES.match(plain) or _ONLY_GREEN.match(plain)):
        claims.append(Claim("all_checks", words, total=True))
    if not claims and _EVERYTHING_START.match(plain):
        green = _EVERYTHING.search(plain)
        if green and is_asserted(plain, green.start(), green.end()):
            claims.append(Claim("all_checks", words, total=True))
    return claims


_OTHER_CHECKS: tuple[tuple[ClaimKind, re.Pattern[str], re.Pattern[str]], ...] = (
    ("lint", re.compile(r"lint|ruff|clippy|credo|biome|flake8"), _LINT),
    ("types", re.compile(r"type|tsc|mypy|pyright"), _TYPES),
    ("build", re.compile(r"build|compiles"), _BUILD),
)


_TOOL = re.compile(
    r"(?i)\b(?:eslint|ruff|golangci-lint|clippy|credo|biome|flake8|pylint|rubocop|tsc|mypy|pyright)\b"
)


def _tool_named(words: str) -> tuple[str, ...]:
    named = _TOOL.search(words)
    return (named.group().lower(),) if named else ()


def _tests_claim(sentence: str, match: re.Match[str], words: str) -> Claim | None:
    """The claim that tests pass: all, a number, some kind; ``None`` if it is of a share only."""
    qualifiers: list[str] = []
    for word in reversed(match.group("qual").split()):
        word = word.strip("`*'").lower()
        if word in _NO_QUALIFIERS or not any(map(str.isalnum, word)):
            break
        if word in _NUMBER_WORDS:
            word = str(_NUMBER_WORDS[word])
        if word not in _GENERIC_QUALIFIERS:
            qualifiers.insert(0, word)
    if re.search(r"\d ?% of", sentence[: match.start("noun")]):
        return None
    if _PARTIAL & set(qualifiers) or _PART_OF.search(match.group("qual")):
        return None
    number = match.group("num")
    numbers = [word for word in qualifiers if word.replace(",", "").isdigit()]
    if number is None and len(numbers) == 1 and numbers[0] == qualifiers[0]:
        number = qualifiers.pop(0)
    if number is None and match.group("paren") and match.group("paren").strip().isdigit():
        number = match.group("paren").strip()
    count = int(number.replace(",", "")) if number else None
    shares = list(_SHARE.finditer(sentence, 0, match.start("noun")))
    if shares and shares[-1].end() >= match.start("noun") - len(match.group("qual")) - 8:
        part, whole = (int(shares[-1].group(name).replace(",", "")) for name in ("part", "whole"))
        if part != whole:
            return None
        count = whole
        qualifiers = [word for word in qualifiers if not word[0].isdigit()]
    said = match.group()[: match.start("noun") - match.start()]
    place = match.group().find(number) if number else -1
    if number is not None and place >= 0 and "(" + number not in match.group():
        before = sentence[: match.start() + place]
        if _NUMBERED_THING.search(before) or (count in _STATUS_CODES and not match.group("quant")):
            qualifiers.append(number)
            count = None
    scope = tuple(word for word in qualifiers if word not in _OWN and len(word) > 1)
    narrowing = [word for word in qualifiers if word not in _WHOLE_KINDS]
    if match.group("where"):
        scope += (match.group("where").split("`")[1],)
        narrowing.append(scope[-1])
    total = _TOTAL.search(said) is not None and not narrowing
    noun = match.group("noun").lower()
    if "suites" in noun or noun.startswith("spec") or "case" in noun:
        count = None  # of files or parts, which runners count apart
    return Claim(
        "tests",
        words,
        total=total or (bool(shares) and not narrowing) or ("suite" in noun and not narrowing),
        count=count,
        qualified=bool(narrowing) or bool(match.group("paren") and not number),
        scope=scope,
    )


def _kinds_in(text: str) -> list[ClaimKind]:
    return [kind for kind, pattern in _LISTED.items() if pattern.search(text)]  # type: ignore[misc]


def _listed(text: str, words: str) -> list[Claim]:
    return [Claim(kind, words) for kind in _kinds_in(text)] if text else []
