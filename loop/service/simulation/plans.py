"""Who asks what, where and when: everything about a session that is settled before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from loop.service.simulation.draws import draw, identifier, pick
from loop.service.simulation.parameters import FleetParameters
from loop.service.simulation.tasks import Task, make_task


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """One session to come. Times in UTC microseconds; nothing happens after ``end_at_us``."""

    session_id: str
    developer: int
    repository: str
    task: Task
    start_at_us: int
    end_at_us: int

    @property
    def repository_url(self) -> str:
        return f"https://github.com/simulated/{self.repository}"

    def resource(self, parameters: FleetParameters) -> dict[str, str]:
        """What the developer's ``OTEL_RESOURCE_ATTRIBUTES`` hold."""
        team = parameters.teams[self.developer % len(parameters.teams)]
        return {
            "department": "simulated",
            "team.id": team,
            "cost_center": f"sim-cc-{self.developer % (2 * len(parameters.teams)):02d}",
            "enduser.id": f"sim-dev-{self.developer:03d}@example.com",
            "turnwise.simulated": "true",
        }

    def org_path(self, parameters: FleetParameters) -> str:
        resource = self.resource(parameters)
        return f"{resource['department']}/{resource['team.id']}/{resource['cost_center']}"


def plan_session(
    parameters: FleetParameters, seed: int, number: int, start_at_us: int, end_at_us: int
) -> SessionPlan:
    """The ``number``-th session of a seed; the same in every process."""
    names = ("session", seed, number)
    return SessionPlan(
        session_id=identifier(*names),
        developer=int(draw("developer", *names) * parameters.developers),
        repository=pick(parameters.repositories, "repository", *names),
        task=make_task(parameters, *names),
        start_at_us=start_at_us,
        end_at_us=end_at_us,
    )
