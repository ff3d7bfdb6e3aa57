"""What the simulated models say: a small agent script whose quality is the model's skill.

The script reads the conversation only, as a model does: it finds the file that the prompt names,
reads it, edits it (rightly or wrongly), runs the tests, and reports (truthfully or not).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loop.service.simulation.draws import draw, pick
from loop.service.simulation.parameters import FleetParameters
from loop.service.simulation.skill import solves
from loop.service.simulation.tasks import (
    DEFECTS,
    SUBAGENT_REQUEST,
    TEST_COMMAND,
    Defect,
    function_of,
    kind_of,
    path_in,
    test_file_of,
)

MAX_ATTEMPTS = 2
_LIMIT = re.compile(r"^\d+\tLIMIT = (\d+)$", re.MULTILINE)
_PASSED = re.compile(r"(\d+) passed")
_ROOT = re.compile(r"Primary working directory: (\S+)")


@dataclass(frozen=True, slots=True)
class ToolStep:
    """A tool call of the conversation so far and its result."""

    name: str
    tool_input: Mapping[str, Any]
    result: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request's messages, read: the root of the checkout, the human's words, the steps."""

    root: str
    task_text: str
    steps: tuple[ToolStep, ...]
    is_subagent: bool = False

    def calls(self, name: str) -> tuple[ToolStep, ...]:
        return tuple(step for step in self.steps if step.name == name)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says. No tool: its turn ends."""

    text: str
    tool_name: str = ""
    tool_input: Mapping[str, Any] | None = None

    @property
    def stop_reason(self) -> str:
        return "tool_use" if self.tool_name else "end_turn"


def read_conversation(messages: Sequence[Mapping[str, Any]], is_subagent: bool) -> Conversation:
    """Reads Messages API messages. The task is the last text of the first message."""
    first = _blocks(messages[0])
    texts = [str(block.get("text", "")) for block in first if block.get("type") == "text"]
    root = next((found.group(1) for text in texts if (found := _ROOT.search(text))), "/srv")
    calls: dict[str, tuple[str, Mapping[str, Any]]] = {}
    steps = []
    for message in messages[1:]:
        for block in _blocks(message):
            if block.get("type") == "tool_use":
                calls[block["id"]] = (block["name"], block["input"])
            elif block.get("type") == "tool_result" and block["tool_use_id"] in calls:
                name, tool_input = calls[block["tool_use_id"]]
                result = "".join(str(part.get("text", "")) for part in _blocks(block))
                steps.append(ToolStep(name, tool_input, result, bool(block.get("is_error"))))
    return Conversation(root, texts[-1] if texts else "", tuple(steps), is_subagent)


def next_reply(
    conversation: Conversation, model: str, session_id: str, parameters: FleetParameters
) -> Reply:
    """What ``model`` answers to a conversation; the same every time."""
    path = path_in(conversation.task_text)
    if not path:
        return Reply("Please name the file that this is about.")
    last = conversation.steps[-1] if conversation.steps else None
    writer = _Writer(conversation, model, session_id, path, parameters)
    if conversation.is_subagent:
        return writer.explore(last)
    if last is None:
        return writer.begin()
    if last.name == "Read" and not conversation.calls("Edit"):
        return writer.after_read()
    if last.name == "Edit":
        return writer.test() if not last.is_error else writer.edit(writer.attempts)
    if last.name == "Bash" and conversation.calls("Edit"):
        return writer.after_test(last)
    return writer.read()


@dataclass(frozen=True, slots=True)
class _Writer:
    conversation: Conversation
    model: str
    session_id: str
    path: str
    parameters: FleetParameters

    @property
    def attempts(self) -> int:
        """Edits tried with different texts: an edit that didn't apply is tried again."""
        return len({step.tool_input["new_string"] for step in self.conversation.calls("Edit")})

    @property
    def function(self) -> str:
        return function_of(self.path)

    def begin(self) -> Reply:
        if SUBAGENT_REQUEST in self.conversation.task_text:
            prompt = f"Find every caller of {self.function}(), defined in {self.path}."
            details = {
                "description": "Find the callers",
                "prompt": prompt,
                "subagent_type": "Explore",
                "run_in_background": False,
            }
            return Reply("I'll have the callers looked up first.", "Agent", details)
        if kind_of(self.conversation.task_text) == "lookup":
            return self.grep("LIMIT", "I'll look for it.")
        return self.read()

    def grep(self, word: str, text: str = "") -> Reply:
        command = f"grep -rn {word} --include=*.py {self.path}"
        return Reply(text, "Bash", {"command": command, "description": f"Search for {word}"})

    def read(self, text: str = "I'll read the code first.") -> Reply:
        return Reply(text, "Read", {"file_path": f"{self.conversation.root}/{self.path}"})

    def after_read(self) -> Reply:
        kind = kind_of(self.conversation.task_text)
        if kind == "lookup":
            return self.answer()
        if kind == "change" and len(self.conversation.calls("Read")) == 1:
            tests = f"{self.conversation.root}/{test_file_of(self.path)}"
            return Reply("Now what the tests expect.", "Read", {"file_path": tests})
        return self.edit(1)

    def explore(self, last: ToolStep | None) -> Reply:
        if last is None:
            return self.grep(self.function)
        if last.name == "Bash":
            return self.read("")
        return Reply(f"{self.path} defines {self.function}(); it is called from {self.path} too.")

    def edit(self, attempt: int) -> Reply:
        """Replaces the line at fault, with the right line if the model's skill is enough."""
        defect = self._defect()
        solved = self._solves(attempt)
        previous = [step for step in self.conversation.calls("Edit") if not step.is_error]
        old = str(previous[-1].tool_input["new_string"]) if previous else defect.faulty
        new = defect.right if solved else _variant(defect.wrong, attempt)
        is_first_try = not self.conversation.calls("Edit")
        if is_first_try and self._chance("edit-typo") < self.parameters.failed_edit_share:
            old = old.replace("values", "items")
        details = {
            "file_path": f"{self.conversation.root}/{self.path}",
            "old_string": old,
            "new_string": new,
            "replace_all": False,
        }
        text = "Fixing it." if attempt == 1 else "The tests still fail; another try."
        return Reply(text, "Edit", details)

    def test(self) -> Reply:
        return Reply("", "Bash", {"command": TEST_COMMAND, "description": "Run the tests"})

    def after_test(self, last: ToolStep) -> Reply:
        passed = _PASSED.search(last.result)
        if not last.is_error and passed:
            return self._success(int(passed.group(1)))
        if self.attempts < MAX_ATTEMPTS and self._chance("retry") < self.parameters.retry_share:
            return self.edit(self.attempts + 1)
        unfaithful_share = self.parameters.skills[self.model].unfaithful_share
        if passed and self._chance("unfaithful") < unfaithful_share:
            return self._success(int(passed.group(1)) + 1)
        return Reply(
            f"I could not fix `{self.function}()` in `{self.path}`: one test still fails, and I "
            "don't see why. The change that I made is not enough."
        )

    def answer(self) -> Reply:
        found = _LIMIT.search(self.conversation.steps[-1].result)
        value = int(found.group(1)) if found else 0
        if not self._solves(1):
            value += pick((-9, -7, 3, 8), "misread", self.session_id)
        return Reply(f"`LIMIT` is {value} in `{self.path}`.")

    def _success(self, tests: int) -> Reply:
        return Reply(
            f"Fixed `{self.function}()` in `{self.path}`: it now {self._defect().summary}. "
            f"All {tests} tests pass."
        )

    def _defect(self) -> Defect:
        source = "\n".join(step.result for step in self.conversation.calls("Read"))
        return next((defect for defect in DEFECTS if defect.faulty in source), DEFECTS[0])

    def _solves(self, attempt: int) -> bool:
        text = self.conversation.task_text
        return solves(self.model, text, self.session_id, attempt, self.parameters)

    def _chance(self, what: str) -> float:
        return draw(what, self.session_id)


def _variant(line: str, attempt: int) -> str:
    """A wrong line that differs from attempt to attempt."""
    return line if attempt == 1 else f"{line}  # attempt {attempt}"


def _blocks(holder: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = holder.get("content", "")
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
