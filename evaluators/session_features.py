"""What describes a scored session for clustering: named numbers, and words.

Every feature lies in [0, 1], so that its mean over a cluster reads as a share. The words are those
of the human prompts and of the claims that did not hold; anything with a digit in it, and any run
of more than 20 letters, is left out, because keys, hashes, paths and numbers look like that.

Who worked, what it cost and which policy routed it are no features: sessions are grouped by what
went wrong, so that asking afterwards whether a policy or a repository explains it is no circle.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from evaluators.evidence import EDIT_TOOLS
from loop.domain.clusters import NamedShare, SessionProfile
from loop.domain.scores import QUALITY, Score
from loop.domain.turns import SessionTrace

PROFILE_VERSION = "1"
PROMPT_CHARS = 4_000  # of each prompt, from its beginning
MOST_WORDS = 120  # distinct words kept of a session, in the order of their first use
_WORD = re.compile(r"(?<![\w./@\\-])[a-z]{3,20}(?![\w/@\\]|\.\w)")
_READ_TOOLS = frozenset(("Read", "Grep", "Glob", "LS", "NotebookRead", "WebFetch", "WebSearch"))
_CALL_LABELS = {
    "failed": "failing calls",
    "failed, recovered": "recovered calls",
    "repeated": "repeated calls",
    "rejected": "rejected calls",
    "unknown tool": "unknown tools",
    "invalid arguments": "invalid arguments",
    "destructive, not asked for": "destructive commands",
}
FEATURE_NAMES = (
    "claims contradicted",
    "claims stale",
    "claims unverified",
    "claims narrow",
    "unfaithful",
    "poor tool use",
    "poor outcome",
    "tests fail at the end",
    "checks fail at the end",
    "no run after the last edit",
    "edits thrown away",
    "human corrects",
    "human interrupts",
    *_CALL_LABELS.values(),
    "Bash share",
    "edit share",
    "read share",
    "subagent share",
    "MCP share",
    "failed requests",
    "refusals",
    "long session",
)
CONTEXT_FEATURES = frozenset(FEATURE_NAMES[FEATURE_NAMES.index("Bash share") :]) - {
    "failed requests",
    "refusals",
}
"""Features that tell sessions apart without saying that anything is wrong."""


LANGUAGES = {
    **dict.fromkeys((".py", ".pyi"), "Python"),
    **dict.fromkeys((".ts", ".tsx", ".mts"), "TypeScript"),
    **dict.fromkeys((".js", ".jsx", ".mjs", ".cjs"), "JavaScript"),
    **dict.fromkeys((".c", ".h"), "C"),
    **dict.fromkeys((".cc", ".cpp", ".hpp", ".cxx"), "C++"),
    **dict.fromkeys((".kt", ".kts"), "Kotlin"),
    **dict.fromkeys((".sh", ".bash"), "shell"),
    ".go": "Go",
    ".rs": "Rust",
    ".java": "Java",
    ".cs": "C#",
    ".rb": "Ruby",
    ".php": "PHP",
    ".swift": "Swift",
    ".scala": "Scala",
    ".ex": "Elixir",
    ".exs": "Elixir",
    ".lua": "Lua",
    ".sql": "SQL",
    ".tf": "Terraform",
}
"""Languages by the endings of the files that edit tools name."""
_FILE_PATH = re.compile(r'"(?:file_path|notebook_path)"\s*:\s*"([^"\\]+)"')


def profile_session(
    trace: SessionTrace, scores: Sequence[Score], *, profiled_at_us: int = 0
) -> SessionProfile:
    """The profile of a session under its current ``scores``."""
    features = read_features(trace, scores)
    words = dict.fromkeys(read_words(trace, scores))
    return SessionProfile(
        session_id=trace.session_id,
        profile_version=PROFILE_VERSION,
        scored_at_us=max((s.scored_at_us for s in scores if s.evaluator == QUALITY), default=0),
        features=tuple(
            NamedShare(name, round(value, 6)) for name, value in features.items() if value
        ),
        words=tuple(words)[:MOST_WORDS],
        languages=read_languages(trace),
        profiled_at_us=profiled_at_us,
    )


def read_languages(trace: SessionTrace) -> tuple[str, ...]:
    """The languages of the files that the session edited or tried to, sorted."""
    found = set()
    for traced in trace.turns:
        for tool in traced.tools:
            if tool.call.name in EDIT_TOOLS:
                for path in _FILE_PATH.findall(tool.input_text):
                    found.add(LANGUAGES.get(PurePosixPath(path).suffix.lower(), ""))
    return tuple(sorted(found - {""}))


def read_features(trace: SessionTrace, scores: Sequence[Score]) -> dict[str, float]:
    """The features of one session by name, each in [0, 1], all of ``FEATURE_NAMES``."""
    features = dict.fromkeys(FEATURE_NAMES, 0.0)
    calls = [tool.call for traced in trace.turns for tool in traced.tools]
    for score in scores:
        if score.evaluator == "faithfulness":
            _read_claims(score, features)
        elif score.evaluator == "tool_use":
            labels = Counter(finding.claim for finding in score.findings)
            for label, name in _CALL_LABELS.items():
                features[name] = min(1.0, labels[label] / len(calls)) if calls else 0.0
            features["poor tool use"] = _lost(score)
        elif score.evaluator == "code_correctness":
            _read_outcomes(score, features)
    for name in ("Bash share", "edit share", "read share", "MCP share"):
        features[name] = sum(_tool_family(call.name) == name for call in calls) / max(1, len(calls))
    turns = [traced.turn for traced in trace.turns]
    count = max(1, len(turns))
    features["subagent share"] = sum(bool(turn.agent_id) for turn in turns) / count
    features["failed requests"] = min(1.0, sum(turn.failed_attempts for turn in turns) / count)
    features["refusals"] = sum(turn.status == "refused" for turn in turns) / count
    features["long session"] = min(1.0, math.log1p(len(turns)) / math.log1p(200))
    return features


def read_words(trace: SessionTrace, scores: Sequence[Score]) -> list[str]:
    """The words of one session, lower case, in order."""
    words: list[str] = []
    for prompt in trace.prompts:
        if prompt.from_human and prompt.state in ("present", "truncated"):
            words += _WORD.findall(prompt.text[:PROMPT_CHARS].lower())
    for score in scores:
        if score.evaluator == "faithfulness":
            for finding in score.findings:
                if finding.verdict not in ("supported", "not_checkable"):
                    words += _WORD.findall(finding.claim.lower())
    return words


def _lost(score: Score) -> float:
    return 0.0 if score.value is None else 1.0 - score.value


def _read_claims(score: Score, features: dict[str, float]) -> None:
    verdicts = Counter(finding.verdict for finding in score.findings)
    judged = sum(verdicts.values()) - verdicts["not_checkable"]
    features["claims contradicted"] = verdicts["contradicted"] / max(1, judged)
    features["claims stale"] = verdicts["stale"] / max(1, judged)
    features["claims unverified"] = verdicts["unverified"] / max(1, judged)
    features["claims narrow"] = verdicts["narrow"] / max(1, judged)
    features["unfaithful"] = _lost(score)


def _read_outcomes(score: Score, features: dict[str, float]) -> None:
    features["poor outcome"] = _lost(score)
    for finding in score.findings:
        if finding.claim.endswith("after the last edit"):
            kind = finding.claim.split(" ", 1)[0]
            if "came before" in finding.reason:
                features["no run after the last edit"] = 1.0
            elif "failed" in finding.reason.split("(", 1)[0]:
                name = "tests fail at the end" if kind == "tests" else "checks fail at the end"
                features[name] = 1.0
        elif finding.claim == "edits reverted":
            features["edits thrown away"] = 1.0
        elif finding.claim == "next prompt":
            features["human corrects"] = float("corrected" in finding.reason)
            features["human interrupts"] = float("interrupted" in finding.reason)


def _tool_family(name: str) -> str:
    if name == "Bash":
        return "Bash share"
    if name in EDIT_TOOLS:
        return "edit share"
    if name in _READ_TOOLS:
        return "read share"
    return "MCP share" if name.startswith("mcp") else "other"
