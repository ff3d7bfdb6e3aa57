"""Which command lines run checks, and how wide: the known runners by their first words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

CheckKind = Literal["tests", "lint", "types", "build"]


@dataclass(frozen=True, slots=True)
class Runner:
    """A recognised check. ``subset`` is true when the arguments name only a part."""

    kind: CheckKind
    name: str
    subset: bool = False


_PACKAGE_MANAGERS = frozenset(("npm", "pnpm", "yarn", "bun"))
_TASK_RUNNERS = frozenset((
    "make", "just", "task", "mise", "rake", "invoke", "inv", "nx", "turbo", "bazel", "gmake",
))  # fmt: skip
_DIRECT: dict[str, tuple[CheckKind, str]] = {
    "pytest": ("tests", "pytest"),
    "py.test": ("tests", "pytest"),
    "unittest": ("tests", "unittest"),
    "jest": ("tests", "jest"),
    "vitest": ("tests", "vitest"),
    "mocha": ("tests", "mocha"),
    "ava": ("tests", "ava"),
    "rspec": ("tests", "rspec"),
    "phpunit": ("tests", "phpunit"),
    "ctest": ("tests", "ctest"),
    "tox": ("tests", "tox"),
    "nox": ("tests", "nox"),
    "bats": ("tests", "bats"),
    "gotestsum": ("tests", "go test"),
    "eslint": ("lint", "eslint"),
    "flake8": ("lint", "flake8"),
    "pylint": ("lint", "pylint"),
    "golangci-lint": ("lint", "golangci-lint"),
    "rubocop": ("lint", "rubocop"),
    "stylelint": ("lint", "stylelint"),
    "shellcheck": ("lint", "shellcheck"),
    "biome": ("lint", "biome"),
    "pre-commit": ("lint", "pre-commit"),
    "mypy": ("types", "mypy"),
    "pyright": ("types", "pyright"),
    "basedpyright": ("types", "pyright"),
    "tsc": ("types", "tsc"),
    "vue-tsc": ("types", "tsc"),
    "svelte-check": ("types", "svelte-check"),
    "gcc": ("build", "gcc"),
    "g++": ("build", "gcc"),
    "clang": ("build", "clang"),
    "javac": ("build", "javac"),
    "ninja": ("build", "ninja"),
    "xcodebuild": ("build", "xcodebuild"),
}
_SECOND: dict[tuple[str, str], tuple[CheckKind, str]] = {
    ("go", "test"): ("tests", "go test"),
    ("go", "build"): ("build", "go build"),
    ("go", "vet"): ("lint", "go vet"),
    ("cargo", "test"): ("tests", "cargo test"),
    ("cargo", "nextest"): ("tests", "cargo nextest"),
    ("cargo", "build"): ("build", "cargo build"),
    ("cargo", "check"): ("build", "cargo check"),
    ("cargo", "clippy"): ("lint", "clippy"),
    ("mix", "test"): ("tests", "mix test"),
    ("mix", "credo"): ("lint", "credo"),
    ("mix", "compile"): ("build", "mix compile"),
    ("mix", "dialyzer"): ("types", "dialyzer"),
    ("dotnet", "test"): ("tests", "dotnet test"),
    ("dotnet", "build"): ("build", "dotnet build"),
    ("swift", "test"): ("tests", "swift test"),
    ("swift", "build"): ("build", "swift build"),
    ("deno", "test"): ("tests", "deno test"),
    ("deno", "lint"): ("lint", "deno lint"),
    ("deno", "check"): ("types", "deno check"),
    ("playwright", "test"): ("tests", "playwright"),
    ("cypress", "run"): ("tests", "cypress"),
    ("ruff", "check"): ("lint", "ruff"),
    ("next", "build"): ("build", "next"),
    ("next", "lint"): ("lint", "next"),
    ("vite", "build"): ("build", "vite"),
    ("docker", "build"): ("build", "docker"),
    ("rails", "test"): ("tests", "rails test"),
    ("manage.py", "test"): ("tests", "django"),
    ("cmake", "--build"): ("build", "cmake"),
    ("golangci-lint", "run"): ("lint", "golangci-lint"),
}
_JVM_TASKS: dict[str, CheckKind] = {
    "test": "tests",
    "verify": "tests",
    "check": "tests",
    "package": "build",
    "compile": "build",
    "install": "build",
    "build": "build",
    "assemble": "build",
    "classes": "build",
}
_SCRIPT_KIND = (
    (re.compile(r"^(?:.*[:_-])?(?:tests?|specs?|e2e|vitest|jest)(?:$|[:_-])", re.I), "tests"),
    (re.compile(r"^(?:.*[:_-])?(?:lint|eslint)(?:$|[:_-])", re.I), "lint"),
    (
        re.compile(r"^(?:.*[:_-])?(?:type-?check|types|tsc|check-types|mypy)(?:$|[:_-])", re.I),
        "types",
    ),
    (re.compile(r"^(?:.*[:_-])?(?:build|compile)(?:$|[:_-])", re.I), "build"),
)
_TEST_SCRIPT = re.compile(r"^(?:run[-_]?)?(?:all[-_]?)?tests?(?:\.(?:sh|py))?$", re.I)
_TEST_MODULE = re.compile(r"^(?:test_\w+|\w+_test)\.py$")
_NOT_A_RUN = frozenset((
    "--version", "-V", "--help", "-h", "--collect-only", "--co", "-list", "--list",
    "--list-tests", "--listTests", "--init", "--showConfig", "--show-config", "--dry-run", "-n",
))  # fmt: skip
_SELECTION_FLAGS = frozenset((
    "-k", "-m", "-run", "--run", "-t", "--testNamePattern", "--grep", "-g", "--filter", "-f",
    "-E", "--only", "--lf", "--last-failed", "--ff", "--test", "--bin", "--example", "-p",
    "--package", "-R", "--testPathPattern", "--exact", "--tests", "--changed", "-o",
    "--findRelatedTests", "--related",
))  # fmt: skip
_SELECT_BY_NAME = frozenset((
    "cargo test", "vitest", "jest", "mix test", "go test", "unittest", "django", "runtests.py",
))  # fmt: skip
_PATH_LIKE = re.compile(r"[/\\]|\.\w{1,5}$|::")
_WHOLE_PATHS = frozenset((
    "tests", "tests/", "test", "test/", "./tests", "./test", ".", "./", "./...", "src", "spec",
    "spec/", "src/", "__tests__",
))  # fmt: skip


def recognise(words: tuple[str, ...]) -> Runner | None:
    """The check that a simple command runs, or ``None``. ``words`` as from ``parse_command``."""
    if not words:
        return None
    program = words[0]
    second = words[1] if len(words) > 1 else ""
    rest = words[1:]
    found: tuple[CheckKind, str] | None = None
    if (program, second) in _SECOND:
        found, rest = _SECOND[program, second], words[2:]
    elif program in _DIRECT:
        found = _DIRECT[program]
        if program == "vitest" and second in ("run", "watch"):
            rest = words[2:]
        if program == "biome" and second not in ("check", "lint", "ci"):
            return None
        if program == "pre-commit" and second != "run":
            return None
    elif program in _PACKAGE_MANAGERS:
        found, rest = _package_script(words)
    elif program in ("mvn", "mvnw", "gradle", "gradlew"):
        found = next(
            (
                (_JVM_TASKS[name], program)
                for name in (word.rsplit(":", 1)[-1] for word in reversed(rest))
                if name in _JVM_TASKS
            ),
            None,
        )
        rest = tuple(word for word in rest if word.startswith("--tests") or "-Dtest=" in word)
    elif program in _TASK_RUNNERS:
        found = _task(words)
        rest = ()
    elif program in ("prettier", "black") and "--check" in rest:
        found = ("lint", program)
    elif (program == "ruff" and second == "format" and "--check" in rest) or (
        program == "cargo" and second == "fmt" and "--check" in rest
    ):
        found = ("lint", f"{program} format")
    elif program == "gofmt" and "-l" in rest:
        found = ("lint", "gofmt")
    elif _TEST_SCRIPT.match(program) and program != "test":
        found = ("tests", program)
    elif _TEST_MODULE.match(program):
        return Runner("tests", program, subset=True)
    if found is None or any(word in _NOT_A_RUN for word in rest):
        return None
    if found[1] == "go test" and "-c" in rest:
        return None  # compiles the test binary only
    kind, name = found
    return Runner(kind, name, kind == "tests" and _is_subset(name, rest))


def _package_script(words: tuple[str, ...]) -> tuple[tuple[CheckKind, str] | None, tuple[str, ...]]:
    position = 1
    while position < len(words) and words[position].startswith("-"):
        takes_value = words[position] in ("-C", "--prefix", "--filter", "-F", "-w", "--workspace")
        position += 2 if takes_value else 1
    if position < len(words) and words[position] == "workspace":
        position += 2
    if position < len(words) and words[position] in ("run", "run-script", "t"):
        script = "test" if words[position] == "t" else ""
        position += 1
        while position < len(words) and words[position].startswith("-"):
            position += 1
    else:
        script = ""
    if not script:
        if position >= len(words):
            return None, ()
        script = words[position]
        position += 1
    rest = tuple(word for word in words[position:] if word != "--")
    if script in _DIRECT:
        inner = recognise((script, *rest))
        return ((inner.kind, inner.name), rest) if inner else (None, ())
    kind = _script_kind(script)
    return ((kind, f"{words[0]} {script}"), rest) if kind else (None, ())


def _task(words: tuple[str, ...]) -> tuple[CheckKind, str] | None:
    targets = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if targets[:1] == ["run"]:
        targets = targets[1:]
    if not targets:
        return ("build", words[0]) if words[0] == "make" and len(words) == 1 else None
    if targets[0] in ("check", "ci", "verify"):
        return ("tests", f"{words[0]} {targets[0]}")
    kind = _script_kind(targets[0])
    return (kind, f"{words[0]} {targets[0]}") if kind else None


def _script_kind(script: str) -> CheckKind | None:
    for pattern, kind in _SCRIPT_KIND:
        if pattern.match(script):
            return kind  # type: ignore[return-value]
    return None


def _is_subset(runner: str, rest: tuple[str, ...]) -> bool:
    takes_value = False
    for word in rest:
        if word.lstrip("0123456789&") in (">", ">>", "<"):
            takes_value = True  # a redirection's file is no test
            continue
        if takes_value:
            takes_value = False
            continue
        if word.split("=", 1)[0] in _SELECTION_FLAGS:
            return not (runner == "pytest" and word == "-p")
        if word.startswith("-Dtest") or "::" in word:
            return True
        if runner == "unittest" and word in ("-s", "--start-directory", "-t", "--top-level"):
            takes_value = True
            continue
        if word.startswith("-") or ">" in word or word in _WHOLE_PATHS:
            continue
        if runner == "unittest" and word == "discover":
            continue
        if runner == "go test" and word.endswith("/..."):
            if word != "./...":
                return True
            continue
        if _PATH_LIKE.search(word) and not word.startswith("/dev/"):
            return True
        if runner in _SELECT_BY_NAME and word != "run" and not word.isdigit():
            return True
    return False
