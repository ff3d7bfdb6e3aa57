"""Which command lines run checks, and how wide: the known runners by their first words."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

CheckKind = Literal["tests", "lint", "types", "build"]


@dataclass(frozen=True, slots=True)
class Runner:
    """A recognised check. ``subset`` is true when the arguments name only a part. ``bundled``: the
    command runs this among other checks, so that a failure may be another's."""

    kind: CheckKind
    name: str
    subset: bool = False
    bundled: bool = False


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
    "clippy": ("lint", "clippy"),
    "cargo-clippy": ("lint", "clippy"),
    "nosetests": ("tests", "nose"),
    "nose2": ("tests", "nose"),
    "trial": ("tests", "trial"),
    "pest": ("tests", "phpunit"),
    "prove": ("tests", "prove"),
    "busted": ("tests", "busted"),
    "phpstan": ("types", "phpstan"),
    "oxlint": ("lint", "oxlint"),
    "ktlint": ("lint", "ktlint"),
    "swiftlint": ("lint", "swiftlint"),
    "staticcheck": ("lint", "staticcheck"),
    "hadolint": ("lint", "hadolint"),
    "yamllint": ("lint", "yamllint"),
    "markdownlint": ("lint", "markdownlint"),
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
    ("ninja", "test"): ("tests", "ctest"),
    ("xcodebuild", "test"): ("tests", "xcodebuild"),
    ("meson", "test"): ("tests", "meson"),
    ("dart", "test"): ("tests", "dart test"),
    ("flutter", "test"): ("tests", "flutter test"),
    ("dart", "analyze"): ("lint", "dart analyze"),
    ("flutter", "analyze"): ("lint", "dart analyze"),
    ("sbt", "test"): ("tests", "sbt"),
    ("lein", "test"): ("tests", "lein"),
    ("stack", "test"): ("tests", "stack"),
    ("cabal", "test"): ("tests", "cabal"),
    ("zig", "test"): ("tests", "zig"),
    ("zig", "build"): ("build", "zig"),
    ("dune", "test"): ("tests", "dune"),
    ("dune", "runtest"): ("tests", "dune"),
    ("dune", "build"): ("build", "dune"),
    ("hatch", "test"): ("tests", "pytest"),
    ("node", "--test"): ("tests", "node test"),
    ("tsx", "--test"): ("tests", "node test"),
    ("artisan", "test"): ("tests", "phpunit"),
    ("bin/rails", "test"): ("tests", "rails test"),
    ("composer", "test"): ("tests", "composer test"),
}
_WITH_SECOND = frozenset(program for program, _ in _SECOND)
_CHECKS_OF_ALL_KINDS = re.compile(
    r"^(?:check|ci|verify|validate|qa|preflight|pre-?commit|pre-?submit|pre-?push|(?:check|test)[-:_]all"
    r"|all|all[-:_]checks)$",
    re.I,
)
_ALL_KINDS: tuple[CheckKind, ...] = ("tests", "lint", "types", "build")
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
    "--list-tests", "--listTests", "--init", "--showConfig", "--show-config", "--dry-run",
    "--fixtures", "--markers", "--setup-plan", "--clearCache",
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
_VERBS_OF_TASKS = frozenset(("run", "run-many", "affected", "exec", "-t", "--targets", "//..."))
_PATH_LIKE = re.compile(r"[/\\]|\.\w{1,5}$|::")
_WHOLE_PATHS = frozenset((
    "tests", "tests/", "test", "test/", "./tests", "./test", ".", "./", "./...", "src", "spec",
    "spec/", "src/", "__tests__",
))  # fmt: skip


@lru_cache(maxsize=4096)
def recognise(words: tuple[str, ...]) -> tuple[Runner, ...]:
    """The checks that a simple command runs. ``words`` as from ``parse_command``."""
    if not words:
        return ()
    program = words[0]
    if program in _TASK_RUNNERS:
        return _task(words)
    if program in ("mvn", "mvnw", "gradle", "gradlew"):
        return _jvm(program, words[1:])
    if program in _PACKAGE_MANAGERS:
        return _package_script(words)
    found = _direct(words)
    return (found,) if found else ()


def is_known(words: tuple[str, ...]) -> bool:
    """Is it a runner, whether or not it runs anything here?"""
    return words[0] in _DIRECT or words[:2] in _SECOND


def _direct(words: tuple[str, ...]) -> Runner | None:
    program = words[0]
    second = words[1] if len(words) > 1 else ""
    rest = words[1:]
    found: tuple[CheckKind, str] | None = None
    if program in _WITH_SECOND and second.startswith("-") and (program, second) not in _SECOND:
        bare = next((place for place, word in enumerate(rest, 1) if not word.startswith("-")), 0)
        second, rest = words[bare] if bare else "", words[1:bare] + words[bare + 1 :]
        if (program, second) in _SECOND:
            found = _SECOND[program, second]
    elif (program, second) in _SECOND:
        found, rest = _SECOND[program, second], words[2:]
    elif program in _DIRECT:
        found = _DIRECT[program]
        if program == "vitest" and second in ("run", "watch"):
            rest = words[2:]
        if program == "biome" and second not in ("check", "lint", "ci"):
            return None
        if program == "pre-commit" and second != "run":
            return None
        if program == "vitest" and second == "list":
            return None
        if program == "xcodebuild" and "test" in rest:
            found = ("tests", "xcodebuild")
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
    if found is None or any(
        word in _NOT_A_RUN and not (word == "-V" and found[1] == "ctest") for word in rest
    ):
        return None
    if found[1] == "go test" and "-c" in rest:
        return None  # compiles the test binary only
    kind, name = found
    return Runner(kind, name, kind == "tests" and _is_subset(name, rest))


def _jvm(program: str, rest: tuple[str, ...]) -> tuple[Runner, ...]:
    """Maven's later phases and Gradle's ``build`` and ``check`` run the tests too."""
    tasks = [word.rsplit(":", 1)[-1] for word in rest]
    subset = any(word.startswith(("--tests", "-Dtest=")) for word in rest)
    skips = any(word.startswith(("-DskipTests", "-Dmaven.test.skip")) for word in rest) or (
        "-x" in rest and "test" in tasks
    )
    if skips:
        tasks = [task for task in tasks if task != "test"]
    last = next((task for task in reversed(tasks) if task in _JVM_TASKS), None)
    if last is None or any(word in ("--dry-run", "-m", "--help") for word in rest):
        return ()
    kind = _JVM_TASKS[last]
    runners = [Runner(kind, program, subset and kind == "tests")]
    if last in ("package", "install", "build", "deploy") and not skips:
        runners.append(Runner("tests", program, subset, bundled=True))
    if kind == "tests":
        runners.append(Runner("build", program, bundled=True))
    return tuple(runners)


def _package_script(words: tuple[str, ...]) -> tuple[Runner, ...]:
    position = 1
    subset = False
    while position < len(words) and words[position].startswith("-"):
        takes_value = words[position] in ("-C", "--prefix", "--filter", "-F", "-w", "--workspace")
        position += 2 if takes_value else 1
    if position < len(words) and words[position] in ("workspace", "recursive", "workspaces"):
        position += 2 if words[position] == "workspace" else 1
    if position < len(words) and words[position] in ("run", "run-script", "t", "x", "dlx", "exec"):
        script = "test" if words[position] == "t" else ""
        position += 1
        while position < len(words) and words[position].startswith("-"):
            position += 1
        if not script and position < len(words):
            script = words[position]
            position += 1
        is_named = True
    else:
        script = words[position] if position < len(words) else ""
        position += 1
        is_named = False
    rest = tuple(word for word in words[position:] if word != "--")
    if not script or any(word in _NOT_A_RUN for word in rest):
        return ()
    if script in _DIRECT:
        return recognise((script, *rest))
    if _CHECKS_OF_ALL_KINDS.match(script) and (is_named or script not in ("ci", "all")):
        return tuple(Runner(kind, f"{words[0]} {script}", bundled=True) for kind in _ALL_KINDS)
    kind = _script_kind(script)
    if not kind:
        return ()
    subset = kind == "tests" and _is_subset(f"{words[0]} {script}", rest)
    return (Runner(kind, f"{words[0]} {script}", subset),)


def _task(words: tuple[str, ...]) -> tuple[Runner, ...]:
    """``make lint test``, ``nx run-many -t test build``, ``just ci``: one check for each target."""
    program = words[0]
    if any(word in ("-n", "--dry-run", "--list", "--help", "--summary") for word in words[1:]):
        return ()
    targets: list[str] = []
    takes_value = False
    for word in words[1:]:
        if takes_value or (word.isdigit() and not targets):
            takes_value = False
        elif word in (
            "-C",
            "-f",
            "--directory",
            "--file",
            "--justfile",
            "-d",
            "-p",
            "--projects",
            "--filter",
        ):
            takes_value = True
        elif word.startswith(("--target=", "--targets=", "-t=")):
            targets += word.split("=", 1)[1].split(",")
        elif not word.startswith("-") and "=" not in word and word not in _VERBS_OF_TASKS:
            targets += word.split(",")
    if not targets:
        return (Runner("build", program),) if program in ("make", "gmake") else ()
    runners: list[Runner] = []
    if program == "bazel":
        targets = targets[:1]
    for target in targets:
        bare = target.lstrip("/")
        if _CHECKS_OF_ALL_KINDS.match(bare) and (bare != "all" or program == "make"):
            kinds = _ALL_KINDS if bare != "all" else ("build",)
            runners += [
                Runner(kind, f"{program} {target}", bundled=bare != "all") for kind in kinds
            ]
            continue
        kind = _script_kind(target)
        if kind:
            runners.append(Runner(kind, f"{program} {target}"))
    if len({runner.kind for runner in runners}) > 1 and not any(r.bundled for r in runners):
        return tuple(replace(runner, bundled=True) for runner in runners)
    return tuple(runners)


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
