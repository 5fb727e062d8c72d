"""Methods of training: each on targets whose optimum is known, and the default one step by step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from one_torsion import K_ANGLE, K_BOND, KT, R0, THETA0, OneTorsion
from resuming import assert_same_when_resumed, for_steps

from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow
from boltzgen.random_streams import Purpose, random_stream
from boltzgen.training.data import DataSet, LatentFrames, held_out_loss, negative_log_likelihood
from boltzgen.training.gradient import GradientWorkers, Sources
from boltzgen.training.method import ANNEALED, DATA, ENERGY, METHODS
from boltzgen.training.objectives import broad_choice, forward_kl, label_surrogate, reverse_kl, score
from boltzgen.training.replay import Replay
from boltzgen.training.step import StepPlan
from boltzgen.training.trainer import Trainer, TrainSettings


@pytest.fixture(scope="module")
def single():
    """Three unequal wells with low barriers, as the polymer of tests/exact has."""
    return OneTorsion((3, 0.0, 5.0), (1, 0.7, 3.0))


@pytest.fixture(scope="module")
def double():
    """Two equal wells at ±π/2 with barriers of 2 × 15 kJ/mol, 12 kT, between."""
    return OneTorsion((2, 0.0, 15.0))


@pytest.fixture(scope="module")
def exact(single):
    return single.frames(20_000, seed=0)


def test_exact_draws_are_of_the_target(single):
    """⟨u⟩ of the draws against equipartition of the harmonic terms and the quadrature of the torsion."""
    u = single.target.reduced_potential(single.draw(20_000, seed=5))
    phi, p = single._densities[2]
    torsion = sum(k * (1 + np.cos(n * phi - phase)) for n, phase, k in single.torsion) / KT
    of_torsion = np.trapezoid(p * torsion, phi) / np.trapezoid(p, phi)
    harmonic = 0.0
    for count, (x, density), k, x0 in (
        (3, single._densities[0], K_BOND, R0),
        (2, single._densities[1], K_ANGLE, THETA0),
    ):
        energy = 0.5 * k * (x - x0) ** 2 / KT
        harmonic += count * np.trapezoid(density * energy, x) / np.trapezoid(density, x)
    assert u.mean().item() == pytest.approx(of_torsion + harmonic, abs=4.0 * u.std().item() / 20_000**0.5)


MAX_KL = 0.02
"""nats: a flow that lacks one of the wells, or half of a width, is off by 0.1 at least."""


@pytest.mark.parametrize("name", ["annealed", "energy", "data", "mixed"])
def test_every_loss_leads_to_the_known_optimum(single, exact, name):
    method = {"annealed": ANNEALED, "energy": ENERGY, "data": DATA, "mixed": ANNEALED.mixed_with_data(0.5)}[name]
    trainer = single.train(method, data=exact if method.data else None)
    kl, stderr = single.reverse_kl(trainer.result)
    assert -4.0 * stderr - 1e-3 < kl < MAX_KL
    assert abs(single.log_z_error(trainer.result)) < 4.0
    u = single.target.reduced_potential(single.draw(4096, seed=9)).mean().item()
    forward = held_out_loss(trainer.result, single.frames(4096, seed=9).to(torch.float32, "cpu")) - u - single.log_z
    assert -0.01 < forward < MAX_KL + 0.01  # of the same draws: ln p − ln q varies by 0.2 nats, its mean by 0.003


def test_data_held_out_are_a_tenth_in_blocks_and_weights_are_kept():
    """Neighbours in a trajectory are alike: every other frame held out would judge nothing."""
    n = 1000
    slow = Slow(torch.zeros(n, dtype=torch.int64), torch.zeros(n, 1))
    weights = torch.arange(1, n + 1, dtype=torch.float64)
    frames = LatentFrames(slow, torch.arange(n)[:, None].float(), torch.zeros(n), weights / weights.sum())
    data = DataSet.of(frames)
    held_out = data.held_out.stiff[:, 0].long()
    assert len(held_out) == 100
    assert int((held_out.diff() > 1).sum()) == 4  # five blocks
    assert not set(held_out.tolist()) & set(data.training.stiff[:, 0].long().tolist())
    for part in (data.training, data.held_out):
        assert part.weights.sum().item() == pytest.approx(1.0)
        index = part.stiff[:, 0].double() + 1.0
        assert torch.allclose(part.weights, index / index.sum())
    assert [len(DataSet.of(frames.select(torch.arange(k))).held_out) for k in (10, 25, 50)] == [1, 2, 5]


def test_weighted_frames_lead_to_the_weighted_ensemble(double):
    """Draws of ±π/2 alike, weighted 4 : 1: the flow has to put 80 % on the left, as unweighted it would not."""
    frames = double.frames(10_000, seed=1)
    left = frames.slow.torsions[:, 0] < 0
    weights = torch.where(left, 4.0, 1.0).double()
    trainer = double.train(DATA, data=replace(frames, weights=weights / weights.sum()))
    # 2 % of the mass: 10,000 frames leave 0.4 %, the splines less than 1 %
    assert double.share_above_zero(trainer.result) == pytest.approx(0.2, abs=0.02)
    assert trainer.counters.energies == trainer.counters.forces == 0
    assert trainer.counters.frames == trainer.history[-1]["frames"] <= 100_000


def test_plain_reverse_kl_misses_the_mode_that_annealing_finds():
    """From a flow that knows the left well alone, behind 24 kT; the right one holds half of the ensemble."""
    double = OneTorsion((2, 0.0, 30.0))
    one_sided = double.train(DATA, data=double.frames(5000, seed=2, keep=lambda phi: phi < 0)).result
    assert double.share_above_zero(one_sided) < 0.01
    energy, annealed = (double.train(method, start=one_sided) for method in (ENERGY, ANNEALED))
    assert double.share_above_zero(energy.result) < 0.1
    assert double.share_above_zero(annealed.result) == pytest.approx(0.5, abs=0.03)
    # ln 2 is what a lost half costs; one per cent in it already takes off 0.06
    assert 0.4 < double.reverse_kl(energy.result)[0] < math.log(2.0) + 0.1
    assert double.reverse_kl(annealed.result)[0] < 0.2


def test_overfitting_shows_and_the_best_weights_are_taken(single):
    """Sixty frames: the loss of the held-out ones rises while that of the others falls."""
    trainer = single.train(DATA, data=single.frames(60, seed=3), max_energies=100_000)
    measured = [row["held_out_nll"] for row in trainer.history if not math.isnan(row["held_out_nll"])]
    assert trainer.held_out.best.loss == min(measured) < measured[-1] - 0.5
    assert trainer.counters.frames < 100_000  # and it ended early
    assert trainer.history[-1]["loss_data"] < trainer.history[20]["loss_data"]
    held_out = trainer.sources.data.held_out
    assert held_out_loss(trainer.result, held_out) == pytest.approx(trainer.held_out.best.loss)


def test_resumed_training_on_data_is_the_same_training(single):
    data = single.frames(2000, seed=4)
    settings = TrainSettings(max_energies=20_000, method=ANNEALED.mixed_with_data(1.0))

    def trainer():
        return Trainer(single.target, single.architecture, settings, sources=Sources(DataSet.of(data)))

    straight, _, resumed = assert_same_when_resumed(trainer, for_steps(12))
    assert resumed.held_out.best.loss == straight.held_out.best.loss


def test_a_step_of_annealing_is_the_sum_that_it_was_before_there_were_methods(dipeptide_target):
    """Written out: broad and hot draws, reverse KL of the stiff, forward KL of the pools; to the last bit."""
    target = dipeptide_target.to(torch.float32)
    torch.manual_seed(0)
    generator = Generator(Architecture.of(target.coordinates))
    workers = GradientWorkers(generator, target, 1, ANNEALED)
    heat, hot = 0.5, 0.6875  # powers of two: the same in single precision
    first = workers.step(StepPlan(250, heat, hot, (), (0, 0)))
    replay = Replay(1000)
    for scored in first.scored:
        replay.add(scored)
    pools = replay.pool(heat), replay.pool(hot)
    step = workers.step(StepPlan(250, heat, hot, pools, (0, 1)))

    rng = random_stream(Purpose.DRAWS, (0, 1, 0))
    uniform = broad_choice(250, 62, torch.tensor([0, 1]), rng)  # a quarter; φ and ψ, no rotors
    heats = torch.tensor(225 * [heat] + 25 * [hot])  # a tenth
    scored = score(generator, target, 250, rng, uniform, heats, twin=generator.twin())
    assert not scored.slow.torsions.requires_grad
    good, is_hot = torch.isfinite(scored.log_weight), heats == hot
    groups = good & (uniform < 0) & ~is_hot, good & (uniform >= 0), good & is_hot
    loss = sum(int(group.sum()) * reverse_kl(scored.select(group)) for group in groups)
    replayed = Slow.cat([pools[0].resample(225, rng).slow, pools[1].resample(25, rng).slow])
    loss = loss + 250 * forward_kl(generator.log_prob_slow(replayed))
    expected = torch.autograd.grad(loss / 250, list(generator.parameters()), materialize_grads=True)
    assert all(torch.equal(a, b) for a, b in zip(step.gradients, expected, strict=True))


def test_gradient_of_plain_reverse_kl_goes_through_the_torsions(dipeptide_target):
    """Against the change of the loss along the gradient, with the random numbers held fixed, in float64."""
    torch.manual_seed(0)
    generator = Generator(Architecture.of(dipeptide_target.coordinates)).double()
    for parameter in generator.torsion_flow.parameters():  # away from the identity, where the phase is flat
        parameter.data += 0.02 * torch.randn_like(parameter)
    parameters = list(generator.torsion_flow.parameters())

    def loss():
        rng = torch.Generator().manual_seed(4)
        return -score(generator, dipeptide_target, 16, rng, through_slow=True).log_weight.mean()

    gradients = torch.autograd.grad(loss(), parameters)
    norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
    assert norm > 1.0
    step, values = 1e-7 / norm, []
    for sign in (1.0, -2.0):
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p += sign * step * g / norm
            values.append(loss().item())
    # central difference: relative error of rounding 1e-13 |loss| / (step norm), of curvature less
    assert (values[0] - values[1]) / (2.0 * step) == pytest.approx(norm, rel=1e-3)


def test_labels_learn_from_energies_by_their_score():
    """q(k) is to become that of known weights: the gradient of the surrogate against the exact KL."""
    architecture = Architecture(n_torsions=1, n_stiff=2, n_charts=3)
    torch.manual_seed(0)
    generator = Generator(architecture).double()
    log_p = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    optimizer = torch.optim.Adam(generator.label_logits.parameters(), lr=0.01)
    rng = torch.Generator().manual_seed(0)
    for _ in range(300):
        slow, _ = generator.sample_slow(2000, rng)
        log_weight = log_p[slow.label] - generator.log_prob_label(slow)
        empty = torch.zeros(2000, dtype=torch.float64)
        drawn = type("Drawn", (), {"slow": slow, "log_weight": log_weight + empty})
        optimizer.zero_grad()
        label_surrogate(generator, drawn).backward()
        optimizer.step()
    learnt = generator.log_prob_label(Slow(torch.arange(3), torch.zeros(3, 1).double())).exp()
    assert torch.allclose(learnt, log_p.exp(), atol=0.02)  # 2,000 draws a step, averaged over the memory of Adam


def test_weights_of_mixed_losses_sum_to_one_and_name_what_is_needed():
    mixed = ANNEALED.mixed_with_data(0.25)
    assert (mixed.own, mixed.replay, mixed.data, mixed.cools) == (0.75, 0.75, 0.25, True)
    assert ANNEALED.mixed_with_data(1.0) == DATA
    assert [name for name, method in METHODS.items() if method.learns_from_data_alone] == ["data"]


def test_likelihood_is_a_weighted_mean():
    generator = Generator(Architecture(n_torsions=1, n_stiff=1))
    slow = Slow(torch.zeros(2, dtype=torch.int64), torch.zeros(2, 1))
    frames = LatentFrames(
        slow, torch.tensor([[0.0], [2.0]]), torch.tensor([0.0, 1.0]), torch.tensor([0.75, 0.25]).double()
    )
    # the untrained flow: a uniform circle and a normal line, −ln q = ln 2π + ½ ln 2π + ½ z²
    expected = 1.5 * math.log(2.0 * math.pi) + 0.25 * 2.0
    assert negative_log_likelihood(generator, frames).item() == pytest.approx(expected, rel=1e-6)
    assert held_out_loss(generator, frames) == pytest.approx(expected + 0.25, rel=1e-6)
