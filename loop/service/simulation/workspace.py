"""A simulated developer's checkout: the tools really read, edit and test its files.

Whether the tests pass is computed from the files as they then are, so a wrong edit by the model
fails them; nothing is scripted in advance.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from loop.service.simulation.draws import draw
from loop.service.simulation.parameters import FleetParameters
from loop.service.simulation.tasks import (
    defect_of,
    function_of,
    source_of,
    test_file_of,
    test_source_of,
)


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What a tool gave. ``text`` goes to the model, ``output`` to the telemetry.

    ``is_recorded`` is false for a call that the client refuses before running it: such a call
    leaves no telemetry at all, as with the real client.
    """

    text: str
    output: tuple[tuple[str, str], ...] = ()  # attributes of the span event tool.output
    succeeded: bool = True
    is_recorded: bool = True
    lines_added: int = 0
    lines_removed: int = 0


@dataclass(slots=True)
class Workspace:
    """The files of one repository as one session sees them.

    Every file has its defect; the tests look at ``path`` only, the file of the session's task.
    """

    repository: str
    path: str
    parameters: FleetParameters
    edited: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return f"/srv/simulated/{self.repository}"

    def use(self, name: str, tool_input: dict[str, object]) -> ToolOutcome:
        """Runs one tool call of the model."""
        if name == "Read":
            return self._read(str(tool_input["file_path"]))
        if name == "Edit":
            return self._edit(
                str(tool_input["file_path"]),
                str(tool_input["old_string"]),
                str(tool_input["new_string"]),
            )
        return self._run(str(tool_input["command"]))

    def is_mended(self) -> bool:
        """Whether the task's file now holds the line that the tests ask for."""
        right = defect_of(self.repository, self.path).right
        return right in self._content(self.path).split("\n")

    def _content(self, path: str) -> str:
        if path in self.edited:
            return self.edited[path]
        if path.startswith("tests/"):
            return test_source_of(self.repository, self.path)
        return source_of(self.repository, path, self.parameters.file_chars)

    def _inside(self, file_path: str) -> str:
        return file_path.removeprefix(f"{self.root}/")

    def _read(self, file_path: str) -> ToolOutcome:
        content = self._content(self._inside(file_path))
        numbered = "\n".join(f"{n}\t{line}" for n, line in enumerate(content.split("\n"), 1))
        return ToolOutcome(numbered, (("file_path", file_path), ("content", content)))

    def _edit(self, file_path: str, old: str, new: str) -> ToolOutcome:
        path = self._inside(file_path)
        content = self._content(path)
        if content.count(old) != 1:
            text = f"<tool_use_error>String to replace not found in file.\nString: {old}"
            return ToolOutcome(f"{text}</tool_use_error>", succeeded=False, is_recorded=False)
        self.edited[path] = content.replace(old, new)
        start = content[: content.index(old)].count("\n") + 1
        removed, added = old.split("\n"), new.split("\n")
        hunk = {
            "oldStart": start,
            "oldLines": len(removed),
            "newStart": start,
            "newLines": len(added),
            "lines": [*(f"-{line}" for line in removed), *(f"+{line}" for line in added)],
        }
        diff = json.dumps([hunk], separators=(",", ":"))
        return ToolOutcome(
            f"The file {file_path} has been updated successfully.",
            (("file_path", file_path), ("diff", diff)),
            lines_added=len(added),
            lines_removed=len(removed),
        )

    def _run(self, command: str) -> ToolOutcome:
        if command.startswith("grep"):
            found = "\n".join(
                f"{path}:{number}:    total = {function_of(path)}(values)"
                for number, path in enumerate(command.split()[-1].split(","), 12)
            )
            return ToolOutcome(found, (("bash_command", command), ("output", found)))
        function = function_of(self.path)
        tests = 6 + int(draw("tests", self.repository) * 20)
        if self.is_mended():
            output = f"{'.' * tests:<72}[100%]\n{tests} passed in 0.41s"
            return ToolOutcome(output, (("bash_command", command), ("output", output)))
        text = (
            f"Exit code 1\n{'F' + '.' * (tests - 1):<72}[100%]\n"
            f"=================================== FAILURES ===================================\n"
            f"E       AssertionError: {function}() is wrong at the limit\n"
            f"FAILED {test_file_of(self.path)}::test_{function} - AssertionError\n"
            f"1 failed, {tests - 1} passed in 0.43s"
        )
        return ToolOutcome(text, succeeded=False)
