"""What the real client (2.1.330, all content switches on) records of each happening.

Quirks kept on purpose, because collectors must cope with them: ``success`` and durations of tool
results are strings, ``model`` of ``api_request`` is the served model while ``cost_usd``, metrics
and spans know the requested one only, a failed command leaves no output, and a refused edit leaves
nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from loop.domain.money import Price, cost_microusd
from loop.domain.turns import TokenUsage
from loop.service.simulation.draws import digest, identifier
from loop.service.simulation.parameters import HAIKU, OPUS, SONNET
from loop.service.simulation.request_bodies import effort_of
from loop.service.simulation.telemetry import Attributes, SessionTelemetry


def _price(model: str, dollars: int) -> Price:
    """The client's own table, per million tokens: all classes follow from the input price."""
    unit = dollars * 1_000_000
    return Price(
        model=model,
        effective_from="2026-01-01",
        input_microusd=unit,
        output_microusd=5 * unit,
        cache_read_microusd=unit // 10,
        cache_creation_5m_microusd=unit * 5 // 4,
        cache_creation_1h_microusd=2 * unit,
    )


CLIENT_PRICES = {OPUS: _price(OPUS, 5), SONNET: _price(SONNET, 3), HAIKU: _price(HAIKU, 1)}
_NO_USAGE = TokenUsage()


@dataclass(frozen=True, slots=True)
class Agent:
    """Who acts: the main loop (``agent_id`` empty) or a subagent; ``parent_span_id`` is the span
    that its requests and tools belong under."""

    parent_span_id: bytes
    agent_id: str = ""
    name: str = ""

    @property
    def query_source(self) -> str:
        return f"agent:builtin:{self.name}" if self.agent_id else "sdk"

    @property
    def identity(self) -> Attributes:
        return {"agent_id": self.agent_id} if self.agent_id else {}


@dataclass(frozen=True, slots=True)
class Served:
    """One answer, or one final failure (``status`` other than 200), as the client saw it."""

    status: int
    request_id: str
    started_at_us: int
    ended_at_us: int
    attempts_at_us: tuple[int, ...]
    model: str = ""
    content: tuple[dict[str, Any], ...] = ()
    stop_reason: str = ""
    usage: TokenUsage = _NO_USAGE
    error: str = ""

    @property
    def text(self) -> str:
        return "".join(block["text"] for block in self.content if block["type"] == "text")

    @property
    def tool_use(self) -> dict[str, Any] | None:
        return next((block for block in self.content if block["type"] == "tool_use"), None)

    @property
    def duration_ms(self) -> int:
        return (self.ended_at_us - self.started_at_us) // 1000


@dataclass(slots=True)
class ClientRecords:
    """Writes the records of one session with one prompt into its telemetry.

    Those of its tools are in :mod:`loop.service.simulation.tool_records`.
    """

    telemetry: SessionTelemetry
    session_id: str
    requested_model: str
    trace_id: bytes
    prompt_id: str
    interaction_span_id: bytes
    _spans: int = field(default=0)

    def started(self, at_us: int) -> None:
        settings: dict[str, Any] = {
            "managed_settings.trigger": "startup",
            "managed_settings.sources": [],
            "managed_settings.source_behavior": "first-wins",
            "managed_settings.helper.state": "none",
            "managed_settings.helper.applied": "none",
        }
        self.telemetry.event("managed_settings_resolved", at_us, settings, knows_repository=False)
        self.telemetry.count("session.count", 1, at_us, {"start_type": "fresh"})

    def prompted(self, text: str, at_us: int) -> None:
        attributes: Attributes = {
            "prompt_length": str(len(text)),
            "prompt": text,
            "prompt_text": text,
            "message.uuid": identifier("prompt", self.session_id),
        }
        self.event(
            "user_prompt", at_us, self.interaction_span_id, attributes, knows_repository=False
        )

    def finished(self, text: str, started_at_us: int, ended_at_us: int) -> None:
        milliseconds = (ended_at_us - started_at_us) // 1000
        attributes: Attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.conversation.id": self.session_id,
            "user_prompt": text,
            "user_prompt_length": len(text),
            "interaction.sequence": 1,
            "parent.source": "none",
            "queued_sends": 0,
            "interaction.duration_ms": milliseconds,
        }
        self.telemetry.span(
            "interaction",
            started_at_us,
            ended_at_us,
            attributes,
            trace_id=self.trace_id,
            span_id=self.interaction_span_id,
            knows_repository=False,
        )
        self.telemetry.count("active_time.total", milliseconds / 1000, ended_at_us, {"type": "cli"})

    def answered(self, served: Served, agent: Agent) -> None:
        """A request that was served: event, text, span and metrics."""
        usage = served.usage
        price = CLIENT_PRICES.get(self.requested_model, CLIENT_PRICES[OPUS])
        microusd = cost_microusd(usage, price)
        first_ms = max(served.duration_ms // 5, 1)
        created = usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens
        tokens: Attributes = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_tokens": usage.cache_read_tokens,
            "cache_creation_tokens": created,
        }
        event: Attributes = {
            "model": served.model,
            **tokens,
            "cache_creation_5m_tokens": usage.cache_creation_5m_tokens,
            "cache_creation_1h_tokens": usage.cache_creation_1h_tokens,
            "cost_usd": microusd / 1e6,
            "cost_usd_micros": microusd,
            "duration_ms": served.duration_ms,
            "ttft_ms": first_ms,
            "request_id": served.request_id,
            **self._source(agent),
            **({"agent.name": agent.name} if agent.agent_id else {}),
            **agent.identity,
        }
        self.event("api_request", served.ended_at_us, agent.parent_span_id, event)
        if served.text:
            self._responded(served, agent)
        span: Attributes = {
            **self._request_span(served, agent),
            **tokens,
            "success": True,
            "attempt": len(served.attempts_at_us),
            "request_id": served.request_id,
            "gen_ai.response.id": served.request_id,
            "ttft_ms": first_ms,
            "first_content_ms": first_ms,
            **self._effort(),
            "stop_reason": served.stop_reason,
            "gen_ai.response.finish_reasons": [served.stop_reason],
        }
        self._llm_span(served, agent, span)
        self._count_usage(usage, created, microusd, served.ended_at_us, agent)

    def failed(self, served: Served, agent: Agent) -> None:
        """A request that the client gave up on."""
        attempts = len(served.attempts_at_us)
        failure: Attributes = {"error": served.error, "status_code": served.status}
        event: Attributes = {
            "model": self.requested_model,
            **failure,
            "duration_ms": served.duration_ms,
            "attempt": attempts,
            "request_id": served.request_id,
            **self._source(agent),
            **agent.identity,
        }
        self.event("api_error", served.ended_at_us, agent.parent_span_id, event)
        if attempts > 1:
            exhausted: Attributes = {
                "model": self.requested_model,
                **failure,
                "total_attempts": attempts,
                "total_retry_duration_ms": served.duration_ms,
                **self._source(agent),
            }
            self.event("api_retries_exhausted", served.ended_at_us, agent.parent_span_id, exhausted)
        span: Attributes = {
            **self._request_span(served, agent),
            "success": False,
            "attempt": attempts,
            "request_id": served.request_id,
            "gen_ai.response.id": served.request_id,
            **failure,
            "error_class": "client_error" if served.status < 500 else "server_overload",
            **self._effort(),
        }
        self._llm_span(served, agent, span, error=served.error)

    def subagent_completed(
        self, agent: Agent, last: Served, tools: int, times_us: tuple[int, int]
    ) -> None:
        usage = last.usage
        attributes: Attributes = {
            "agent_type": agent.name,
            "agent.source": "built-in",
            "is_built_in": True,
            "is_async": False,
            "total_tokens": usage.total_input_tokens + usage.output_tokens,
            "total_tool_uses": tools,
            "duration_ms": (times_us[1] - times_us[0]) // 1000,
            "model": self.requested_model,
            "final_model": self.requested_model,
            "model_swapped": False,
            "agent_id": agent.agent_id,
        }
        self.event("subagent_completed", times_us[1], agent.parent_span_id, attributes)

    def event(
        self,
        name: str,
        at_us: int,
        span_id: bytes,
        attributes: Attributes,
        *,
        knows_repository: bool = True,
    ) -> None:
        self.telemetry.event(
            name,
            at_us,
            {"prompt.id": self.prompt_id, **attributes},
            trace_id=self.trace_id,
            span_id=span_id,
            knows_repository=knows_repository,
        )

    def _responded(self, served: Served, agent: Agent) -> None:
        attributes: Attributes = {
            "response_length": len(served.text),
            "response": served.text,
            "request_id": served.request_id,
            "message.uuid": identifier("message", served.request_id),
            "model": served.model,
            "query_source": agent.query_source,
            **agent.identity,
        }
        self.event("assistant_response", served.ended_at_us, agent.parent_span_id, attributes)

    def _source(self, agent: Agent) -> Attributes:
        return {"speed": "normal", "query_source": agent.query_source, **self._effort()}

    def _effort(self) -> dict[str, str]:
        effort = effort_of(self.requested_model)
        return {"effort": effort} if effort else {}

    def _request_span(self, served: Served, agent: Agent) -> Attributes:
        return {
            "model": self.requested_model,
            "gen_ai.system": "anthropic",
            "gen_ai.request.model": self.requested_model,
            "llm_request.context": "tool" if agent.agent_id else "interaction",
            "speed": "normal",
            "gen_ai.conversation.id": agent.agent_id or self.session_id,
            "query_source_safe": agent.query_source.replace(":", "."),
            **agent.identity,
            "duration_ms": served.duration_ms,
        }

    def _llm_span(
        self, served: Served, agent: Agent, attributes: Attributes, error: str = ""
    ) -> None:
        self.telemetry.span(
            "llm_request",
            served.started_at_us,
            served.ended_at_us,
            attributes,
            trace_id=self.trace_id,
            span_id=self.new_span_id(),
            parent_span_id=agent.parent_span_id,
            error=error,
            events=[
                ("gen_ai.request.attempt", at_us, {"attempt": number})
                for number, at_us in enumerate(served.attempts_at_us, 1)
            ],
        )

    def _count_usage(
        self, usage: TokenUsage, created: int, microusd: int, at_us: int, agent: Agent
    ) -> None:
        labels: Attributes = {
            "model": self.requested_model,
            "query_source": "subagent" if agent.agent_id else "main",
            **self._effort(),
            **({"agent.name": agent.name} if agent.agent_id else {}),
        }
        self.telemetry.count("cost.usage", microusd / 1e6, at_us, labels)
        amounts = {
            "input": usage.input_tokens,
            "output": usage.output_tokens,
            "cacheRead": usage.cache_read_tokens,
            "cacheCreation": created,
        }
        for kind, amount in amounts.items():
            self.telemetry.count("token.usage", amount, at_us, {**labels, "type": kind})

    def new_span_id(self) -> bytes:
        self._spans += 1
        return bytes.fromhex(digest(16, "span", self.session_id, self._spans))
