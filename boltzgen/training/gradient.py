"""The gradient of one training step, as a sum over parts that may run side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from boltzgen.flow.generator import Generator, Slow
from boltzgen.target import Target
from boltzgen.training.challengers import Challengers
from boltzgen.training.data import DataSet, negative_log_likelihood
from boltzgen.training.method import Method
from boltzgen.training.objectives import (
    Clock,
    Scored,
    broad_choice,
    forward_kl,
    label_surrogate,
    reverse_kl,
    score,
    score_led,
)
from boltzgen.training.reaction import ReactionCoordinate, spread_loss
from boltzgen.training.replay import Pool

PART_SIZE = 1024
"""Samples of one part on a CPU at most: intermediate arrays of this size stay in the cache."""

SMALLEST_PART = 256
"""Samples below which a batch is not cut in two for a second thread: the overhead would eat the gain."""


@dataclass(frozen=True)
class Sources:
    """What a method may learn from beside the energy."""

    data: DataSet | None = None
    coordinate: ReactionCoordinate | None = None


@dataclass(frozen=True)
class StepPlan:
    """What one step does. Heats are ln T/T₀."""

    batch: int
    heat: float
    hot: float | None
    """A temperature passed before, at which a share of the draws is made; None as long as there is none."""
    pools: tuple[Pool, ...]
    """Reweighted draws at these temperatures that the slow coordinates learn from; none in the very first steps."""
    seed: tuple[int, int]
    """Seed of the training and number of the step: the draws depend on nothing else."""
    challengers: Challengers | None = None
    """Those with structures to propose."""


@dataclass(frozen=True)
class Part:
    """Gradient per parameter of a part of a step, and what came out of its draws.

    ``scored`` has all draws, detached; ``own`` those of them that have no uniform coordinate and an energy.
    ``losses`` are means by name, before their weights. Of the n draws challengers led ``n_led``, which replay and data
    have no part in. Seconds are of this thread.
    """

    n: int
    gradients: list[Tensor]
    scored: list[Scored]
    own: Scored | None
    losses: dict[str, float]
    n_failed: int
    n_led: int
    seconds_energy: float
    seconds_flow: float


@dataclass(frozen=True)
class StepGradient:
    """The sum over the parts of a step; seconds are summed over threads."""

    gradients: list[Tensor]
    scored: list[Scored]
    own: list[Scored]
    losses: dict[str, float]
    n_failed: int
    n_led: int
    seconds_energy: float
    seconds_flow: float

    @classmethod
    def of(cls, parts: list[Part]) -> StepGradient:
        """Sum parts, always in the same order."""
        total = sum(part.n for part in parts)
        names = [name for name in parts[0].losses if all(name in part.losses for part in parts)]
        return cls(
            gradients=[
                reduce(torch.add, column).contiguous()
                for column in zip(*(part.gradients for part in parts), strict=True)
            ],
            scored=[scored for part in parts for scored in part.scored],
            own=[part.own for part in parts if part.own],
            losses={name: sum(part.n * part.losses[name] for part in parts) / total for name in names},
            n_failed=sum(part.n_failed for part in parts),
            n_led=sum(part.n_led for part in parts),
            seconds_energy=sum(part.seconds_energy for part in parts),
            seconds_flow=sum(part.seconds_flow for part in parts),
        )


class GradientWorkers:
    """Evaluates the parts of a step on a few threads.

    Threads, each on its own part, share nothing but the weights, so that a busy core delays one part and not
    every operation as it would with threads inside operations. The result does not depend on their number.
    """

    def __init__(
        self, generator: Generator, target: Target, threads: int, method: Method, sources: Sources | None = None
    ) -> None:
        self._generator, self._target, self._method = generator, target, method
        self._sources = sources or Sources()
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
        """The gradient of one step: the sum over its parts."""
        n_parts = self._n_parts(plan.batch)
        sizes = [(plan.batch + part) // n_parts for part in range(n_parts)]
        jobs = [(plan, n, part) for part, n in enumerate(sizes)]
        return StepGradient.of(list(self._pool.map(self._part, jobs) if self._pool else map(self._part, jobs)))

    def _n_parts(self, batch: int) -> int:
        if self._device.type != "cpu":
            return 1
        return max(-(-batch // PART_SIZE), min(2, batch // SMALLEST_PART), 1)

    def _part(self, job: tuple[StepPlan, int, int]) -> Part:
        plan, n, part = job
        started, clock = time.perf_counter(), Clock()
        method, sources, generator = self._method, self._sources, self._generator
        rng = self._random((*plan.seed, part))
        loss = 0.0 * self._parameters[0].sum()  # so that there is a gradient even if every energy fails
        losses: dict[str, Tensor] = {}
        scored: list[Scored] = []
        own = None
        n_failed = 0
        n_led = int(method.challengers * n) if plan.challengers else 0
        if n_led and plan.challengers:
            lead = plan.challengers.propose(n_led, rng)
            led = score_led(generator, self._target, lead, lead.log_prob.new_full((n_led,), plan.heat), rng, clock)
            scored.append(led.detach())
            led = led.select(torch.isfinite(led.log_weight))
            n_failed = n_led - len(led)
            if len(led):
                loss = loss + method.own * len(led) * reverse_kl(led)
        n -= n_led
        n_hot = 0 if plan.hot is None else int(method.hot_share * n)
        if method.own:
            uniform = broad_choice(n, int(method.broad_share * n), self._broad, rng)
            hot = torch.arange(n, device=self._device) >= n - n_hot
            heat = torch.where(hot, plan.hot or 0.0, torch.full((n,), plan.heat, device=self._device))
            through = method.through_slow
            drawn = score(generator, self._target, n, rng, uniform, heat, through_slow=through, clock=clock)
            scored.append(drawn.detach())
            good = torch.isfinite(drawn.log_weight)
            n_failed += n - int(good.sum())
            own = drawn.select(good & (uniform < 0) & ~hot)
            for group in (own, drawn.select(good & (uniform >= 0)), drawn.select(good & hot)):
                if len(group):
                    loss = loss + method.own * len(group) * reverse_kl(group)
            if len(own):
                losses["reverse_kl"] = reverse_kl(own) - own.log_weight.median()
            if len(own) and through and self._target.coordinates.n_charts > 1:
                loss = loss + method.own * len(own) * label_surrogate(generator, own)
        if method.replay and plan.pools:
            shares = (n - n_hot, n_hot) if len(plan.pools) > 1 else (n,)
            drawn_of = zip(plan.pools, shares, strict=True)
            replayed = Slow.cat([pool.draw(k, rng) for pool, k in drawn_of if k])  # the last few draws have none hot
            losses["forward_kl"] = forward_kl(generator, replayed)
            loss = loss + method.replay * n * losses["forward_kl"]
        if method.data and sources.data:
            losses["data"] = negative_log_likelihood(generator, sources.data.training.draw(n, rng))
            loss = loss + method.data * n * losses["data"]
        if method.spread and sources.coordinate:
            losses["spread"] = self._spread(plan, n, rng, sources.coordinate)
            loss = loss + method.spread * n * losses["spread"]
        gradients = torch.autograd.grad(loss / plan.batch, self._parameters, materialize_grads=True)
        return Part(
            n + n_led,
            list(gradients),
            scored,
            own.detach() if own else None,
            {name: value.item() for name, value in losses.items()},
            n_failed,
            n_led,
            clock.energy,
            time.perf_counter() - started - clock.energy,
        )

    def _spread(self, plan: StepPlan, n: int, rng: torch.Generator, coordinate: ReactionCoordinate) -> Tensor:
        """How unevenly fresh draws lie along a reaction coordinate, with a gradient through all coordinates."""
        latent = self._generator.sample(n, rng, torch.full((n,), plan.heat, device=self._device))
        x, _ = self._target.coordinates.to_cartesian(latent.slow.label, latent.slow.torsions, latent.stiff)
        return spread_loss(coordinate.values(x), coordinate)

    def _random(self, seed: tuple[int, ...]) -> torch.Generator:
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
        return torch.Generator(self._device).manual_seed(int(state >> 1))
