"""The gradient of one training step, as a sum over parts that may run side by side."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from boltzgen.flow.generator import Generator
from boltzgen.target import Target
from boltzgen.training.objectives import Scored, broad_choice, forward_kl, reverse_kl, score
from boltzgen.training.replay import Pool

PART_SIZE = 1024
"""Samples of one part on a CPU at most: intermediate arrays of this size stay in the cache."""

SMALLEST_PART = 256
"""Samples below which a batch is not cut in two for a second thread: the overhead would eat the gain."""

BROAD_SHARE = 0.25
"""Share of the draws in which one slow coordinate (rotors excepted) is drawn uniformly: the stiff coordinates stay
right where the flow has little mass, and the slow ones learn from every basin."""


@dataclass(frozen=True)
class StepPlan:
    """What one step does, at a temperature in K."""

    batch: int
    temperature: float
    pool: Pool | None
    """Reweighted draws that the slow coordinates learn from; None in the very first steps."""
    seed: tuple[int, int]
    """Seed of the training and number of the step: the draws depend on nothing else."""


@dataclass(frozen=True)
class StepGradient:
    """Gradient per parameter, and what came out of the draws.

    ``log_weights`` are of the draws without a uniform coordinate; ``scored`` has all draws of each part, detached.
    """

    gradients: list[Tensor]
    log_weights: Tensor
    scored: list[Scored]
    n_failed: int


class GradientWorkers:
    """Evaluates the parts of a step on a few threads.

    Threads, each on its own part, share nothing but the weights, so that a busy core delays one part and not
    every operation as it would with threads inside operations. The result does not depend on their number.
    """

    def __init__(self, generator: Generator, target: Target, threads: int) -> None:
        self._generator, self._target = generator, target
        self._parameters = list(generator.parameters())
        self._device = self._parameters[0].device
        atlas = target.coordinates
        broad = list(range(atlas.n_torsions - len(atlas.zmatrix.rotors)))
        if atlas.n_charts > 1:
            broad.append(atlas.n_torsions)  # the label
        self._broad = torch.tensor(broad, dtype=torch.int64, device=self._device)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 and self._device.type == "cpu" else None

    @contextmanager
    def active(self) -> Iterator[None]:
        """End the threads on leaving."""
        try:
            yield
        finally:
            if self._pool:
                self._pool.shutdown()

    def step(self, plan: StepPlan) -> StepGradient:
        """The gradient of one step: the sum over its parts, always in the same order."""
        n_parts = self._n_parts(plan.batch)
        sizes = [(plan.batch + part) // n_parts for part in range(n_parts)]
        jobs = [(plan, n, part) for part, n in enumerate(sizes)]
        parts = list(self._pool.map(self._part, jobs) if self._pool else map(self._part, jobs))
        return StepGradient(
            gradients=[
                reduce(torch.add, column).contiguous()
                for column in zip(*(part.gradients for part in parts), strict=True)
            ],
            log_weights=torch.cat([part.log_weights for part in parts]).double(),
            scored=[scored for part in parts for scored in part.scored],
            n_failed=sum(part.n_failed for part in parts),
        )

    def _n_parts(self, batch: int) -> int:
        if self._device.type != "cpu":
            return 1
        return max(-(-batch // PART_SIZE), min(2, batch // SMALLEST_PART), 1)

    def _part(self, job: tuple[StepPlan, int, int]) -> StepGradient:
        plan, n, part = job
        rng = self._random((*plan.seed, part))
        uniform = broad_choice(n, int(BROAD_SHARE * n), self._broad, rng)
        scored = score(self._generator, self._target, n, plan.temperature, rng, uniform)
        good = torch.isfinite(scored.log_weight)
        own = scored.select(good & (uniform < 0))
        broad = scored.select(good & (uniform >= 0))
        loss = 0.0 * self._parameters[0].sum()  # so that there is a gradient even if every energy fails
        for group in (own, broad):
            if len(group.log_weight):
                loss = loss + len(group.log_weight) * reverse_kl(group)
        if plan.pool:
            loss = loss + n * forward_kl(self._generator, plan.pool.draw(n, rng))
        gradients = torch.autograd.grad(loss / plan.batch, self._parameters, materialize_grads=True)
        return StepGradient(list(gradients), own.log_weight.detach(), [scored.detach()], int((~good).sum()))

    def _random(self, seed: tuple[int, ...]) -> torch.Generator:
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
        return torch.Generator(self._device).manual_seed(int(state >> 1))
