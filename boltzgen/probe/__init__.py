"""The coverage probe: structures from outside a flow, and what they say that it has lost."""

from boltzgen.probe.challenge import Challenge, challenge
from boltzgen.probe.probe import probe
from boltzgen.probe.result import ProbeCoverage, ProbedState

__all__ = ["Challenge", "ProbeCoverage", "ProbedState", "challenge", "probe"]
