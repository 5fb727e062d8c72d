"""What the slow coordinates learn from the values of the target at earlier draws, and the steps of theirs alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from one_torsion import KT, OneTorsion
from resuming import assert_same_when_resumed, for_steps

from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow
from boltzgen.training.data import DataSet
from boltzgen.training.gradient import VISITED_AGAIN, GradientWorkers, Sources
from boltzgen.training.method import ANNEALED
from boltzgen.training.objectives import forward_kl, log_variance
from boltzgen.training.optimizer import Optimizer
from boltzgen.training.replay import Pool, Recalled, Replay
from boltzgen.training.step import StepPlan
from boltzgen.training.trainer import SLOW_STEPS, Trainer, TrainSettings


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_log_variance_is_zero_where_the_ratio_is_constant_alone():
    log_p = torch.randn(100, generator=rng())
    assert log_variance(log_p - 7.0, log_p).item() == pytest.approx(0.0, abs=1e-10)
    off = torch.where(torch.arange(100) < 30, 1.0, 0.0)  # the median is of the others
    assert log_variance(log_p - off, log_p).item() == pytest.approx(0.15, rel=1e-5)
    assert log_variance(log_p - 10.0 * off, log_p).item() == pytest.approx(0.3 * 3.0 * (10.0 - 1.5), rel=1e-4)


def test_log_variance_finds_the_density_from_draws_of_another():
    """Uniform draws of a torsion with three unequal wells, ln p known up to a constant."""
    terms = ((3, 0.0, 5.0), (1, 0.7, 3.0))
    log_p = lambda phi: 12.3 - sum(k * (1 + torch.cos(n * phi - phase)) for n, phase, k in terms) / KT  # noqa: E731
    generator = Generator(Architecture(n_torsions=1, n_stiff=0))
    optimizer, draws = Optimizer(generator), rng(1)
    for step in range(300):
        phi = 2.0 * math.pi * torch.rand(512, generator=draws) - math.pi
        slow = Slow(torch.zeros(512, dtype=torch.int64), phi[:, None])
        generator.zero_grad()
        log_variance(generator.log_prob_slow(slow), log_p(phi)).backward()
        optimizer.step(3e-3 * min(1.0, 2.0 * (1.0 - step / 300)))
    grid = torch.linspace(-math.pi, math.pi, 2001)
    with torch.no_grad():
        log_q = generator.log_prob_slow(Slow(torch.zeros(2001, dtype=torch.int64), grid[:, None])).double()
    p = log_p(grid).double().exp()
    p = p / torch.trapezoid(p, grid.double())
    kl = torch.trapezoid(p * (p.log() - log_q), grid.double()).item()
    assert -1e-6 < kl < 0.01  # a well that is lost costs 0.1 nats and more


@pytest.fixture(scope="module")
def pools():
    """A target, its generator, and draws at two temperatures."""
    single = OneTorsion((3, 0.0, 5.0), (1, 0.7, 3.0))
    target = single.target.to(torch.float32)
    torch.manual_seed(0)
    generator = Generator(single.architecture)
    first = GradientWorkers(generator, target, 1, ANNEALED).step(StepPlan(600, 0.5, 0.6875, (), (0, 0)))
    replay = Replay(1000)
    for scored in first.scored:
        replay.add(scored)
    return target, generator, (replay.pool(0.5), replay.pool(0.6875))


def test_what_is_recalled_is_the_density_of_the_target_at_its_place(pools):
    """Harmonic bonds and angles are nearly solved from the beginning: ln p of the torsion is told within a nat."""
    _, _, (pool, _) = pools
    phi = pool.draws.slow.torsions[:, 0].double()
    u = sum(k * (1 + torch.cos(n * phi - phase)) for n, phase, k in ((3, 0.0, 5.0), (1, 0.7, 3.0))) / KT
    told = pool.draws.log_p.double() + u * math.exp(-0.5)
    assert (told - told.median()).abs().median() < 0.2
    assert u.std() > 1.0


@pytest.fixture(scope="module")
def visited(pools):
    """Draws at chosen torsions, with values off by as much as a flow that lacks a well has them."""
    _, _, (pool, _) = pools
    return Recalled(pool.draws.slow[:40], pool.draws.log_p[:40] + torch.linspace(0.0, 8.0, 40))


@pytest.mark.parametrize(("threads", "visits"), [(1, False), (2, False), (1, True)])
def test_a_slow_step_moves_the_slow_coordinates_alone_along_its_losses(pools, visited, threads, visits):
    target, generator, of_both = pools
    plan = StepPlan(700, 0.5, 0.6875, of_both, (0, 1), visited=visited if visits else None)
    workers = GradientWorkers(generator, target, threads, ANNEALED)
    with workers.active():
        many = [workers.slow_step(plan, number).gradients for number in range(100)]
        step, other, again = many[1], many[2], workers.slow_step(plan, 1).gradients
    parameters = list(generator.parameters())
    slow = {id(parameter) for parameter in generator.slow_parameters()}
    assert 0 < len(slow) < len(parameters)
    assert [gradient is not None for gradient in step] == [id(p) in slow for p in parameters]
    assert all(torch.equal(a, b) for a, b in zip(step, again, strict=True) if a is not None)
    assert any(not torch.equal(a, b) for a, b in zip(step, other, strict=True) if a is not None)

    # The mean over many draws is the gradient of the two losses over the pools by their weights, and of the second over
    # visits and as many draws of any weight.
    mean = [torch.zeros_like(p) for p in parameters]
    for gradients in many:
        for total, gradient in zip(mean, gradients, strict=True):
            total += 0.0 if gradient is None else gradient / 100
    loss = 0.0
    for pool, share in zip(of_both, (0.9, 0.1), strict=True):
        drawn = pool.resample(20_000, rng(3))
        log_q = generator.log_prob_slow(drawn.slow)
        loss = loss + share * (forward_kl(log_q) + log_variance(log_q, drawn.log_p))
    if visits:
        either = Recalled.cat([*[visited] * (len(of_both[0].draws.log_p) // 40), of_both[0].draws])
        loss = loss + 2.0 * VISITED_AGAIN * log_variance(generator.log_prob_slow(either.slow), either.log_p)
    moving = [p for p in parameters if id(p) in slow]
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(loss, moving, materialize_grads=True)])
    found = torch.cat([m.flatten() for m, p in zip(mean, parameters, strict=True) if id(p) in slow])
    assert (found - exact).norm() < 0.2 * exact.norm()


@pytest.mark.parametrize("visits", [False, True])
def test_values_at_visits_show_a_well_that_no_draw_is_in(visits):
    """All earlier draws lie in one of two equal wells, and tell by forward KL and values that this is all."""
    double = OneTorsion((2, 0.0, 10.0))

    def found(phi):
        log_p = -10.0 * (1 + torch.cos(2.0 * phi)) / KT
        return Recalled(Slow(torch.zeros(len(phi), dtype=torch.int64), phi[:, None]), log_p)

    thermal = 0.3 * torch.randn(2000, generator=rng(1))
    pool = Pool(found(thermal - math.pi / 2), torch.full((2000,), 1.0 / 2000), 1.0, 1.0, 0.0)
    visited = found(0.3 * torch.randn(400, generator=rng(2)) + math.pi * (torch.arange(400) % 2 - 0.5))
    torch.manual_seed(0)
    generator = Generator(double.architecture)
    workers = GradientWorkers(generator, double.target.to(torch.float32), 1, ANNEALED)
    optimizer = Optimizer(generator)
    for step in range(300):
        plan = StepPlan(512, 0.0, None, (pool,), (0, step), visited=visited if visits else None)
        for parameter, gradient in zip(generator.parameters(), workers.slow_step(plan, 1).gradients, strict=True):
            parameter.grad = gradient
        optimizer.step(3e-3 * min(1.0, 2.0 * (1.0 - step / 300)))
    share = double.share_above_zero(generator)
    assert 0.05 < share < 0.5 if visits else share < 0.01


def with_levers(single, **settings):
    architecture = replace(single.architecture, levers=(1,), relaxation=4)
    trainer = Trainer(single.target, architecture, TrainSettings(max_energies=40_000, **settings))
    trainer.schedule = replace(trainer.schedule, batches=((0.0, 128),))
    return trainer


def test_slow_steps_follow_where_draws_are_dear_and_are_counted():
    single = OneTorsion((3, 0.0, 5.0))
    trainer = with_levers(single)
    assert trainer.run(lambda progress: None, lambda: True, lambda: None)
    replaying = [row for row in trainer.history if np.isfinite(row["loss_log_variance"])]
    assert 10 < len(replaying) < len(trainer.history)  # none while the temperature falls at every step
    draws = sum(int(row["batch"]) for row in replaying)
    assert trainer.counters.replayed == (1 + SLOW_STEPS) * draws
    plain = single.train(ANNEALED, max_energies=20_000)
    assert all(math.isnan(row["loss_log_variance"]) for row in plain.history)


def test_slow_steps_stay_away_where_data_share_the_slow_coordinates():
    """They would outweigh the frames."""
    single = OneTorsion((3, 0.0, 5.0))
    sources = Sources(DataSet.of(single.frames(500, seed=0)))
    settings = TrainSettings(max_energies=5_000, method=ANNEALED.mixed_with_data(0.5))
    trainer = Trainer(single.target, replace(single.architecture, levers=(1,)), settings, sources=sources)
    assert trainer.run(lambda progress: None, lambda: True, lambda: None)
    assert all(math.isnan(row["loss_log_variance"]) for row in trainer.history)


def test_a_resumed_training_with_slow_steps_is_the_same_training():
    single = OneTorsion((3, 0.0, 5.0))
    assert_same_when_resumed(lambda: with_levers(single, seed=3), for_steps(15))
