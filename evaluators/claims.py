"""The claim grammar: what an assistant's text asserts that tool results can bear out.

Built for precision: a sentence that is a question, a plan, a condition, a negation or a quotation
makes no claim, and a wording that the grammar doesn't know makes none either. English only.
"""

from __future__ import annotations

import re
from functools import lru_cache

from evaluators.assertions import BLANKS, is_asserted, is_negated
from evaluators.check_claims import read_check_claims
from evaluators.check_results import read_results
from evaluators.claim import Claim, ClaimKind
from evaluators.literal_claims import read_literals

_FENCE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.S)
_QUOTED_LINE = re.compile(r"(?m)^\s*(?:>|[-*] \[ \]).*$")  # or a box that is not ticked
_QUOTED = re.compile(r"[\"“][^\"”\n]{0,200}[\"”]")
# Runs of blanks are folded first and sentences cut at a length, so that matching stays linear in
# the text, whatever it holds.
_SENTENCE_END = re.compile(
    r"(?<=[.!?;])[ *_]{1,9}(?!\(?(?i:except|apart from|aside from|other than|ignoring|excluding))"
    r"| [—–] | -> "
)
SENTENCE_CHARS = 600
# Plain substrings are looked for before any pattern: most sentences have none of them.
_WORTH_READING = (
    "pass", "green", "clean", "succe", "error", "issue", "compil", "commit", "push", "creat", "add",
    "writ", "wrot", "updat", "modif", "edit", "chang", "fix", "delet", "remov", "renam", "could",
    "unable", "not exist", "returns", "opened", "exists", "defined", "declared", "version",
    "reads", "contains", "build", "warning", "✅", "✓", "✔", ": ok", "0 fail", "no fail",
    "test failures",
    "zero fail",
)  # fmt: skip
_CHECK_WORDS = (
    "pass", "green", "clean", "succe", "error", "issue", "compil", "build", "fail", "warning", "✅",
    "✓", "✔", ": ok", "0 fail", "no fail", "test failures",
    "zero fail",
)  # fmt: skip
_SAID_TO_PASS = re.compile(
    r"(?i)`[^`\n]*\b(?:pass(?:es|ed|ing)?|green|clean|success\w*)\b[^`\n]*`"
    r"|(?<!\w)'[^'\n]{0,80}\b(?:pass(?:es|ed|ing)?|green|clean)\b[^'\n]{0,80}'(?!\w)"
)
_TYPE_CHECKING = re.compile(r"(?i)\btype[- ]?checking\b")
_UNABLE = ("could", "unable", "not able", "failed to", "not allowed", "cannot", "can't")
_WRITES = ("creat", "add", "wrot", "updat", "modif", "edit", "delet", "remov", "renam")
_POINTS = re.compile(r"\.\w{1,5}:\d|\d\.\d|\bline \d")  # at a line of a file, or a version
_OF_EARLIER = re.compile(
    r"(?i)\b(?:previous|earlier|old|stale|last night's) (?:test )?run\b|\A\s*<(?:analysis|summary)>"
)
_PATH = r"`(?P<path>[\w@./~+-]*[\w-]\.[A-Za-z]\w{0,7}|[\w@.~+-]+/[\w@./~+-]*/)`"
_BARE_PATH = r"(?P<bare>(?:[\w@.~+-]+/)*[\w@~+-]+\.[A-Za-z]\w{0,4})\b"
_FILE = re.compile(
    rf"^\W*(?:(?:done|fixed|ok|okay|perfect|great)\W+)?(?:i(?:'ve| have)?\s+(?:also\s+)?|also\s+"
    rf"|then\s+|successfully\s+)?(?P<verb>[Cc]reated|[Aa]dded|[Ww]rote|[Uu]pdated|[Mm]odified"
    rf"|[Ee]dited|[Dd]eleted|[Rr]emoved|[Rr]enamed)\s+(?:the\s+)?(?:(?:new\s+|a\s+new\s+"
    rf"|a\s+)?(?:file\s+|test file\s+|module\s+))?\**(?:{_PATH}|{_BARE_PATH})",
    re.I,
)
_COMMIT = re.compile(
    r"(?i)(?:^\W*(?:(?:done|all|changes|everything|good|great|perfect|ok)\W+)*"
    r"|^[A-Z][a-z]+ed\b.{1,100}\band )committed\b(?=\s*(?:$"
    r"|[.:;,!—–(*`]|as\b|and\b|to\b|in\b|with\b|on\b|the (?:fix|change|changes|work|result"
    r"|tests?)\b|all\b|successfully\b|both\b))|\b(?:i|we)(?:'ve"
    r"| have)?\s+(?:also\s+)?committed\b|\b(?:changes|everything|work|fix|fixes|it|they|tests?"
    r"|files?|features?|branch|pass|task \d+)\s+(?:(?:is|are|was|were|has been|have been|and)\s+)+"
    r"(?:are\s+|is\s+|now\s+|all\s+)*committed\b|\bfix(?:es)? committed\b"
    r"|\bcommit (?:`[0-9a-f]{7,40}` )?(?:created|succeeded|successful|landed)\b"
)
_PUSH = re.compile(
    r"(?i)^\W*(?:(?:done|all|changes|everything|good|great|perfect"
    r"|ok)\W+)*(?:committed(?: as `?\w+`?)? and )?(?:force-)?pushed\b(?=\s*(?:$|[.:;,!—–(*`]"
    r"|as\b|and\b|to\b|up\b|with\b|the (?:fix|change|changes|branch|commits?)\b|branch\b|all\b"
    r"|both\b))|\b(?:i|we)(?:'ve| have)?\s+(?:also\s+)?(?:committed and\s+)?(?:force-)?pushed\b"
    r"(?!\s+(?:that|this|those|these|it|them|back|down|further|through|forward)\b(?! to (?:origin"
    r"|main|master|the (?:remote|branch)|github|gitlab|`)))"
    r"|\b(?:changes|everything|work|fix|it|they|branch|branches|commits?)\s+(?:(?:is|are|was"
    r"|were|has been|have been|and)\s+)+(?:committed and\s+)?pushed\b"
    r"|\b(?:both |all )?commits? pushed\b(?=\s*(?:$|[.,;!]|to\b|and\b))"
    r"|[,(]\s*(?:and\s+)?pushed\b(?=\s*(?:$|[.,;)!]|to\b|and\b))"
    r"|\b(?:clean|done|committed(?: \(`[0-9a-f]{7,40}`\))?) and pushed\b(?=\s*(?:$|[.,;:!]|to\b))"
)
_PR = re.compile(
    r"(?i)^\W*(?:i(?:'ve| have)?\s+)?(?:opened|created)\s+(?:a\s+|the\s+)?(?:draft\s+)?(?:pr\b"
    r"|pull request)|^\W*(?:the\s+)?(?:draft\s+)?(?:pr|pull request)\s+(?:is\s+)?(?:created|opened)"
    r"(?=\s*(?:$|[.:;,!—–*(`]|at\b|and\b|with\b|for\b|from\b|against\b))"
)
_VERSION_CONTROL: tuple[tuple[ClaimKind, str, re.Pattern[str]], ...] = (
    ("commit", "commit", _COMMIT),
    ("push", "push", _PUSH),
    ("pr", "p", _PR),
)
_OF_ANOTHER_KIND = re.compile(
    r"(?i)^\s*(?:to|in|on|by|into|onto|at|after|over) (?:the |a |an |one |each "
    r"|every )?(?:database|db|quality"
    r"|transactions?|browser|client|queue|stack|server|disk|offset|cause|team|ci\b|dependabot|exit|others?|plan|idea|goal|approach"
    r"|\w+bot\b)|^\s*by [A-Z@]|^\s+(?:yesterday|last|earlier|in 20\d\d)\b"
)
_NOT_WRITTEN = re.compile(
    r"(?i)^`?\**\s*(?:would|could|should|will|is shown|looks? like|as follows|below|\((?:proposed"
    r"|not|suggested"
    r"|draft|pending)|which (?:failed|was rejected)|in (?:my head|theory))"
)
_TO_A_LIST = re.compile(r"(?i)^`?\**\s*(?:to|into|in|as a)\b")
_HASH = re.compile(r"`([0-9a-f]{7,40})`")
_COULD_NOT = re.compile(
    r"(?i)\b(?:could not|couldn't|could n't|was unable to|unable to|was not able to|failed to"
    r"|was not allowed to|cannot|can't)\s+(?P<act>create|write|edit|update|run|delete|commit"
    r"|push|read|modify|access|open|find|execute|install|fetch)\b"
)
_NOT_THERE = re.compile(rf"(?i){_PATH}\s+(?:does not|doesn't)\s+exist\b")
_FAILING = re.compile(
    r"(?i)\b(?:tests?|suite|build|lint|type-?check)\s+(?:is |are |still |currently "
    r"|now )*(?:fail(?:s|ed|ing)?|red|broken)\b(?=\s*(?:$|[.,;:!)(]|\b(?:with|because|on|in|at"
    r"|due|and)\b))"
)


@lru_cache(maxsize=1024)
def read_claims(text: str) -> tuple[Claim, ...]:
    """The claims of one text, in order, each kind and subject once."""
    prose = _FENCE.sub("\n", text) if "```" in text or "~~~" in text else text
    if ">" in prose or "[ ]" in prose:
        prose = _QUOTED_LINE.sub("", prose)
    found: dict[tuple[str, str, int | None, bool, tuple[str, ...]], Claim] = {}
    if ("run" in prose or "<" in prose) and _OF_EARLIER.search(prose):
        return ()
    context = ""
    for line in prose.split("\n"):
        if len(line) < 4 or not _is_worth_reading(line.lower()):
            context = _with(context, line)
            continue
        if "  " in line or not (line.isascii() and line.isprintable()):
            line = BLANKS.sub(" ", line)
        parts = _SENTENCE_END.split(line)
        for sentence in parts:
            sentence = sentence[:SENTENCE_CHARS].strip()
            lowered = sentence.lower()
            if len(sentence) < 4 or (len(parts) > 1 and not _is_worth_reading(lowered)):
                context = _with(context, sentence)
                continue
            for claim in _sentence_claims(sentence, lowered, context):
                key = (claim.kind, claim.subject, claim.count, claim.qualified, claim.scope)
                found.setdefault(key, claim)
            context = _with(context, sentence)
    return tuple(found.values())


def _with(context: str, sentence: str) -> str:
    """The last two sentences: what "both" and "all three" are of."""
    return context.rpartition("\n")[2] + "\n" + sentence[:SENTENCE_CHARS]


def _is_worth_reading(lowered: str) -> bool:
    if _has(lowered, _WORTH_READING):
        return True
    return ("." in lowered or "line " in lowered) and _POINTS.search(lowered) is not None


def _has(lowered: str, parts: tuple[str, ...]) -> bool:
    return any(map(lowered.__contains__, parts))


def _sentence_claims(sentence: str, lowered: str, context: str) -> list[Claim]:
    if sentence.endswith("?"):
        return []
    words = _clip(sentence)
    claims: list[Claim] = []
    has_quotes = '"' in sentence or "“" in sentence
    unquoted = _QUOTED.sub("“”", sentence) if has_quotes else sentence
    for match in _COULD_NOT.finditer(unquoted) if _has(lowered, _UNABLE) else ():
        if not re.search(r"(?i)\b(?:user|you|if|when)\b", unquoted[: match.start()]):
            claims.append(Claim("failure", words, subject=match.group("act").lower()))
            return claims
    for match in _NOT_THERE.finditer(sentence) if "exist" in lowered else ():
        return [Claim("failure", words, subject="exist", value=match.group("path"))]
    for literal, start, end in read_literals(sentence, words):
        if is_asserted(sentence, start, end):
            claims.append(literal)
    if _has(lowered, _CHECK_WORDS):
        claims += _checks(unquoted, words, context)
    may_fail = "fail" in lowered or "red" in lowered or "broken" in lowered
    failing = _FAILING.search(unquoted) if may_fail else None
    if failing and is_asserted(unquoted, failing.start(), failing.end()):
        claims.append(Claim("failure", words, subject="check"))
    file_match = _FILE.search(sentence) if _has(lowered, _WRITES) else None
    if (
        file_match
        and not is_negated(sentence[: file_match.end()])
        and not _NOT_WRITTEN.match(sentence[file_match.end() :])
        and not (
            file_match.group("verb").lower() == "added"
            and _TO_A_LIST.match(sentence[file_match.end() :])
        )
    ):
        path = file_match.group("path") or file_match.group("bare")
        claims.append(Claim("file", words, subject=path, value=file_match.group("verb").lower()))
    for kind, hint, pattern in _VERSION_CONTROL:
        done = pattern.search(unquoted) if hint in lowered else None
        if done and _OF_ANOTHER_KIND.match(unquoted[done.end() :]):
            continue
        if done and is_asserted(unquoted, done.start(), done.end()):
            named = _HASH.search(sentence, done.end()) if kind == "commit" else None
            claims.append(Claim(kind, words, subject=named.group(1) if named else ""))
    return claims


def _checks(sentence: str, words: str, context: str) -> list[Claim]:
    """Claims of checks: in prose, else as a result beside a label or a command."""
    # What is said to print or to be written so is a quotation too.
    masked = _SAID_TO_PASS.sub("“”", sentence) if "`" in sentence or "'" in sentence else sentence
    masked = masked.replace("**", "").lstrip(" -*•>#")
    if "checking" in masked:
        masked = _TYPE_CHECKING.sub("typecheck", masked)
    claims = read_check_claims(masked, words, context)
    known = {claim.kind for claim in claims}
    return claims + [claim for claim in read_results(masked, words) if claim.kind not in known]


def _clip(sentence: str) -> str:
    """The words of a claim as they may be shown: no control characters, at most 160 characters."""
    if len(sentence) <= 160 and sentence.isprintable():
        return sentence
    shown = "".join(char if char.isprintable() else " " for char in sentence)
    return shown if len(shown) <= 160 else shown[:159] + "…"
