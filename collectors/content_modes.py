"""What is kept of the texts of a turn, by the sender's place in the organization.

| mode | what is stored of a text |
|---|---|
| ``full`` | the text, without secrets |
| ``redacted`` | the text, without secrets and personal data |
| ``hashed`` | a keyed hash and the length: equal texts can be told, no text can be read |
| ``none`` | the length |

Identity, models, tokens, names, times and sizes are no content: they stay in every mode, so that
every mode charges and routes.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import orjson

from collectors.personal_data import redact_personal
from collectors.redaction import MIN_SECRET_CHARS, redact, redact_bytes, redact_named
from loop.domain.content_modes import ContentMode

CONTENT_NAMES = frozenset(
    (
        # the client's events and spans
        "prompt", "prompt_text", "user_prompt", "response", "response.model_output", "model_output",
        "new_context", "system_prompt", "system_prompt_preview", "system_reminders", "tool",
        "tool_input", "tool_parameters", "full_command", "bash_command", "command",
        "file_path", "error", "body", "body_ref",
        "output", "content", "diff", "result", "stdout", "stderr", "description",
        # transcripts and raw bodies
        "text", "thinking", "input", "toolUseResult", "message", "summary", "cwd", "partial_json",
        # OpenTelemetry, and what other conventions call the same
        "otel.status_message", "exception.message", "exception.stacktrace", "process.command",
        "process.command_line", "process.command_args", "gen_ai.prompt", "gen_ai.completion",
        "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions",
        "gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "gen_ai.tool.definitions",
        "input.value", "output.value", "traceloop.entity.input", "traceloop.entity.output",
        "mlflow.spanInputs", "mlflow.spanOutputs", "langfuse.observation.input",
        "langfuse.observation.output", "langfuse.trace.input", "langfuse.trace.output",
        "gen_ai.prompts", "gen_ai.request.parameters", "gen_ai.tool.parameters", "tool.parameters",
        "events", "error.message", "error.stack_trace", "litellm.provider.error.stack_trace",
    )
)  # fmt: skip
"""Attributes and keys that hold content, by name."""
CONTENT_PREFIXES = (
    "gen_ai.prompt.", "gen_ai.completion.", "gen_ai.input.messages.", "gen_ai.output.messages.",
    "llm.anthropic.", "llm.openai.", "llm.None.", "llm.input_messages.", "llm.output_messages.",
    "llm.prompts.", "llm.completions.", "retrieval.documents.", "message.content",
)  # fmt: skip
LONG_CHARS = 256
"""A longer text is content whatever its name, and so is one of several lines."""
KEPT_HEADS = ("<task-notification>", "<local-command-", "[Request interrupted")
"""What a prompt that no human wrote begins with; it stays, for prompts are counted by it."""
_KEPT_PARAMETERS = frozenset(
    ("mcp_server_name", "mcp_tool_name", "skill_name", "subagent_type", "git_commit_id")
)
_SHORT_KEY = 64  # characters
_CLIENT_MARK = "<REDACTED>"
_HEADS = "|".join(re.escape(head) for head in KEPT_HEADS)
_MARK = re.compile(rf"(?:{_HEADS})?\[(?:NOT STORED|HASHED:[0-9a-f]{{32}}):(\d+)\]")
_PARAMETER_MARK = re.compile(r'^\{.*"\[(?:NOT STORED|HASHED:[0-9a-f]{32}):\d+\]"', re.DOTALL)
_FIRST_OF_MARKS = frozenset((*(head[0] for head in KEPT_HEADS), "[", "{"))
_EVENT_BODY = "claude_code."


def is_content(name: str, text: str) -> bool:
    """Whether the value of an attribute is content."""
    if name == "body" and text.startswith(_EVENT_BODY) and len(text) < LONG_CHARS:
        return False  # the event's name
    return _names_content(name) or len(text) > LONG_CHARS or "\n" in text


@lru_cache(maxsize=4096)
def _redacted_key(name: str) -> str:
    """Keys repeat in every record: each is looked into once."""
    return redact(name)


@lru_cache(maxsize=4096)
def _names_content(name: str) -> bool:
    return name in CONTENT_NAMES or name.startswith(CONTENT_PREFIXES)


def hidden_chars(text: str) -> int | None:
    """How long the text was that ``none`` or ``hashed`` put a mark in place of; ``None`` if it is
    no such mark. 0 where only parts were hidden."""
    if text[:1] not in _FIRST_OF_MARKS:
        return None
    match = _MARK.fullmatch(text)
    if match is not None:
        return int(match[1])
    return 0 if _PARAMETER_MARK.match(text) else None


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is done to the texts of one record. ``searches``: secrets are looked for."""

    mode: ContentMode = "full"
    hash_key: bytes = field(default=b"", repr=False)
    searches: bool = True

    def without_search(self) -> Treatment:
        """The same for texts in which a scan has found that there can be no secret."""
        return replace(self, searches=False) if self.searches else self

    @property
    def hides(self) -> bool:
        """Whether content is replaced as a whole."""
        return self.mode in ("none", "hashed")

    def value(self, name: str, text: str) -> str:
        """The value of an attribute of that name, as it may be stored."""
        if self.mode != "full" and is_content(name, text):
            return self.parameters(text) if name == "tool_parameters" else self.content(text)
        return redact_named(name, text) if self.searches else text

    def name(self, name: str) -> str:
        """A key, as it may be stored."""
        if not self.searches or len(name) < MIN_SECRET_CHARS:
            return name
        return _redacted_key(name) if len(name) <= _SHORT_KEY else redact(name)

    def octets(self, content: bytes) -> bytes:
        """Bytes outside of content, as they may be stored."""
        return redact_bytes(content) if self.searches else content

    def content(self, text: str) -> str:
        """A text that is content, as it may be stored."""
        if not self.hides:
            cleaned = redact(text) if self.searches else text
            return cleaned if self.mode == "full" else redact_personal(cleaned)
        if not text or text == _CLIENT_MARK or (text[-1] == "]" and _MARK.fullmatch(text)):
            return text
        head = ""
        if text.startswith(KEPT_HEADS):
            head = next(head for head in KEPT_HEADS if text.startswith(head))
        if self.mode == "none":
            return f"{head}[NOT STORED:{len(text)}]"
        return f"{head}[HASHED:{self._hash(text)}:{len(text)}]"

    def parameters(self, text: str) -> str:
        """The summary of a tool's input: names of servers, tools and agents in it are kept."""
        try:
            given = orjson.loads(text)
        except orjson.JSONDecodeError:
            return self.content(text)
        if not isinstance(given, dict):
            return self.content(text)
        kept = {
            self.name(name): value
            if not isinstance(value, str | list | dict)
            else (redact_named(name, value) if self.searches else value)
            if name in _KEPT_PARAMETERS and isinstance(value, str)
            else self.content(value if isinstance(value, str) else orjson.dumps(value).decode())
            for name, value in given.items()
        }
        return text if kept == given else orjson.dumps(kept).decode()

    def _hash(self, text: str) -> str:
        return blake2b(
            text.encode(errors="surrogatepass"), key=self.hash_key, digest_size=16
        ).hexdigest()


def open_hash_key(directory: Path, given: str) -> bytes:
    """The key of the hashes: of the one given, else of a file there, made when it is missing."""
    if given:
        return blake2b(given.encode(), digest_size=32).digest()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / "content-hash.key"
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(os.urandom(32))
    return path.read_bytes()
