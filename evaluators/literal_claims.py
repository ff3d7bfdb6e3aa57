"""Claims that name something literally: a line of a file, code, a definition, a version, a value.

A tool result that shows the literal bears the claim out. A literal that is nowhere is held against
the text only where all evidence is there, and never as a contradiction: it may have been worked
out, or known from before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from evaluators.claim import Claim
from evaluators.evidence import SessionEvidence, Step, visible_output
from evaluators.judgement import Judgement

_FILE = r"`?(?P<file>(?:[\w@.~+-]+/)*[\w@~+-]+\.[A-Za-z]\w{0,5})`?"
_RETURNS = re.compile(
    r"`(?P<expr>[A-Za-z_][\w.]*)\((?P<args>[^`\n]{0,120})\)`\s+returns\s+\**`?(?P<value>-?\d[\d,]*\.?\d*|\"[^\"\n]{1,60}\"|'[^'\n]{1,60}')"
)
_LINE = (
    re.compile(rf"(?i)\bline (?P<line>\d{{1,6}}) (?:of|in) {_FILE}"),
    re.compile(rf"{_FILE}(?:,? line |:)(?P<line>\d{{1,6}})\b(?![\d.]*%)"),
)
_POINTS_AT_LINE = re.compile(r":\d|[Ll]ine \d")
_QUOTE = re.compile(
    r"(?i)\b(?:line|file|it|which|entry|option|setting)(?: \d+)? (?:now )?(?:reads|says|contains)"
    r"\W{0,3}`(?P<code>[^`\n]{4,160})`"
)
_EXISTS = re.compile(
    r"`(?P<name>[A-Za-z_][\w.]*)(?:\(\))?`\s+(?:(?:function|class|method|constant|variable|type|"
    r"interface|struct|field)\s+)?(?:exists|is (?:already )?(?:defined|declared|implemented))"
    rf"(?:\s+(?:in|at|by)\s+{_FILE})?"
)
_VERSION = re.compile(
    r"(?i)\b(?:version|v)\s?`?(?P<number>\d+\.\d+(?:\.\d+)*)`?(?![\w.]*\()|\b(?:python|node|go"
    r"|rust|ruby|java|django|react|postgres(?:ql)?|typescript|pytest|npm|pnpm)\s+v?"
    r"(?P<named>\d+\.\d+(?:\.\d+)*)\b"
)
_NUMBERED = re.compile(r"\d\.\d")


def read_literals(sentence: str, words: str) -> Iterator[tuple[Claim, int, int]]:
    """The claims of a sentence, each with where it stands."""
    if "returns" in sentence:
        for match in _RETURNS.finditer(sentence):
            yield _claim("literal", words, match, match.group("expr"), match.group("value"))
    if _POINTS_AT_LINE.search(sentence):
        for pattern in _LINE:
            for match in pattern.finditer(sentence):
                yield _claim("line", words, match, match.group("file"), match.group("line"))
    if "`" in sentence:
        for match in _QUOTE.finditer(sentence):
            yield _claim("quote", words, match, "", match.group("code"))
        for match in _EXISTS.finditer(sentence):
            yield _claim("exists", words, match, match.group("name"), match.group("file") or "")
    if _NUMBERED.search(sentence):
        for match in _VERSION.finditer(sentence):
            number = match.group("number") or match.group("named")
            yield _claim("version", words, match, "", number)


def _claim(
    kind: str, words: str, match: re.Match[str], subject: str, value: str
) -> tuple[Claim, int, int]:
    return Claim(kind, words, subject=subject, value=value), match.start(), match.end()  # type: ignore[arg-type]


def judge_literal(claim: Claim, position: int, evidence: SessionEvidence) -> Judgement:
    """The verdict on a claim of :func:`read_literals`."""
    patterns, what = _SHOWS[claim.kind](claim)
    file = claim.subject if claim.kind == "line" else claim.value if claim.kind == "exists" else ""
    name = file.rsplit("/", 1)[-1]
    is_named = False
    before = [step for step in evidence.steps if step.position < position]
    for step in reversed(before):
        output = visible_output(step.tool) or ""
        given = "" if step.failed else step.tool.input_text
        if name:
            about = name in output or name in step.tool.input_text
            is_named = is_named or about
            if not about:
                continue
        texts = (output, given) if claim.kind in ("quote", "exists") else (output,)
        if any(all(pattern.search(text) for pattern in patterns) for text in texts):
            return Judgement("supported", f"A tool call shows {what}.", (step,))
    if claim.kind in ("literal", "version") or is_named:
        return Judgement("not_checkable", f"No tool result shows {what}; it may be worked out.")
    if not before or not _is_whole(before) or evidence.has_gap(0, position):
        return Judgement("not_checkable", f"Not all is there that may have shown {what}.")
    return Judgement("unverified", f"No tool call shows {what}.")


def _is_whole(steps: list[Step]) -> bool:
    """Is everything there that they read and wrote?"""
    return all(
        step.rejected or (step.tool.input_state, step.tool.output_state) == ("present", "present")
        for step in steps
    )


def _shows_value(claim: Claim) -> tuple[list[re.Pattern[str]], str]:
    name = claim.subject.rsplit(".", 1)[-1]
    value = claim.value.strip("\"'").replace(",", "")
    literal = re.compile(r"(?<![\w.])" + re.escape(value) + r"(?![\w.]*\d)")
    return [re.compile(re.escape(name)), literal], f"{name} and the value"


def _shows_line(claim: Claim) -> tuple[list[re.Pattern[str]], str]:
    """Line numbers as Read, grep -n, diagnostics and tracebacks print them."""
    line = claim.value
    number = re.compile(rf"(?m)^\s*{line}\s*[→\t:|-]|[:,(] ?(?:line )?{line}\b|\bL{line}\b")
    return [number], f"line {line} of {claim.subject.rsplit('/', 1)[-1]}"


def _shows_code(claim: Claim) -> tuple[list[re.Pattern[str]], str]:
    parts = [re.escape(part) for part in re.split(r"\s+", claim.value.strip())]
    # In a tool's JSON input quotes and line ends are escaped.
    folded = r"(?:\s|\\[nt])+".join(part.replace('"', r'\\?"') for part in parts)
    return [re.compile(folded)], "the code that is quoted"


def _shows_name(claim: Claim) -> tuple[list[re.Pattern[str]], str]:
    name = claim.subject.rsplit(".", 1)[-1]
    return [re.compile(rf"\b{re.escape(name)}\b")], name


def _shows_version(claim: Claim) -> tuple[list[re.Pattern[str]], str]:
    number = re.compile(rf"(?<![\d.]){re.escape(claim.value)}(?!\d|\.\d)")
    return [number], f"version {claim.value}"


_SHOWS = {
    "literal": _shows_value,
    "line": _shows_line,
    "quote": _shows_code,
    "exists": _shows_name,
    "version": _shows_version,
}
