"""A simulated fleet of Claude Code users, for the demonstration and for tests.

Nothing here is an observation. The fleet's clients speak to a gateway as the real client does and
emit the real client's telemetry; the model API behind the gateway is a fake whose skill, speed and
mistakes are the parameters of :class:`~loop.service.simulation.parameters.FleetParameters`.
Everything that it emits says so (``department=simulated``, ``turnwise.simulated=true``).
``docs/simulation.md`` documents the parameters and what is simplified.
"""

from loop.service.simulation.fleet import Fleet, FleetReport
from loop.service.simulation.ground_truth import ExpectedQuality, expected_quality
from loop.service.simulation.model_api import ModelApi
from loop.service.simulation.model_api_process import model_api_process
from loop.service.simulation.parameters import FleetParameters

__all__ = [
    "ExpectedQuality",
    "Fleet",
    "FleetParameters",
    "FleetReport",
    "ModelApi",
    "expected_quality",
    "model_api_process",
]
