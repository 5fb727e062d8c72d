"""The coverage probe: structures from outside a flow, and what they say that it has lost."""

from boltzgen.probe.challenge import Challenge, challenge
from boltzgen.probe.probe import ProbeCoverage, ProbedState, probe

__all__ = ["Challenge", "ProbeCoverage", "ProbedState", "challenge", "probe"]
