"""One simulated session: a developer's prompt, the agent loop, its tools and its telemetry."""

from __future__ import annotations

from dataclasses import dataclass

from loop.service.simulation.client_records import Agent, ClientRecords, Served
from loop.service.simulation.draws import between, digest, draw, identifier
from loop.service.simulation.model_client import ModelClient
from loop.service.simulation.parameters import FleetParameters
from loop.service.simulation.plans import SessionPlan
from loop.service.simulation.request_bodies import (
    MessageLog,
    opening_content,
    request_body,
    request_headers,
)
from loop.service.simulation.skill import difficulty
from loop.service.simulation.tasks import limit_of
from loop.service.simulation.telemetry import SessionTelemetry
from loop.service.simulation.tool_records import ToolUse, record_tool
from loop.service.simulation.workspace import ToolOutcome, Workspace

MAX_REQUESTS = 16  # of one agent; the scripts end well before
_LONG_PAUSE_SECONDS = (310.0, 900.0)


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """What really happened: the truth that no evaluator sees."""

    session_id: str
    repository: str
    kind: str
    prompt_chars: int
    difficulty: float
    served_models: tuple[str, ...]  # of the main loop, in order of first use
    solved: bool
    claimed_success: bool
    turns: int
    failed_requests: int
    end_at_us: int


class SessionClock:
    """Virtual time that nears its limit but never passes it."""

    def __init__(self, now_us: int, limit_us: int) -> None:
        self.now_us = now_us
        self._limit_us = limit_us

    def pass_seconds(self, seconds: float) -> int:
        left = max(self._limit_us - self.now_us, 0)
        self.now_us += min(int(seconds * 1e6), left // 2)
        return self.now_us


class ClientSession:
    """Runs one plan against a gateway. ``telemetry`` is complete once :meth:`run` returns."""

    def __init__(self, plan: SessionPlan, parameters: FleetParameters, client: ModelClient) -> None:
        self._plan = plan
        self._parameters = parameters
        self._client = client
        self._clock = SessionClock(plan.start_at_us, plan.end_at_us)
        self._workspace = Workspace(plan.repository, plan.task.path, parameters)
        self._resource = plan.resource(parameters)
        self._attribution = {
            "X-Cost-Center": self._resource["cost_center"],
            "X-Team": self._resource["team.id"],
            "x-tw-org": plan.org_path(parameters),
            "x-tw-repo": plan.repository_url,
        }
        self._device_id = digest(64, "device", plan.developer)
        self.telemetry = SessionTelemetry(
            self._resource,
            {
                "user.id": self._device_id,
                "session.id": plan.session_id,
                "anthropic.provider": "firstParty",
                "anthropic.custom_base_url": True,
                "terminal.type": "xterm",
            },
            {
                "vcs.repository.url.full": plan.repository_url,
                "vcs.owner.name": "simulated",
                "vcs.repository.name": plan.repository,
                "vcs.provider.name": "github",
            },
        )
        names = ("prompt", plan.session_id)
        self._records = ClientRecords(
            self.telemetry,
            plan.session_id,
            parameters.requested_model,
            trace_id=bytes.fromhex(digest(32, "trace", *names)),
            prompt_id=identifier("prompt-id", *names),
            interaction_span_id=bytes.fromhex(digest(16, "interaction", *names)),
        )
        self._turns = 0
        self._failed_requests = 0
        self._main_models: list[str] = []

    async def run(self) -> SessionOutcome:
        """The whole session. Raises ``Unavailable`` when the gateway is away."""
        task = self._plan.task
        self._records.started(self._clock.now_us)
        started_us = self._clock.pass_seconds(1.0)
        self._records.prompted(task.text, started_us)
        main = Agent(self._records.interaction_span_id)
        last, _ = await self._converse(main, task.text)
        self._records.finished(task.text, started_us, self._clock.now_us)
        said = last.text if last.status == 200 else ""
        return SessionOutcome(
            session_id=self._plan.session_id,
            repository=self._plan.repository,
            kind=task.kind,
            prompt_chars=len(task.text),
            difficulty=difficulty(task.text, self._parameters),
            served_models=tuple(dict.fromkeys(self._main_models)),
            solved=self._is_solved(said),
            claimed_success=said.startswith(("Fixed", "`LIMIT` is")),
            turns=self._turns,
            failed_requests=self._failed_requests,
            end_at_us=self._clock.now_us,
        )

    def _is_solved(self, said: str) -> bool:
        task, repository = self._plan.task, self._plan.repository
        if task.kind == "lookup":
            return said.startswith(f"`LIMIT` is {limit_of(repository, task.path)} ")
        return self._workspace.is_mended()

    async def _converse(self, agent: Agent, prompt: str) -> tuple[Served, int]:
        """The agent loop: the last answer and the number of tools used."""
        messages = MessageLog()
        opening = opening_content(
            self._workspace.root,
            self._plan.repository,
            prompt,
            self._parameters,
            is_subagent=bool(agent.agent_id),
        )
        messages.add("user", opening)
        for tools in range(MAX_REQUESTS):
            served = await self._request(agent, messages)
            call = served.tool_use
            if served.status != 200 or call is None:
                return served, tools
            messages.add("assistant", list(served.content))
            outcome = await self._use_tool(served, agent)
            result = {
                "type": "tool_result",
                "tool_use_id": call["id"],
                "content": outcome.text,
                "is_error": not outcome.succeeded,
            }
            messages.add("user", [result])
        return served, MAX_REQUESTS

    async def _request(self, agent: Agent, messages: MessageLog) -> Served:
        parameters = self._parameters
        user: dict[str, object] = {
            "device_id": self._device_id,
            "account_uuid": "",
            "session_id": self._plan.session_id,
            "simulated_at_us": self._clock.now_us,
        }
        if parameters.drift:
            user["simulated_drift"] = dict(parameters.drift)
        body = request_body(
            parameters.requested_model,
            messages,
            user,
            self._plan.repository,
            parameters,
            is_subagent=bool(agent.agent_id),
        )
        traceparent = f"00-{self._records.trace_id.hex()}-{agent.parent_span_id.hex()}-01"
        headers = request_headers(
            self._plan.session_id,
            self._records.prompt_id,
            traceparent,
            self._attribution,
            agent.agent_id,
        )
        served = await self._client.send(body, headers, self._pass_request, self._clock.now_us)
        self._turns += 1
        if served.status != 200:
            self._failed_requests += 1
            self._records.failed(served, agent)
            return served
        if not agent.agent_id:
            self._main_models.append(served.model)
        self._records.answered(served, agent)
        return served

    def _pass_request(self, served_model: str, attempt: int) -> int:
        if not served_model:
            return self._clock.pass_seconds(0.5 * 2**attempt)
        mean = self._parameters.skills[served_model].seconds_per_request
        names = ("request-time", self._plan.session_id, self._turns)
        return self._clock.pass_seconds(between(0.4 * mean, 1.6 * mean, *names))

    async def _use_tool(self, served: Served, agent: Agent) -> ToolOutcome:
        call = served.tool_use
        assert call is not None, "the caller saw a tool call"
        asked_us = self._clock.pass_seconds(0.02)
        allowed_us = self._clock.pass_seconds(self._permission_seconds(call["id"]))
        span_id = self._records.new_span_id()
        if call["name"] == "Agent":
            outcome = await self._run_subagent(call, agent, span_id)
        else:
            outcome = self._workspace.use(call["name"], call["input"])
            self._clock.pass_seconds(between(*self._parameters.tool_seconds, "tool", call["id"]))
        if outcome.is_recorded:
            ended_us = self._clock.now_us
            use = ToolUse(served, outcome, agent, asked_us, allowed_us, ended_us, span_id)
            record_tool(self._records, use)
        self._clock.pass_seconds(0.05)
        return outcome

    def _permission_seconds(self, tool_use_id: str) -> float:
        if draw("pause", tool_use_id) < self._parameters.long_pause_share:
            return between(*_LONG_PAUSE_SECONDS, "pause-length", tool_use_id)
        return between(0.01, 4.0, "permission", tool_use_id)

    async def _run_subagent(
        self, call: dict[str, dict[str, str]], parent: Agent, span_id: bytes
    ) -> ToolOutcome:
        """A subagent in the foreground: its records lie under the call's execution span."""
        agent = Agent(
            span_id, f"a{digest(16, 'agent', call['id'])}", call["input"]["subagent_type"]
        )
        started_us = self._clock.now_us
        last, tools = await self._converse(agent, call["input"]["prompt"])
        times_us = (started_us, self._clock.now_us)
        self._records.subagent_completed(agent, last, tools, times_us)
        return ToolOutcome(last.text or last.error, succeeded=last.status == 200)
