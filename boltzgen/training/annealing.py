"""The schedule: temperature, batch size and learning rate as training goes on.

Progress runs from 0 to 1 over the budget, whether that is counted in energies or in seconds, so that every run ends
with a finished flow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MEDIUM_TRAINING = 300_000
"""Draws of a training that is as well off with the batches of a short one."""

MOST_GROWTH = 16

SHARE_OF_DEAR = 0.25
"""Share of the batches where draws take many energies: of long chains, which are far from learnt, steps teach more."""

GAP_LIMIT, GAP_OF_TORSION = 2.0, 0.25
"""nats between log Z and the ELBO below which a temperature is left; of each slow torsion, if that is more."""


def growth(draws: float) -> int:
    """How many times the batches of a short training one of so many draws has: √draws, shared by steps and batch."""
    return round(min(max(1.0, math.sqrt(draws / MEDIUM_TRAINING)), MOST_GROWTH))


@dataclass(frozen=True)
class Schedule:
    """Fixed functions of progress in [0, 1]."""

    learning_rate: float = 3e-3
    warmup_steps: int = 50
    batches: tuple[tuple[float, int], ...] = ((0.0, 256), (0.15, 512), (0.5, 1024), (0.8, 2048))
    """(progress from which, batch size) of a short training: many small steps first, then less noise."""
    share: float = 1.0
    """Of these sizes: less where draws are dear, so that there are as many steps more."""

    def batch(self, progress: float, draws: float = 0.0) -> int:
        """Batch size in a training of so many draws in all, see :func:`growth`."""
        size = growth(draws) * next(size for start, size in reversed(self.batches) if progress >= start)
        return round(self.share * size)

    def rate(self, progress: float, step: int) -> float:
        """Learning rate: linear warm-up, then cosine to 1 % of the maximum."""
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * (0.01 + 0.99 * cosine)


@dataclass
class Cooling:
    """Geometric cooling from ``start`` to ``final`` K in ``levels`` steps, by a criterion and not by the clock alone.

    A level is left when the gap between log Z and the ELBO is below ``gap_limit`` nats, at the earliest when progress
    allows it (all levels are open at ``fast``); a budget that runs out forces it (all levels are left at ``slow``).
    ``steps`` counts those at the current level.
    """

    start: float
    final: float
    levels: int = 12
    gap_limit: float = GAP_LIMIT
    fast: float = 0.2
    slow: float = 0.45
    level: int = 0
    steps: int = 0

    @property
    def temperature(self) -> float:
        """Current temperature in K."""
        return self.final * math.exp(self.heat())

    def heat(self, level: int | None = None) -> float:
        """ln T/T₀ of a level, of the current one by default, with the final temperature T₀."""
        return (1.0 - (self.level if level is None else level) / self.levels) * math.log(self.start / self.final)

    @property
    def finished(self) -> bool:
        """Whether the final temperature is reached."""
        return self.level >= self.levels

    def update(self, progress: float, gap: float) -> None:
        """After a step, go on by at most one level, given progress and the current gap in nats."""
        allowed = min(self.levels, int(self.levels * progress / self.fast))
        forced = min(self.levels, int(self.levels * progress / self.slow))
        due = self.level < forced or (self.level < allowed and gap < self.gap_limit)
        self.level += due
        self.steps = 0 if due else self.steps + 1
