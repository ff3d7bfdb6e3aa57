"""Every assumption of the simulation, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OPUS = "claude-opus-4-7"
SONNET = "claude-sonnet-4-6"
HAIKU = "claude-haiku-4-5"


@dataclass(frozen=True, slots=True)
class ModelSkill:
    """What a simulated model can do. Invented numbers, chosen to make routing worth deciding."""

    ability: float
    """Difficulty (0 to 1) at which it solves half of what it can solve."""
    spread: float
    """How gradually skill falls around ``ability``; smaller is steeper."""
    ceiling: float
    """Share of the easiest tasks that it solves at the first attempt."""
    unfaithful_share: float
    """Share of its unsolved tasks for which its last words claim success all the same."""
    seconds_per_request: float
    """Mean duration of one request."""
    context_tokens: int
    """Largest input that it accepts."""
    max_output_tokens: int
    """Largest ``max_tokens`` that it accepts."""
    thinking: tuple[str, ...]
    """Values of ``thinking.type`` that it accepts, beside none at all."""
    efforts: tuple[str, ...]
    """Values of ``output_config.effort`` that it accepts."""
    takes_sampling: bool
    """Accepts ``temperature``, ``top_p`` and ``top_k``."""


def _skills() -> dict[str, ModelSkill]:
    budget, adaptive = "enabled", "adaptive"
    efforts = ("low", "medium", "high")
    return {
        OPUS: ModelSkill(
            ability=1.25,
            spread=0.12,
            ceiling=0.96,
            unfaithful_share=0.15,
            seconds_per_request=7.0,
            context_tokens=1_000_000,
            max_output_tokens=128_000,
            thinking=(adaptive,),
            efforts=(*efforts, "xhigh"),
            takes_sampling=False,
        ),
        SONNET: ModelSkill(
            ability=0.95,
            spread=0.12,
            ceiling=0.95,
            unfaithful_share=0.25,
            seconds_per_request=5.0,
            context_tokens=200_000,
            max_output_tokens=64_000,
            thinking=(adaptive, budget),
            efforts=efforts,
            takes_sampling=True,
        ),
        HAIKU: ModelSkill(
            ability=0.62,
            spread=0.05,
            ceiling=0.96,
            unfaithful_share=0.45,
            seconds_per_request=3.0,
            context_tokens=200_000,
            max_output_tokens=64_000,
            thinking=(budget,),
            efforts=(),
            takes_sampling=True,
        ),
    }


@dataclass(frozen=True, slots=True)
class FleetParameters:
    """The simulated fleet's people, tasks, models and client. See ``docs/simulation.md``."""

    requested_model: str = OPUS
    """The model that every simulated client asks for."""
    skills: Mapping[str, ModelSkill] = field(default_factory=_skills)
    """The models that the API serves; any other name is answered with 404."""
    drift: Mapping[str, float] = field(default_factory=dict)
    """Added to a model's probability of solving a task (clipped to 0..1): a silent change of the
    model. It travels with each request, so changing it needs no restart of the API."""
    developers: int = 40
    """People, ``sim-dev-000@example.com`` and on; each works in one team and cost centre."""
    teams: tuple[str, ...] = ("sim-payments", "sim-search", "sim-platform", "sim-mobile")
    """Values of ``team.id``."""
    repositories: tuple[str, ...] = ("ledgerly", "searchlight", "platform-kit", "pocket-app")
    """Repositories of the owner ``simulated``."""
    change_share: float = 0.4
    """Share of sessions that ask for a change at length; the others ask for something small."""
    lookup_share: float = 0.2
    """Share of the small sessions that ask a question instead of a fix: no test is run."""
    subagent_share: float = 0.375
    """Share of the change requests that send a subagent ahead (0.15 of all sessions)."""
    small_prompt_chars: tuple[int, int] = (40, 120)
    """Shortest and longest prompt of a small task."""
    change_prompt_chars: tuple[int, int] = (600, 2500)
    """Shortest and longest prompt of a change request."""
    length_weight: float = 0.7
    """Part of a task's difficulty that its prompt's length (log scale) reveals; the rest is
    hidden from any router."""
    retry_share: float = 0.6
    """Probability that a model tries once more after the tests failed."""
    retry_skill: float = 0.4
    """Factor on the probability of solving at the second attempt."""
    failed_edit_share: float = 0.04
    """Probability that the first edit names a text that isn't in the file (the client then emits
    no event for the call)."""
    overload_share: float = 0.003
    """Probability that a request is answered 529 once before it is served."""
    static_body_chars: int = 75_000
    """Characters of system prompt and tool definitions in a main-loop request."""
    subagent_body_chars: int = 45_000
    """The same for a subagent's request."""
    reminder_chars: int = 9_000
    """Characters of environment, git status and instructions before the human's prompt."""
    file_chars: tuple[int, int] = (1_500, 9_000)
    """Size of the source files that are read."""
    chars_per_token: float = 3.3
    """Characters per token, the same for every model (real tokenizers differ by up to 30 %)."""
    thinking_tokens: tuple[int, int] = (60, 700)
    """Output tokens of one request beyond the reply's own text."""
    min_cacheable_tokens: int = 4_096
    """A prefix shorter than this is never cached."""
    tool_seconds: tuple[float, float] = (0.1, 12.0)
    """Duration of one tool call."""
    long_pause_share: float = 0.05
    """Probability that a person leaves a permission question waiting for more than 5 minutes, so
    that the prompt cache is cold afterwards."""
    sessions_per_export: int = 8
    """Finished sessions whose telemetry is sent in one OTLP request per signal."""
    stream: bool = True
    """Ask for server-sent events, as the real client does."""
