"""What an adapter of a convention promises, and the records that it reads telemetry into.

A *convention* is how one family of tools writes model calls down in OTLP: the OTel GenAI semantic
conventions, OpenInference and so on. Its adapter turns the records of one session into
:class:`ModelCall` and :class:`ToolRun`; ``convention_turns`` makes turns, tool calls and contents
of these, the same way for every convention.

``docs/conventions.md`` says how to write one and which attributes are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from collectors.api_usage import UNSTATED, ServiceTerms
from collectors.event_fields import text
from loop.domain.turns import Event, EvidenceState, TokenUsage

ENTRY_POINTS = "turnwise.conventions"
"""The entry-point group that names adapters: each entry is a class that takes no arguments."""

SCOPE = "otel.scope"
"""The attribute under which an event of a foreign tool keeps its instrumentation scope's name."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text and whether it is whole."""

    text: str
    state: EvidenceState = "present"


@dataclass(frozen=True, slots=True)
class AskedTool:
    """A tool call that an answer asks for. ``tool_use_id`` is "" where the convention drops it;
    ``arguments`` is JSON text, ``None`` where they are not told."""

    tool_use_id: str
    name: str
    arguments: Text | None = None


@dataclass(frozen=True, slots=True)
class GivenResult:
    """A tool's result as a later message gives it to the model. ``is_error`` is ``None`` where the
    convention does not say."""

    tool_use_id: str
    output: Text
    is_error: bool | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a request or an answer. ``role`` is in lower case."""

    role: str
    texts: tuple[Text, ...] = ()
    asked: tuple[AskedTool, ...] = ()
    results: tuple[GivenResult, ...] = ()


@dataclass(frozen=True, slots=True)
class CallUsage:
    """The tokens of one call.

    ``unpriced_reason`` is not empty where the counts are not enough for a price: the classes that
    cost differently were not told apart.
    """

    tokens: TokenUsage
    split_assumed: bool = False
    unpriced_reason: str = ""


@dataclass(slots=True)
class ModelCall:
    """One request to a model, as one span tells of it.

    ``request_id`` is the provider's id of the HTTP request (``req_…``), ``message_id`` that of the
    answer (``msg_…``, ``chatcmpl-…``); both "" where not told. Two calls of a session that share
    one of them are the same request. ``usage`` is ``None`` where no tokens were told.
    ``cost_microusd`` is the tool's own figure, kept for reconciliation alone.
    """

    event: Event
    request_id: str = ""
    message_id: str = ""
    requested_model: str = ""
    served_model: str = ""
    usage: CallUsage | None = None
    terms: ServiceTerms = UNSTATED
    cost_microusd: int | None = None
    stop_reason: str = ""
    failed: bool = False
    error_status: int | None = None
    ttft_ms: int | None = None
    asked: tuple[Message, ...] = ()
    answered: tuple[Message, ...] = ()
    offered: Text | None = None  # the tools on offer: JSON, a list of names with their schemas
    convention: str = ""  # filled in by the assembly


@dataclass(slots=True)
class ToolRun:
    """One execution of a tool, as one span tells of it. ``tool_use_id`` is "" where not told."""

    event: Event
    name: str
    tool_use_id: str = ""
    arguments: Text | None = None
    output: Text | None = None
    failed: bool = False
    error_type: str = ""
    convention: str = ""  # filled in by the assembly


@dataclass(slots=True)
class ToldSession:
    """What an adapter reads out of one session's records of its convention.

    ``agents`` names the agents by the id of their spans. ``identity`` maps ids of events to the
    attributes of turnwise's attribution (``user.email``, ``user.id``, ``team.id`` …) that the
    convention tells under names of its own.
    """

    calls: list[ModelCall] = field(default_factory=list)
    tools: list[ToolRun] = field(default_factory=list)
    agents: dict[str, str] = field(default_factory=dict)
    identity: dict[str, dict[str, str]] = field(default_factory=dict)


class Convention(Protocol):
    """An adapter. It keeps no state, and never raises on odd attributes: what is absent or of the
    wrong type is not told.

    It never invents: what the telemetry does not say stays empty or ``None``, and counts that
    can't be told apart carry a reason instead of a guess.
    """

    name: str
    """The convention's name, in lower case: what ``turns.sources`` says."""

    rank: int
    """Who is asked first where several recognise a record: the lower, the sooner. Shipped adapters
    that know their records by a scope or prefix of their own rank 20, the general ones 80 and 90;
    one for a tool of your own goes below 20."""

    def recognises(self, scope: str, name: str, attributes: Mapping[str, Any]) -> bool:
        """Whether a log record or span is of this convention, by its instrumentation scope, its
        name and its attributes alone. Asked once for each record of a foreign scope: cheap."""

    def session_of(self, attributes: Mapping[str, Any]) -> str:
        """The id of the conversation that a record names, else "" (its trace stands in then)."""

    def read(self, events: Sequence[Event]) -> ToldSession:
        """The calls and tools that the records of one session tell of.

        ``events`` are this convention's, each once, in total order; so the result depends on their
        set alone. A span that only wraps a model call need not be told apart from it: of calls
        inside each other the innermost counts.
        """


def is_failed(event: Event) -> bool:
    """Whether a span ended in an error, by its status or ``error.type``."""
    status = event.attributes.get("otel.status_code")
    return status == 2 or bool(text(event, "error.type"))
