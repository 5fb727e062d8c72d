"""The gradient of one training step, as a sum over parts that may run side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow
from boltzgen.random_streams import Purpose, random_stream
from boltzgen.target import AnyTarget
from boltzgen.training.data import DataSet, negative_log_likelihood
from boltzgen.training.method import Method
from boltzgen.training.objectives import (
    Clock,
    Scored,
    broad_choice,
    forward_kl,
    label_surrogate,
    log_variance,
    reverse_kl,
    score,
    score_led,
    score_stiff,
)
from boltzgen.training.reaction import ReactionCoordinate, spread_loss
from boltzgen.training.replay import Pool, Recalled
from boltzgen.training.step import Part, StepGradient, StepPlan

PART_SIZE = 1024
"""Samples of one part on a CPU at most: intermediate arrays of this size stay in the cache."""

VISITS = 0.15
"""Share of the draws made at slow coordinates of challengers, where draws are dear."""

VISITED_AGAIN = 0.375
"""In a step of the slow coordinates alone, earlier visits that are learnt from, and other draws beside them, for each
draw resampled by its weight."""

SMALLEST_PART = 256
"""Samples below which a batch is not cut in two for a second thread: the overhead would eat the gain."""


@dataclass(frozen=True)
class Sources:
    """What a method may learn from beside the energy."""

    data: DataSet | None = None
    coordinate: ReactionCoordinate | None = None


@dataclass
class _Work:
    """A part of a step on the way: its loss, a sum over draws, which has a gradient even if every energy fails."""

    plan: StepPlan
    rng: torch.Generator
    clock: Clock
    loss: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    scored: list[Scored] = field(default_factory=list)
    visited: list[Scored] = field(default_factory=list)
    own: Scored | None = None
    n_failed: int = 0

    def add(self, name: str, weight: float, loss: Tensor) -> None:
        """Add a mean loss by its weight, and remember it."""
        self.losses[name] = loss
        self.loss = self.loss + weight * loss


class GradientWorkers:
    """Evaluates the parts of a step on a few threads.

    Threads, each on its own part, share nothing but the weights, so that a busy core delays one part and not
    every operation as it would with threads inside operations. The result does not depend on their number.
    """

    def __init__(
        self, generator: Generator, target: AnyTarget, threads: int, method: Method, sources: Sources | None = None
    ) -> None:
        self._generator, self._target, self._method = generator, target, method
        self._twin = generator.twin()
        self._sources = sources or Sources()
        self._parameters = list(generator.parameters())
        self._redraws = generator.architecture.redraws
        slow = {id(parameter) for parameter in generator.slow_parameters()}
        self._is_slow = [id(parameter) in slow for parameter in self._parameters]
        self._device = self._parameters[0].device
        coordinates = target.coordinates
        broad = list(range(coordinates.n_slow))
        if coordinates.n_charts > 1:
            broad.append(coordinates.n_torsions)  # the label
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
        return self._sum_of_parts(self._part, plan, self._redraws * plan.batch)

    def slow_step(self, plan: StepPlan, number: int) -> StepGradient:
        """The gradient of the slow coordinates alone, from as many earlier draws again; ``number`` tells it apart."""

        def part(job: tuple[StepPlan, int, int]) -> Part:
            return self._slow_part(job, number)

        return self._sum_of_parts(part, plan, plan.batch)

    def _sum_of_parts(
        self, part: Callable[[tuple[StepPlan, int, int]], Part], plan: StepPlan, draws: int
    ) -> StepGradient:
        n_parts = self._n_parts(draws)
        sizes = [(plan.batch + k) // n_parts for k in range(n_parts)]
        jobs = [(plan, n, k) for k, n in enumerate(sizes)]
        return StepGradient.of(list(self._pool.map(part, jobs) if self._pool else map(part, jobs)))

    def _n_parts(self, draws: int) -> int:
        if self._device.type != "cpu":
            return 1
        return max(-(-draws // PART_SIZE), min(2, draws // SMALLEST_PART), 1)

    def _part(self, job: tuple[StepPlan, int, int]) -> Part:
        plan, n, part = job
        started, method, sources = time.perf_counter(), self._method, self._sources
        rng = random_stream(Purpose.DRAWS, (*plan.seed, part), self._device)
        work = _Work(plan, rng, Clock(), 0.0 * self._parameters[0].sum())
        n_hot = self._n_hot(plan, n)
        n_led = int(method.challengers * n) if plan.challengers and not plan.visits else 0
        n_visits = int(VISITS * n) if plan.challengers and plan.visits else 0
        if n_led:
            self._led(work, n_led)
        if n_visits:
            self._visit(work, n_visits)
        if method.own:
            self._own(work, n - n_led - n_visits, n_hot)
        if method.replay and plan.pools:
            recalled = Recalled.cat(_recall(plan, n, n_hot, work.rng))
            log_q = self._generator.log_prob_slow(recalled.slow)
            work.add("forward_kl", method.replay * n, forward_kl(log_q))
        if method.data and sources.data:
            frames = sources.data.training.draw(n, work.rng)
            work.add("data", method.data * n, negative_log_likelihood(self._generator, frames))
        if method.spread and sources.coordinate:
            work.add("spread", method.spread * n, self._spread(work, n, sources.coordinate))
        gradients = torch.autograd.grad(work.loss / plan.batch, self._parameters, materialize_grads=True)
        return Part(
            n,
            list(gradients),
            work.scored,
            work.visited,
            work.own,
            {name: value.item() for name, value in work.losses.items()},
            work.n_failed,
            work.clock.energy,
            time.perf_counter() - started - work.clock.energy,
        )

    def _slow_part(self, job: tuple[StepPlan, int, int], number: int) -> Part:
        plan, n, part = job
        started = time.perf_counter()
        rng = random_stream(Purpose.DRAWS, (*plan.seed, part, number), self._device)
        parts = _recall(plan, n, self._n_hot(plan, n), rng)
        n_visits = int(VISITED_AGAIN * n) if plan.visited else 0
        if plan.visited and n_visits:
            parts.append(_beside(plan.pools[0], plan.visited, n_visits, rng))
        every = Recalled.cat(parts)
        log_q = self._generator.log_prob_slow(every.slow)
        sizes = [len(one.log_p) for one in parts]
        ratios = zip(log_q.split(sizes), every.log_p.split(sizes), strict=True)
        spread = sum((len(q) * log_variance(q, p) for q, p in ratios), log_q.new_zeros(()))
        loss = (n * forward_kl(log_q[:n]) + spread) / plan.batch
        slow = [parameter for parameter, moves in zip(self._parameters, self._is_slow, strict=True) if moves]
        found = iter(torch.autograd.grad(loss, slow, materialize_grads=True))
        gradients = [next(found) if moves else None for moves in self._is_slow]
        seconds = time.perf_counter() - started
        return Part(n, gradients, [], [], None, {"log_variance": spread.item() / len(log_q)}, 0, 0.0, seconds)

    def _n_hot(self, plan: StepPlan, n: int) -> int:
        return 0 if plan.hot is None else int(self._method.hot_share * n)

    def _led(self, work: _Work, n: int) -> None:
        """Draws whose slow coordinates challengers propose."""
        assert work.plan.challengers
        lead = work.plan.challengers.propose(n, work.rng)
        heat = lead.log_prob.new_full((n,), work.plan.heat)
        drawn = score_led(
            *(self._generator, self._target, lead, heat, work.rng, work.clock, self._twin), redraws=self._redraws
        )
        self._learn_stiff(work, drawn)
        work.scored.append(drawn.detach().pooled(self._redraws))

    def _visit(self, work: _Work, n: int) -> None:
        """Draws at the slow coordinates of challengers: where thermal structures are, whatever the flow draws."""
        assert work.plan.challengers
        found = work.plan.challengers.visit(n, work.rng)
        slow = Slow(found.label, found.torsions, torch.full_like(found.heat, work.plan.heat))
        none = torch.zeros_like(slow.heat)
        drawn = score_stiff(
            *(self._generator, self._target, slow, none, work.rng, work.clock, self._twin), redraws=self._redraws
        )
        self._learn_stiff(work, drawn)
        work.visited.append(drawn.detach().pooled(self._redraws))

    def _own(self, work: _Work, n: int, n_hot: int) -> None:
        """Draws of the flow: first those with a uniform coordinate, last the hot ones."""
        uniform = broad_choice(n, int(self._method.broad_share * n), self._broad, work.rng)
        hot = torch.arange(n, device=self._device) >= n - n_hot
        heat = torch.where(hot, work.plan.hot or 0.0, torch.full((n,), work.plan.heat, device=self._device))
        through = self._method.through_slow
        drawn = score(
            *(self._generator, self._target, n, work.rng, uniform, heat),
            through_slow=through,
            clock=work.clock,
            twin=self._twin,
            redraws=self._redraws,
        )
        groups = ((uniform < 0) & ~hot, uniform >= 0, hot)
        own, _, _ = self._learn_stiff(work, drawn, *(group.repeat(self._redraws) for group in groups))
        work.scored.append(drawn.detach().pooled(self._redraws))
        work.own = own.detach()
        if len(own):
            work.losses["reverse_kl"] = reverse_kl(work.own) - work.own.log_weight.median()
        if len(own) and through and self._target.coordinates.n_charts > 1:
            work.loss = work.loss + self._method.own * len(own) * label_surrogate(self._generator, own)

    def _learn_stiff(self, work: _Work, drawn: Scored, *groups: Tensor) -> list[Scored]:
        """Add the reverse KL of draws, of each group by itself; returns the groups, less those that have no energy."""
        good = torch.isfinite(drawn.log_weight)
        parts = [drawn.select(good & group) for group in groups] or [drawn.select(good)]
        for part in parts:
            if len(part):
                work.loss = work.loss + self._method.own * len(part) / self._redraws * reverse_kl(part)
        work.n_failed += len(drawn) - int(good.sum())
        return parts

    def _spread(self, work: _Work, n: int, coordinate: ReactionCoordinate) -> Tensor:
        """How unevenly fresh draws lie along a reaction coordinate, with a gradient through all coordinates."""
        latent = self._generator.sample(n, work.rng, torch.full((n,), work.plan.heat, device=self._device))
        x, _ = self._target.coordinates.to_cartesian(latent.slow.label, latent.slow.torsions, latent.stiff)
        return spread_loss(coordinate.values(x), coordinate)


def _beside(pool: Pool, visited: Recalled, n: int, rng: torch.Generator) -> Recalled:
    """``n`` visits and as many draws of the flow, neither chosen by weight: of these one density tells the ratios."""

    def some(of: Recalled) -> Recalled:
        return of[torch.randint(len(of.log_p), (n,), generator=rng, device=of.log_p.device)]

    return Recalled.cat([some(visited), some(pool.draws)])


def _recall(plan: StepPlan, n: int, n_hot: int, rng: torch.Generator) -> list[Recalled]:
    """``n`` earlier draws, of them ``n_hot`` at the other temperature if there is one; a part for each temperature."""
    shares = (n - n_hot, n_hot) if len(plan.pools) > 1 else (n,)
    return [pool.resample(k, rng) for pool, k in zip(plan.pools, shares, strict=True) if k]  # the last few have none
