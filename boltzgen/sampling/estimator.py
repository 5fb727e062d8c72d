"""Samples that cost more than one energy each, and are worth more: redraws averaged, draws annealed, or both."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow
from boltzgen.sampling.annealed import Annealing, tune
from boltzgen.sampling.extended import Draws, ExtendedTarget
from boltzgen.sampling.marginal import Marginal, marginal
from boltzgen.target import AnyTarget

PILOT_SIZE = 128
"""Walkers from which the step sizes of the annealing are found."""

ANNEALED_BATCH = 512
"""Walkers that are annealed at once at most: arrays of a gradient stay in the cache, and progress is seen."""


class Estimator:
    """Draws slow points, ``inner`` redraws of each, every one annealed over ``refine`` bridges if there are any.

    The two go together because all that the average of redraws asks of each is that its weight be right for it
    alone, which that of an annealed draw is. ``pilot`` seeds the search for step sizes.
    """

    def __init__(self, target: AnyTarget, flow: Generator, inner: int, refine: int, pilot: torch.Generator) -> None:
        self.flow, self.inner = flow, inner
        self.extended = ExtendedTarget(target, flow)
        self.annealing: Annealing | None = None
        if refine:
            base = flow.sample_base(PILOT_SIZE, pilot)
            bridges = tune(self.extended, base.label, self._base_points(base, 1, pilot), refine, pilot)
            self.annealing = Annealing(self.extended, bridges)

    @property
    def acceptance(self) -> float | None:
        """Share of the moves that were accepted, if there were any."""
        return self.annealing.n_accepted / self.annealing.n_moves if self.annealing else None

    def draw(self, n: int, batch_size: int, rng: torch.Generator) -> Marginal:
        """One draw of each of at most ``n`` slow points, as many as ``batch_size`` redraws at once allow, or one."""
        most = min(batch_size, ANNEALED_BATCH) if self.annealing else batch_size
        n = min(n, max(1, most // self.inner))
        return marginal(self._redraws(n, rng), n, self.inner, most, rng)

    def _redraws(self, n: int, rng: torch.Generator) -> Callable[[int], Draws]:
        if self.annealing:
            base, walk = self.flow.sample_base(n, rng), self.annealing.walk
            return lambda k: walk(base.label.repeat(k), self._base_points(base, k, rng), rng)
        slow, log_slow = self.flow.sample_slow(n, rng)
        centre = self.flow.centre_of_levers(slow)

        def redraw(k: int) -> Draws:
            repeated = Slow(slow.label.repeat(k), slow.torsions.repeat(k, 1))
            of_levers = None if centre is None else centre.repeat(k, 1)
            return self.extended.weigh(repeated, log_slow.repeat(k), self._lines(k * n, rng), of_levers)

        return redraw

    def _base_points(self, base: Slow, k: int, rng: torch.Generator) -> Tensor:
        """The circles of each base point k times, each time with other lines."""
        return torch.cat([base.torsions.repeat(k, 1), self._lines(k * len(base.label), rng)], dim=1)

    def _lines(self, n: int, rng: torch.Generator) -> Tensor:
        shape = (n, self.flow.architecture.n_stiff)
        return torch.randn(shape, generator=rng, dtype=torch.float64, device=rng.device)
