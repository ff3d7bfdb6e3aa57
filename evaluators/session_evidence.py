"""A session's evidence in one pass over its trace, shared by the evaluators."""

from __future__ import annotations

import re
from functools import lru_cache
from operator import attrgetter

import orjson

from evaluators.command_evidence import read_command, read_log_of
from evaluators.evidence import (
    EDIT_TOOLS,
    POSITION_STRIDE,
    Check,
    CheckOutcome,
    EvidenceLists,
    FileEdit,
    SessionEvidence,
    Statement,
    Step,
    is_code,
    visible_output,
)
from evaluators.run_outcomes import read_test_counts
from loop.domain.turns import Prompt, SessionTrace, ToolEvidence

AGENT_TOOLS = frozenset(("Agent", "Task"))
BACKGROUND_TOOLS = frozenset(("BashOutput", "TaskOutput", "AgentOutputTool"))
_RUNNING_TOOL = re.compile(
    r"(?i)test|run|exec|build|shell|command|terminal|check|\bci\b|lint|git|pr_|edit|writ|replac|insert"
    r"|creat|delet|patch|apply|renam|move"
)
# What a human did beside the session, and what a command in the background came to.
_TOLD = re.compile(
    r"(?i)<(?:bash-(?:input|stdout)|local-command-stdout)>|\bI(?:'ve| have| just"
    r"| also)* (?:re-?ran|run"
    r"|ran|fixed|changed|edited|pushed|committed|merged|reverted|updated|applied|tested|checked)\b"
    r"|^(?!.{0,200}\b(?:make|ensure|until|should|must|so that|verify|see|check|sure|get|if|when)\b)"
    r".{0,200}\b(?:tests?|build|lint|ci|suite|checks?|everything|all)\b[^.\n]{0,40}\b(?:pass(?:es|ed"
    r"|ing)?|green|works?|clean)\b"
)
_TOLD_BY_CLIENT = re.compile(r"(?i)exit code|\bcompleted\b|\bfailed\b")
_FIELD = {
    name: re.compile(r'"' + name + r'"\s*:\s*"((?:[^"\\]|\\.)*)', re.S)
    for name in ("command", "full_command", "file_path", "notebook_path", "path")
}
_BACKGROUND_FILE = re.compile(r"/tasks/[\w-]+\.output$")
_SUMMARY_AGENT = "acompact"
_position = attrgetter("position")
_last: tuple[SessionTrace | None, SessionEvidence | None] = (None, None)


def read_evidence(trace: SessionTrace) -> SessionEvidence:
    """The evidence in ``trace``. Remembers the last trace, which several evaluators ask for."""
    global _last
    remembered, evidence = _last
    if remembered is trace and evidence is not None:
        return evidence
    evidence = _read(trace)
    _last = (trace, evidence)
    return evidence


def _read(trace: SessionTrace) -> SessionEvidence:
    steps: list[Step] = []
    lists = EvidenceLists()
    spoken: list[tuple[int, int, str, str, str]] = []
    texts_hidden = False
    agents = {traced.turn.agent_id for traced in trace.turns} - {""}
    has_subagents = bool(agents)
    asked = sum(tool.call.name in AGENT_TOOLS for traced in trace.turns for tool in traced.tools)
    unseen_agents = asked > len(agents)
    telling = sorted(prompt.at_us for prompt in trace.prompts if prompt.at_us and _tells(prompt))
    boundaries = sorted(
        prompt.at_us for prompt in trace.prompts if prompt.from_human and prompt.at_us
    )
    position = 0
    for traced in trace.turns:
        turn = traced.turn
        while telling and telling[0] <= turn.started_at_us:
            if steps:  # at the beginning it is what the work starts from
                lists.gaps.append(position + 1)
            telling.pop(0)
        position += POSITION_STRIDE
        # A compaction retells the session, an auxiliary request titles it: neither claims anything.
        retells = turn.agent_id.startswith(_SUMMARY_AGENT) or turn.request_class == "auxiliary"
        for text in () if retells else traced.texts:
            spoken.append((position, turn.started_at_us, turn.turn_id, turn.agent_id, text))
        texts_hidden = texts_hidden or traced.text_state == "redacted"
        for tool in traced.tools:
            position += POSITION_STRIDE
            step = _step(position, turn.turn_id, turn.agent_id, tool)
            steps.append(step)
            name = tool.call.name
            if step.rejected:
                if name in EDIT_TOOLS:
                    lists.edits.append(_tool_edit(step, applied=False))
                continue
            if name in EDIT_TOOLS:
                lists.edits.append(_tool_edit(step, applied=tool.call.success))
            elif name == "Bash":
                if step.command is None:
                    lists.gaps.append(position)
                else:
                    read_command(step, lists)
            elif name in BACKGROUND_TOOLS:
                _read_background(step, lists)
            elif name == "Read" and step.path and step.path in lists.logs:
                read_log_of(lists.logs[step.path], visible_output(tool) or "", lists)
            elif name == "Read" and step.path and _BACKGROUND_FILE.search(step.path):
                lists.gaps.append(position)  # the result of a run that started at another time
            elif (
                tool.call.inferred
                or (name in AGENT_TOOLS and (unseen_agents or not has_subagents))
                or name in ("", "mcp_tool")
                or (name.startswith("mcp__") and _RUNNING_TOOL.search(name))
            ):
                lists.gaps.append(position)
    last_of: dict[int, int] = {}
    for index, (_, at_us, _, agent_id, _) in enumerate(spoken):
        if not agent_id:
            last_of[sum(1 for boundary in boundaries if boundary <= at_us)] = index
    final = set(last_of.values())
    statements = tuple(
        Statement(place, turn_id, agent_id, text, index in final)
        for index, (place, _, turn_id, agent_id, text) in enumerate(spoken)
    )
    return SessionEvidence(
        tuple(steps),
        tuple(sorted(lists.checks, key=_position)),
        lists.settled_edits(),
        tuple(lists.git_actions),
        statements,
        tuple(lists.gaps),
        tuple(lists.maybe_checks),
        texts_hidden,
    )


def _tells(prompt: Prompt) -> bool:
    """Does a prompt bring news of runs or edits that no call of the trace shows?"""
    if not prompt.text:
        return False
    if not prompt.from_human or prompt.text.lstrip().startswith("<task-notification>"):
        return _TOLD_BY_CLIENT.search(prompt.text[:2_000]) is not None
    return _TOLD.search(prompt.text[:4_000]) is not None


def _step(position: int, turn_id: str, agent_id: str, tool: ToolEvidence) -> Step:
    name = tool.call.name
    command = path = None
    if tool.input_state in ("present", "truncated") and tool.input_text:
        if name == "Bash":
            command = _input_field(tool.input_text, ("command", "full_command"), bare=True)
        elif name in EDIT_TOOLS or name in ("Read", "NotebookRead"):
            path = _input_field(tool.input_text, ("file_path", "notebook_path", "path"), bare=True)
    return Step(position, turn_id, agent_id, tool, command, path)


@lru_cache(maxsize=2048)
def _input_field(text: str, names: tuple[str, ...], *, bare: bool) -> str | None:
    """A field of a tool's input: JSON, JSON cut off by the client's limit, or the bare value."""
    stripped = text.lstrip()
    if stripped.startswith("{"):
        try:
            fields = orjson.loads(stripped)
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            return next((fields[n] for n in names if isinstance(fields.get(n), str)), None)
        for name in names:
            match = _FIELD[name].search(stripped)
            if match:
                return match.group(1).replace("\\n", "\n").replace('\\"', '"').replace("\\/", "/")
        return None
    return text if bare and stripped and not stripped.startswith("<REDACTED") else None


def _tool_edit(step: Step, *, applied: bool | None) -> FileEdit:
    return FileEdit(step.position, step, step.path, applied, is_code(step.path))


def _read_background(step: Step, lists: EvidenceLists) -> None:
    output = visible_output(step.tool)
    counts = read_test_counts(output) if output else None
    if counts is None:
        lists.gaps.append(step.position)
        return
    outcome: CheckOutcome = "failed" if counts.failed else "empty" if counts.empty else "passed"
    lists.checks.append(
        Check(
            step.position, step, "tests", "background", False, outcome, counts, False, output or ""
        )
    )
