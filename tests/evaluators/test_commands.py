from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluators.commands import parse_command
from evaluators.runners import recognise


def runs(command: str) -> list[tuple[str, str, bool]]:
    found = [recognise(segment.words) for segment in parse_command(command).segments]
    return [(run.kind, run.name, run.subset) for runs in found for run in runs]


@pytest.mark.parametrize(
    ("command", "covered", "attributed"),
    [
        ("pytest", True, True),
        ("pytest 2>&1", True, True),
        ("cd a && pytest", True, True),
        ("cd a && . .venv/bin/activate && pytest && echo ok", True, True),
        ("pytest | tail -3", False, False),
        ("set -o pipefail; pytest | tee log", True, True),
        ("pytest || true", False, False),
        ("pytest; echo done", False, False),
        ("make all && pytest", True, False),
        ("pytest && git push", True, False),
        ("make all; pytest", True, True),
        ("pytest &", False, False),
        ("for f in a b; do pytest $f; done", False, False),
        ("test -f x || pytest", False, False),
        ("cat > a.py <<'EOF'\nx || true; y | z\nEOF\npytest", True, True),
    ],
)
def test_whose_exit_status_is_seen(command: str, covered: bool, attributed: bool) -> None:
    line = parse_command(command)
    index = next(i for i, s in enumerate(line.segments) if s.words[:1] == ("pytest",))
    assert line.success_covers(index) is covered
    assert line.failure_is_of(index) is attributed


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python3 -m unittest discover -s tests", ("tests", "unittest", False)),
        ("python -m pytest -q", ("tests", "pytest", False)),
        ("FOO=1 timeout 60 uv run --with x pytest -k 'a or b'", ("tests", "pytest", True)),
        ("pytest tests/test_a.py::test_b", ("tests", "pytest", True)),
        ("pytest tests", ("tests", "pytest", False)),
        ("poetry run pytest -x", ("tests", "pytest", False)),
        ("npm test", ("tests", "npm test", False)),
        ("npm run test:unit -- --watch=false", ("tests", "npm test:unit", False)),
        ("pnpm --filter web test", ("tests", "pnpm test", False)),
        ("npx vitest run src/a.test.ts", ("tests", "vitest", True)),
        ("yarn jest", ("tests", "jest", False)),
        ("go test ./...", ("tests", "go test", False)),
        ("go test ./internal/a -run TestX", ("tests", "go test", True)),
        ("cargo test --workspace", ("tests", "cargo test", False)),
        ("cargo test parse", ("tests", "cargo test", True)),
        ("./gradlew :app:test", ("tests", "gradlew", False)),
        ("mvn -q verify", ("tests", "mvn", False)),
        ("./run_tests.sh", ("tests", "run_tests.sh", False)),
        ("python manage.py test shop", ("tests", "django", True)),
        ("make test", ("tests", "make test", False)),
        ("ruff check .", ("lint", "ruff", False)),
        ("npx eslint src --ext .ts", ("lint", "eslint", False)),
        ("npx tsc --noEmit", ("types", "tsc", False)),
        ("npm run typecheck", ("types", "npm typecheck", False)),
        ("go build ./...", ("build", "go build", False)),
        ("make", ("build", "make", False)),
        ("cmake --build build", ("build", "cmake", False)),
    ],
)
def test_runners(command: str, expected: tuple[str, str, bool]) -> None:
    assert runs(command)[0] == expected


@pytest.mark.parametrize(
    "command",
    [
        "pytest --version",
        "pytest --collect-only",
        "npm install",
        "npm run dev",
        "go test -c ./a",
        "git commit -m 'pytest passes'",
        "echo pytest",
        "grep -rn pytest .",
        "test -f a.py",
        "ruff format .",
        "cat tests/test_a.py",
    ],
)
def test_what_is_no_check(command: str) -> None:
    assert runs(command) == []


@example("| pytest | tail")
@example("&& pytest")
@given(st.one_of(st.text(), st.text(alphabet="ab |&;()\n'\"$<\\", max_size=30)))
def test_any_text_parses(command: str) -> None:
    line = parse_command(command)
    for index in range(len(line.segments)):
        line.success_covers(index)
        line.failure_is_of(index)
        assert not (line.has_control_flow and line.success_covers(index))


@given(st.lists(st.sampled_from(["pytest", "cd a", "echo x", "make"]), min_size=1, max_size=5))
def test_success_of_a_chain_covers_all_of_it(parts: list[str]) -> None:
    line = parse_command(" && ".join(parts))
    assert len(line.segments) == len(parts)
    assert all(line.success_covers(index) for index in range(len(parts)))
    hidden = parse_command(" && ".join(parts) + " || true")
    assert not any(hidden.success_covers(index) for index in range(len(parts)))
