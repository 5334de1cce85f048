"""One deployment, or one architecture, under a task's load at its busiest hour."""

from advisor.simulation.results import SimulationResult
from advisor.simulation.simulate import simulate

__all__ = ["SimulationResult", "simulate"]
