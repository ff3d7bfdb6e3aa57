"""Can an edit change what a check says? Yes, no, or it can't be told.

An edit that makes an earlier run stale must be one that a careful reader would hold against it: of
code that the runner reads, and of more than a comment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

from evaluators.evidence import Check, FileEdit, Step

_SUFFIX = re.compile(r"\.(\w{1,8})$")
_LANGUAGES = {
    "python": frozenset(("py", "pyi", "pyx", "ipynb")),
    "web": frozenset(
        ("js", "jsx", "ts", "tsx", "mjs", "cjs", "mts", "cts", "vue", "svelte", "astro")
    ),
    "go": frozenset(("go",)),
    "rust": frozenset(("rs",)),
    "jvm": frozenset(("java", "kt", "kts", "scala", "groovy", "gradle")),
    "ruby": frozenset(("rb", "erb", "rake")),
    "php": frozenset(("php",)),
    "elixir": frozenset(("ex", "exs", "heex", "eex")),
    "c": frozenset(("c", "cc", "cpp", "h", "hpp", "cxx")),
    "dotnet": frozenset(("cs", "fs", "vb", "csproj")),
    "swift": frozenset(("swift",)),
    "shell": frozenset(("sh", "bash", "zsh")),
}
_LANGUAGE_OF = {suffix: name for name, suffixes in _LANGUAGES.items() for suffix in suffixes}
_LOOKS_ONLY = frozenset(
    ("css", "scss", "sass", "less", "html", "svg", "ico", "woff", "woff2", "lock", "sum")
)
_RUNNER_LANGUAGES = (
    (
        re.compile(
            r"pytest|unittest|^nose|django|^tox|^nox|^trial|mypy|pylint|flake8|^ruff|^black|\.py$"
        ),
        "python",
    ),
    (
        re.compile(
            r"jest|vitest|mocha|^ava|^(?:npm|pnpm|yarn|bun)\b|playwright|cypress|node test|deno"
            r"|eslint|biome|oxlint|prettier|tsc|svelte|^next|^vite"
        ),
        "web",
    ),
    (re.compile(r"^go |golangci|^gofmt|staticcheck"), "go"),
    (re.compile(r"^cargo|clippy"), "rust"),
    (re.compile(r"^(?:mvn|gradle|sbt|lein|javac|ktlint)"), "jvm"),
    (re.compile(r"rspec|rubocop|^rails"), "ruby"),
    (re.compile(r"phpunit|phpstan"), "php"),
    (re.compile(r"^mix|credo|dialyzer"), "elixir"),
    (re.compile(r"ctest|^gcc|^clang|cmake|ninja"), "c"),
    (re.compile(r"dotnet"), "dotnet"),
    (re.compile(r"^swift|xcodebuild"), "swift"),
)
_APART = re.compile(
    r"(?:^|/)(?:Dockerfile[\w.-]*|[\w.-]*\.Dockerfile|docker-compose[\w.-]*|\.env[\w.-]*|package-lock\.json"
    r"|pnpm-lock\.yaml|uv\.lock|\.npmrc|\.nvmrc|renovate\.json|VERSION|\.prettier\w*|\.editorconfig"
    r"|\.pre-commit-config\.yaml|\.dockerignore|Procfile|openapi[\w.-]*)$"
)
_SUBSTITUTION = re.compile(
    r"\bsed -i\S*\s+(?:-e\s+)?(?P<quote>['\"])s(?P<mark>[/|#,])(?P<old>[^'\"\n]{1,300}?)(?P=mark)"
    r"(?P<new>[^'\"\n]{0,300}?)(?P=mark)\w*(?P=quote)"
)
_COPY_BACK = re.compile(r"\b(?:mv|cp)\s+\S+\.(?:bak|orig|backup|save)\b")
_COMMENT_LINE = re.compile(
    r"^\s*(?:$|#(?!\[|!|\s*(?:type|noqa|pragma|include|define|if|endif))|//(?!go:)|/\*|\*|--\s|<!--|\"\"\"[^\"]*\"\"\"$)"
)


def can_change(edit: FileEdit, check: Check | None) -> bool | None:
    """Could ``edit`` change the outcome of a run like ``check``? ``None``: it can't be told."""
    if edit.is_code is not True:
        return edit.is_code
    path = edit.path or ""
    if _only_comments(edit.step):
        return None
    if check is None:
        return True
    if _APART.search(path):
        return True if check.kind == "build" and check.runner == "docker" else None
    found = _SUFFIX.search(path)
    suffix = found.group(1).lower() if found else ""
    if suffix in _LOOKS_ONLY:
        return True if check.kind == "build" and suffix not in ("lock", "sum") else None
    language = _LANGUAGE_OF.get(suffix)
    runs = language_of(check.runner)
    return None if language and runs and language != runs else True


def language_of(runner: str) -> str | None:
    """The language of a runner, ``None`` where it runs what it is told."""
    for pattern, language in _RUNNER_LANGUAGES:
        if pattern.search(runner):
            return language
    return None


def cancel_out(edits: Sequence[FileEdit]) -> bool:
    """Do the edits leave all as it was: each turned back by one that says the contrary?"""
    open_edits: list[tuple[str, str, str]] = []
    if edits and _COPY_BACK.search(edits[-1].step.command or ""):
        return True
    for edit in edits:
        replaced = replacement(edit.step)
        if replaced is None or not edit.path:
            return False
        old, new = replaced
        if (edit.path, new, old) in open_edits:
            open_edits.remove((edit.path, new, old))
        else:
            open_edits.append((edit.path, old, new))
    return bool(edits) and not open_edits


def replacement(step: Step) -> tuple[str, str] | None:
    """What an Edit, or ``sed -i s/…/…/``, replaced by what; ``None`` where it is not all there."""
    if step.command is not None:
        swapped = _SUBSTITUTION.search(step.command)
        return (swapped.group("old"), swapped.group("new")) if swapped else None
    if step.tool.call.name != "Edit" or step.tool.input_state != "present":
        return None
    try:
        given = orjson.loads(step.tool.input_text)
    except ValueError:
        return None
    if not isinstance(given, dict):
        return None
    old, new = given.get("old_string"), given.get("new_string")
    return (old, new) if isinstance(old, str) and isinstance(new, str) else None


def _only_comments(step: Step) -> bool:
    replaced = replacement(step)
    if replaced is None:
        return False
    if step.command is not None:
        return False
    old, new = (text.splitlines() for text in replaced)
    changed = [line for line in old if line not in new] + [line for line in new if line not in old]
    return bool(changed) and all(_COMMENT_LINE.match(line) for line in changed)
