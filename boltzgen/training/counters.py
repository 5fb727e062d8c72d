"""What a training has spent, and what went wrong on the way."""

from __future__ import annotations

from dataclasses import dataclass

from boltzgen.training.method import Method
from boltzgen.training.step import StepGradient


@dataclass
class Counters:
    """Numbers that only grow, each also a column of the history.

    ``energies`` and ``forces`` are evaluations, ``replayed`` earlier draws and ``frames`` data that were learnt from.
    ``seconds`` is the time that a training took, ``seconds_energy`` and ``seconds_flow`` are sums over threads.
    """

    step: int = 0
    energies: int = 0
    forces: int = 0
    replayed: int = 0
    frames: int = 0
    skipped_steps: int = 0
    failed_energies: int = 0
    seconds: float = 0.0
    seconds_energy: float = 0.0
    seconds_flow: float = 0.0
    seconds_exchange: float = 0.0
    seconds_other: float = 0.0

    def add_energies(self, n: int) -> None:
        """Count energies; in training each comes with its forces."""
        self.energies += n
        self.forces += n

    def add_step(self, step: StepGradient, batch: int, method: Method, redraws: int, *, replays: bool) -> None:
        """Count what the gradient of a step took; the step itself is counted when the weights have moved."""
        self.add_energies(batch * redraws if method.own else 0)
        self.failed_energies += step.n_failed
        self.replayed += batch if replays else 0
        self.frames += batch if method.data else 0
        self.seconds_energy += step.seconds_energy
        self.seconds_flow += step.seconds_flow

    def add_slow_step(self, step: StepGradient, batch: int) -> None:
        """Count a step of the slow coordinates alone."""
        self.replayed += batch
        self.seconds_flow += step.seconds_flow
