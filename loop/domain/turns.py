"""Turns: one model request and the tool calls that it asked for.

An :class:`Event` is the raw truth as received; a :class:`Turn` is assembled from the *set* of a
session's events, so that order of arrival and duplicates make no difference. A
:class:`SessionTrace` is what evaluators read: the turns with their texts and evidence.

Times are UTC microseconds since the epoch (``*_at_us``): integers compare and sort exactly and
need no time zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from loop.domain.quick_records import quickly_made

UNATTRIBUTED = "unattributed"
METRIC_SOURCE = "otlp-metric"
"""``usage_source`` of a turn that sums up an interval of a metric: any number of requests."""

EvidenceState = Literal["present", "truncated", "redacted", "missing"]
RequestClass = Literal["main", "subagent", "auxiliary"]
TurnStatus = Literal["ok", "error", "refused"]


@quickly_made
@dataclass(frozen=True, slots=True)
class Event:
    """One received log record, span, metric point, transcript line or gateway decision.

    ``event_id`` is a digest of all that the record says: a record sent twice has one id, and two
    records with one identity that say different things have two (``collectors.event_identity``).
    ``attributes`` holds record attributes; ``resource`` the emitter's, which never override them.
    """

    event_id: str
    kind: str  # log | span | metric | transcript | decision
    name: str  # e.g. claude_code.api_request
    session_id: str
    at_us: int
    sequence: int
    attributes: Mapping[str, object]
    resource: Mapping[str, object]
    received_at_us: int
    credential: str = ""  # who sent it, by token; "" on an open loopback port
    conflict: str = ""  # the conflict that it belongs to, where one was known when it was stored


@quickly_made
@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one request in the five classes that are priced apart."""

    input_tokens: int = 0  # uncached input
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_5m_tokens: int = 0
    cache_creation_1h_tokens: int = 0

    @property
    def total_input_tokens(self) -> int:
        return (
            self.input_tokens
            + self.cache_read_tokens
            + self.cache_creation_5m_tokens
            + self.cache_creation_1h_tokens
        )

    @property
    def new_tokens(self) -> int:
        """What was not read from the cache: uncached input and cache writes."""
        return self.input_tokens + self.cache_creation_5m_tokens + self.cache_creation_1h_tokens

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_creation_5m_tokens + other.cache_creation_5m_tokens,
            self.cache_creation_1h_tokens + other.cache_creation_1h_tokens,
        )


@quickly_made
@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call of a turn, without its content.

    ``success`` is ``None`` when no result was seen. ``inferred`` marks a call that left no event:
    the request stopped for a tool, yet nothing names one (a failed edit does this); its
    ``tool_use_id`` and ``name`` are then empty.
    """

    tool_use_id: str
    name: str
    success: bool | None = None
    error_type: str = ""
    decision: str = ""  # accept | reject | "" when not seen
    duration_ms: int | None = None
    at_us: int = 0
    inferred: bool = False


@quickly_made
@dataclass(frozen=True, slots=True)
class Turn:
    """One row of the ``turns`` table (``docs/turn-table.md`` specifies each column)."""

    turn_id: str  # the request_id; a digest where an old client sent none
    request_id: str
    session_id: str
    started_at_us: int
    ended_at_us: int
    sequence: int  # with started_at_us and turn_id: the total order inside a session
    prompt_id: str = ""
    agent_id: str = ""  # "" is the main loop
    agent_name: str = ""
    query_source: str = ""
    request_class: RequestClass = "main"
    developer: str = UNATTRIBUTED
    org_path: str = UNATTRIBUTED
    repository: str = UNATTRIBUTED
    client_version: str = ""
    requested_model: str = ""
    served_model: str = ""  # "" when nothing was served
    effort: str = ""
    usage: TokenUsage = TokenUsage()
    duration_ms: int | None = None
    ttft_ms: int | None = None
    attempts: int = 1
    status: TurnStatus = "ok"
    error_status: int | None = None  # HTTP status of the last failed attempt
    stop_reason: str = ""
    prompt_chars: int | None = None  # length of the human prompt that the turn serves
    starts_prompt: bool = False  # the first turn of its prompt in its agent
    tool_calls: tuple[ToolCall, ...] = ()
    client_cost_microusd: int | None = None  # the client's own figure: reconciliation only
    cost_microusd: int | None = None  # None is unpriced, never 0
    price_version: str = ""
    unpriced_reason: str = ""
    sources: tuple[str, ...] = ()  # otlp-log, otlp-span, transcript, …
    policy_serial: int | None = None
    policy_version: int | None = None
    arm: str = ""
    rule_id: str = ""
    message_id: str = ""  # the API's id of the answer; "" when no source names it
    speed: str = ""  # standard | fast | "" when not stated
    service_tier: str = ""  # standard | priority | batch | "" when not stated
    inference_geo: str = ""  # where it was served: global, us, ...; "" when not stated
    usage_source: str = ""  # the source that the tokens were read from; "" when none told them
    cache_split_assumed: bool = False  # cache writes were not split: all count as 5-minute ones
    web_search_requests: int = 0  # searches that the API made for the request, charged apart
    charge_version: int = 0  # the re-pricing that gave the cost; 0 is the first pricing
    device_id: str = ""  # the client's id of its installation, by which gateways know it too
    org_node_id: str = ""  # node of the organization tree; "" where none is charged
    attributed_by: str = ""  # credential | directory | label | rule | nobody
    asserted_org_path: str = ""  # what labels said where that was not believed

    @property
    def model(self) -> str:
        """What the turn is charged as: the served model, the requested one if none is known."""
        return self.served_model or self.requested_model

    @property
    def failed_attempts(self) -> int:
        return self.attempts if self.status == "error" else self.attempts - 1


@quickly_made
@dataclass(frozen=True, slots=True)
class Charged:
    """How a stored turn was charged: what a later assembly of it must keep to."""

    price_version: str
    charge_version: int


ContentKind = Literal[
    "prompt", "assistant_text", "tool_input", "tool_output", "tool_error", "tool_definitions"
]


@quickly_made
@dataclass(frozen=True, slots=True)
class Content:
    """One row of the ``contents`` table: a text, kept apart from the turns for its own
    permissions and retention."""

    session_id: str
    turn_id: str  # "" for a prompt that no turn served
    prompt_id: str
    agent_id: str
    kind: ContentKind
    tool_use_id: str
    tool_name: str
    at_us: int
    sequence: int
    text: str
    state: EvidenceState
    chars: int  # length as the client states it, which may exceed len(text)
    source: str = ""


@dataclass(frozen=True, slots=True)
class ToolEvidence:
    """A tool call with what is known of its input and its result."""

    call: ToolCall
    input_text: str = ""
    input_state: EvidenceState = "missing"
    output_text: str = ""
    output_state: EvidenceState = "missing"


@dataclass(frozen=True, slots=True)
class TracedTurn:
    """A turn with its texts, as an evaluator reads it."""

    turn: Turn
    texts: tuple[str, ...] = ()
    text_state: EvidenceState = "missing"
    tools: tuple[ToolEvidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """One human message of a session. ``from_human`` is false for a task notification."""

    prompt_id: str
    at_us: int
    text: str
    state: EvidenceState
    chars: int
    from_human: bool = True


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool that the model was offered. ``input_schema`` is JSON Schema 2020-12 as JSON text; ""
    where only the name is known."""

    name: str
    input_schema: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedCall:
    """A call that a label asks for. ``arguments`` gives for each parameter the values that are
    right; ``""`` among them means that it may be left out."""

    name: str
    arguments: Mapping[str, tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class SessionTrace:
    """A session in order of time, main loop and subagents together.

    ``tools`` is empty where no source gave the tool list; ``expected_calls`` is ``None`` where
    nobody said which calls were right, and empty where none was.
    """

    session_id: str
    turns: tuple[TracedTurn, ...]
    prompts: tuple[Prompt, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[ToolDefinition, ...] = ()
    expected_calls: tuple[ExpectedCall, ...] | None = None

    @property
    def main_turns(self) -> tuple[TracedTurn, ...]:
        return tuple(turn for turn in self.turns if not turn.turn.agent_id)
