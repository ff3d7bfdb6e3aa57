"""Shell commands as far as evaluators need them: segments, and whose exit status is seen.

A Bash tool reports one exit status for a whole command line. Whether that status says anything
about the test run inside it depends on what stands around the run: in ``pytest | tail`` it is
tail's, in ``pytest || true`` it is always 0. This is no shell: what it doesn't understand it
calls untrusted, which costs evidence but never invents any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

COMMAND_CHARS = 20_000  # what is read of a command line, heredoc bodies not counted
_HEREDOC = re.compile(r"<<-?[ \t]*(['\"]?)(\w+)\1")
_LEXEME = re.compile(
    r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.|>&|&>>?|&&|\|\||\|&|\$\(|[;|&\n()]|[^'"\\;|&\n()$>]+|.""",
    re.S,
)
_WORD = re.compile(r"""(?:[^\s'"\\]|'[^']*'|"(?:\\.|[^"\\])*"|\\.)+""", re.S)
_ASSIGNMENT = re.compile(r"^\w+=")
_COMMENT = re.compile(r"(?m)^\s*#.*$")
_TRIVIAL = frozenset((
    "cd", "source", ".", "export", "set", "echo", "pwd", "mkdir", "true", "env", "unset",
    "printf", "pushd", "popd", "sleep", "date", "which", "conda", "nvm", "ulimit", "umask",
    "alias", "shopt", "clear", ":",
))  # fmt: skip
_PASS_THROUGH = frozenset(("tail", "head", "cat", "tee"))
_WRAPPERS = frozenset((
    "sudo", "time", "nice", "nohup", "command", "exec", "npx", "bunx", "uvx", "env", "rtk",
    "xvfb-run", "stdbuf", "unbuffer", "caffeinate", "chronic", "doas", "ionice",
    "taskset", "corepack",
    "builtin",
))  # fmt: skip
_RUN_WRAPPERS = frozenset(["poetry", "uv", "pipenv", "pdm", "hatch", "rye", "pixi"])
_WRAPPER_VALUES = {
    "nice": ("-n", "--adjustment"), "sudo": ("-u", "-g", "--user"), "doas": ("-u",),
    "ionice": ("-c", "-n"), "taskset": ("-c",), "npx": ("-p", "--package"), "bunx": ("-p",),
    "uvx": ("--with", "--from", "-p", "--python"), "env": ("-u", "-C"),
}  # fmt: skip
_CONTAINERS = frozenset(
    ("docker", "docker-compose", "podman", "podman-compose", "nerdctl", "kubectl")
)
_CONTAINER_VALUES = frozenset((
    "-e", "--env", "-u", "--user", "-w", "--workdir", "-v", "--volume", "--name", "-f", "--file",
    "-p", "--project-name", "--env-file", "--profile", "--network", "--entrypoint", "-n", "-c",
    "--namespace", "--container", "--platform", "-m", "--mount", "--index",
))  # fmt: skip
_SHELL_STRING = re.compile(
    r"""(?<![\w./-])(?:/\w+/)*(?:ba|z|da)?sh\s+(?:-[a-z]+\s+)*-[a-z]*c\s+(?:'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)")"""
)
_OPENERS = frozenset(("do", "then", "else", "if", "while", "until", "{"))
_OPENS = _OPENERS | {""}
_CONTROL = frozenset((
    "for", "while", "until", "if", "then", "else", "do", "done", "fi", "case", "esac",
    "function", "{", "}",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Segment:
    """One simple command. ``joined_by`` is the operator before it: "", &&, ||, ;, | or &."""

    words: tuple[str, ...]
    joined_by: str
    text: str

    @property
    def is_trivial(self) -> bool:
        """It can hardly fail and says nothing about the work."""
        return not self.words or self.words[0] in _TRIVIAL


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command line split at its operators, heredoc bodies left out."""

    segments: tuple[Segment, ...]
    pipefail: bool
    prints_status: bool  # it echoes $? or PIPESTATUS
    has_control_flow: bool
    prints_pipes: bool = False  # it echoes PIPESTATUS

    def success_covers(self, index: int) -> bool:
        """Does exit status 0 of the line mean that segment ``index`` ran and exited 0?"""
        if self.has_control_flow:
            return False
        end = self._pipeline_end(index)
        if end != index and not self.pipefail:
            return False
        if any(segment.joined_by not in ("&&", "|") for segment in self._after(end)):
            return False
        start = index
        while start and self.segments[start].joined_by == "|":
            start -= 1
        return self.segments[start].joined_by != "||"

    def failure_is_of(self, index: int) -> bool:
        """Does a failure of the line mean that segment ``index`` exited other than 0?"""
        if self.has_control_flow:
            return False
        end = self._pipeline_end(index)
        if end != index and not (
            self.pipefail
            and all(s.words[:1] and s.words[0] in _PASS_THROUGH for s in self._between(index, end))
        ):
            return False
        start = index
        while start and self.segments[start].joined_by == "|":
            start -= 1
        if start != index:
            return False
        before = self.segments[:start]
        if self.segments[start].joined_by in ("||", "&"):
            return False
        # What stands before a ";" can't decide the line's status; before "&&" it can.
        for position in range(start - 1, -1, -1):
            if self.segments[position + 1].joined_by == ";":
                break
            if not before[position].is_trivial:
                return False
        return all(s.joined_by == "&&" and s.is_trivial for s in self._after(end))

    def failure_excludes(self, index: int) -> bool:
        """Does a failure of the line mean that segment ``index`` did not succeed: it failed, or
        never ran?"""
        if self.has_control_flow or index != len(self.segments) - 1:
            return False
        return self.segments[index].joined_by in ("", "&&", ";")

    def status_is_of_a_pipe(self, index: int) -> bool:
        """Is ``$?`` after segment ``index`` that of a filter behind it?"""
        return self._pipeline_end(index) != index and not self.pipefail and not self.prints_pipes

    def output_is_whole(self, index: int) -> bool:
        """Is everything that segment ``index`` prints shown?"""
        return self._pipeline_end(index) == index and ">" not in self.segments[index].text.replace(
            "2>&1", ""
        )

    def output_is_passed_on(self, index: int) -> bool:
        """Is the end of the segment's output shown, unfiltered?"""
        end = self._pipeline_end(index)
        return all(s.words[:1] and s.words[0] in _PASS_THROUGH for s in self._between(index, end))

    def _pipeline_end(self, index: int) -> int:
        end = index
        while end + 1 < len(self.segments) and self.segments[end + 1].joined_by == "|":
            end += 1
        return end

    def _between(self, index: int, end: int) -> tuple[Segment, ...]:
        return self.segments[index + 1 : end + 1]

    def _after(self, end: int) -> tuple[Segment, ...]:
        return self.segments[end + 1 :]


@lru_cache(maxsize=1024)
def parse_command(command: str) -> CommandLine:
    """Split ``command``; total over any text. Remembers the last ones: several ask for each."""
    text = command
    if "<<" in text:
        text = _drop_heredocs(text)
    text = text[:COMMAND_CHARS]
    if "sh " in text and "c " in text:
        text = _SHELL_STRING.sub(_inner_command, text)
    if "#" in text:
        text = _COMMENT.sub("", text)
    text = text.replace("\\\n", " ")
    segments: list[Segment] = []
    current: list[str] = []
    joined_by = ""
    depth = 0
    controlled = False

    def close(operator: str) -> None:
        nonlocal joined_by, current, controlled
        raw = "".join(current).strip()
        current = []
        if raw:
            words = _words(raw)
            if words[:1] and words[0] in _CONTROL:
                controlled = True
                words = _words(raw[len(words[0]) :]) if words[0] in _OPENERS else words
            segments.append(Segment(words, joined_by if segments else "", raw))
            joined_by = operator
        elif operator != ";":
            joined_by = operator

    for match in _LEXEME.finditer(text):
        lexeme = match.group()
        if lexeme == "$(" or (lexeme == "(" and (depth or "".join(current).strip() not in _OPENS)):
            depth += 1
            current.append(lexeme)
        elif lexeme == ")" and depth:
            depth -= 1
            current.append(lexeme)
        elif depth:
            current.append(lexeme)
        elif lexeme in ("&&", "||", "|"):
            close(lexeme)
        elif lexeme == "|&":
            close("|")
        elif lexeme in (";", "\n"):
            close(";")
        elif lexeme == "&":
            close("&")
        elif lexeme not in ("(", ")"):
            current.append(lexeme)
    trailing = "&" if text.rstrip().endswith("&") and not text.rstrip().endswith("&&") else ""
    close("")
    return CommandLine(
        tuple(segments),
        pipefail="pipefail" in text,
        prints_status="$?" in text or "PIPESTATUS" in text,
        has_control_flow=bool(trailing) or controlled,
        prints_pipes="PIPESTATUS" in text or "pipestatus" in text,
    )


def _inner_command(match: re.Match[str]) -> str:
    inner = match.group("single")
    if inner is None:
        inner = re.sub(r"\\(.)", r"\1", match.group("double"))
    return " ".join(inner.split("\n"))


def _drop_heredocs(text: str) -> str:
    kept = []
    delimiter = ""
    for line in text.split("\n"):
        if delimiter:
            bare = line.strip()
            if bare.startswith(delimiter) and not bare[len(delimiter) :].lstrip("\"'`)"):
                kept.append(bare[len(delimiter) :])
                delimiter = ""
            continue
        match = _HEREDOC.search(line)
        if match and "<<<" not in line:
            delimiter = match.group(2)
            line = line[: match.start()] + line[match.end() :]
        kept.append(line)
    return "\n".join(kept)


def _words(raw: str) -> tuple[str, ...]:
    found = [_unquote(match.group()) for match in _WORD.finditer(raw)]
    position = 0
    while position < len(found):
        word = found[position]
        if _ASSIGNMENT.match(word) or word in _WRAPPERS:
            position += 1
            values = _WRAPPER_VALUES.get(word, ())
            while position < len(found) and found[position].startswith("-"):
                position += 2 if found[position] in values else 1
        elif word in ("timeout", "gtimeout"):
            position += 1
            while position < len(found) and (
                found[position].startswith("-") or found[position][:1].isdigit()
            ):
                position += 1
        elif word in _CONTAINERS:
            inner = _in_container(found, position)
            if inner is None:
                break
            position = inner
        elif word == "coverage" and found[position + 1 : position + 2] == ["run"]:
            return _words_of_coverage(found[position + 2 :])
        elif (
            word in ("npm", "pnpm", "yarn", "bun", "pipx")
            and found[position + 1 : position + 2]
            and found[position + 1] in ("exec", "dlx", "x")
        ) or (word == "pipx" and found[position + 1 : position + 2] == ["run"]):
            position += 2
            while position < len(found) and found[position].startswith("-"):
                position += 2 if found[position] in ("-w", "--workspace", "-C", "--filter") else 1
        elif word in _RUN_WRAPPERS and found[position + 1 : position + 2] == ["run"]:
            position += 2
            while position < len(found) and found[position].startswith("-"):
                position += 2 if found[position] in ("--with", "--extra", "--group", "-p") else 1
        elif word == "bundle" and found[position + 1 : position + 2] == ["exec"]:
            position += 2
        elif word == "mise" and found[position + 1 : position + 2] == ["exec"]:
            position += 2
            while position < len(found) and found[position - 1] != "--":
                position += 1
        else:
            break
    words = found[position:]
    if words:
        program = words[0].rsplit("/", 1)[-1] if "/" in words[0] else words[0]
        if program == "test" and "/" in words[0]:
            return ("run_test", *words[1:])  # a project's own script, not the shell's test
        if program.startswith("python"):
            words = [words[0], *_without_interpreter_options(words[1:])]
        if program == "node" and any(word.startswith("--test") for word in words[1:]):
            return ("node", "--test", *(word for word in words[1:] if not word.startswith("--")))
        if program == "node":
            words = [words[0], *_without_interpreter_options(words[1:])]
            if len(words) > 1 and re.search(
                r"(?:^|/)(?:jest|vitest|mocha|ava|tsc|eslint)(?:\.m?js)?$", words[1]
            ):
                return (words[1].rsplit("/", 1)[-1].split(".")[0], *words[2:])
        if program == "php" and words[1:2] == ["artisan"]:
            return tuple(words[1:])
        if program.startswith("python") and words[1:2] == ["-m"] and len(words) > 2:
            if words[2] == "coverage" and words[3:4] == ["run"]:
                return _words_of_coverage(words[4:])
            return tuple(words[2:])
        if program in ("python", "python3") and len(words) > 1 and words[1].endswith(".py"):
            return (words[1].rsplit("/", 1)[-1], *words[2:])
        if program in ("bash", "sh") and len(words) > 1 and not words[1].startswith("-"):
            return (words[1].rsplit("/", 1)[-1], *words[2:])
        words[0] = program
    return tuple(words)


def _in_container(found: list[str], position: int) -> int | None:
    """Where the command begins that ``docker compose exec web …`` and its like run."""
    position += 1
    verb_seen = False
    while position < len(found):
        word = found[position]
        if word == "--" and verb_seen:
            return position + 1
        if word.startswith("-"):
            position += 2 if word in _CONTAINER_VALUES else 1
        elif word == "compose" and not verb_seen:
            position += 1
        elif word in ("exec", "run") and not verb_seen:
            verb_seen = True
            position += 1
        elif verb_seen:  # the container, the service or the image
            return position + 2 if found[position + 1 : position + 2] == ["--"] else position + 1
        else:
            return None
    return None


def _words_of_coverage(rest: list[str]) -> tuple[str, ...]:
    while rest and rest[0].startswith("-") and rest[0] != "-m":
        rest = rest[2:] if rest[0] in ("--rcfile", "--source", "--omit", "--include") else rest[1:]
    if rest[:1] == ["-m"]:
        return tuple(rest[1:])
    return (rest[0].rsplit("/", 1)[-1], *rest[1:]) if rest else ("coverage",)


def _without_interpreter_options(words: list[str]) -> list[str]:
    position = 0
    while position < len(words) and words[position].startswith("-") and words[position] not in (
        "-m", "-c", "-e", "-", "--version", "-V", "-p",
    ):  # fmt: skip
        position += 2 if words[position] in ("-W", "-X", "--require", "-r", "--import") else 1
    return words[position:]


def _unquote(word: str) -> str:
    if "'" in word or '"' in word:
        return word.replace("'", "").replace('"', "")
    return word
