"""One of several redraws is kept with the right probability and weight; nothing is lost, forged or miscounted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boltzgen.coordinates.symmetry import random_images
from boltzgen.errors import InputError
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.random_streams import Purpose, random_stream
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.sampling.extended import Draws
from boltzgen.sampling.marginal import marginal
from boltzgen.statistics.weights import kish_ess
from boltzgen.training.trainer import Trainer, TrainSettings

WEIGHTS = np.array([0.1, 2.0, 0.0, 0.7, 1.2])


def numbered(n, seen):
    """Redraws that carry their number in x and u, with the weights above in order."""
    with np.errstate(divide="ignore"):
        log_weights = torch.as_tensor(np.log(WEIGHTS))

    def redraw(k):
        number = torch.arange(sum(seen), sum(seen) + k).repeat_interleave(n)
        seen.append(k)
        log_w = log_weights[number]
        return Draws(number.double().expand(2, 3, -1), number.double(), log_w, log_w, torch.zeros(k * n))

    return redraw


@pytest.mark.parametrize("most", [1, 2, 5])
def test_each_redraw_is_kept_as_often_as_its_weight_says(most):
    n, seen = 40_000, []
    result = marginal(numbered(n, seen), n, len(WEIGHTS), most * n, torch.Generator().manual_seed(0))
    counts = np.bincount(result.kept.u.long().numpy(), minlength=len(WEIGHTS))
    p = WEIGHTS / WEIGHTS.sum()
    assert counts[2] == 0
    assert np.all(np.abs(counts - n * p) <= 4.0 * np.sqrt(n * p * (1.0 - p)))
    assert torch.equal(result.kept.x[1, 2], result.kept.u)  # positions are those of the same redraw
    assert torch.allclose(result.kept.log_weight, torch.tensor(math.log(WEIGHTS.mean())).double())
    assert torch.allclose(result.log_flow_sums[1], torch.tensor(math.log(np.square(WEIGHTS).sum())).double())
    assert max(seen) <= most  # memory: no more at once than was allowed
    assert sum(seen) == len(WEIGHTS)


def short_training(target, energies=30_000):
    trainer = Trainer(target, Architecture.of(target.coordinates), TrainSettings(max_energies=energies))
    trainer.run(lambda progress: None, lambda: True, lambda: None)
    return BoltzmannGenerator(target, trainer.average)


@pytest.fixture(scope="module")
def trained(dipeptide_target):
    return short_training(dipeptide_target)


@pytest.fixture
def untrained(dipeptide_target):
    return BoltzmannGenerator(dipeptide_target, Generator(Architecture.of(dipeptide_target.coordinates)))


def test_the_plain_draw_is_what_it_was(trained):
    """No redraws and no bridges: the stream of random numbers and every bit of the formula."""
    samples = trained.sample(300, seed=[1, 2, 3], batch_size=200)
    rng = random_stream(Purpose.SAMPLES, [1, 2, 3])
    latent = trained.flow.sample(200, rng)
    x, log_det = trained.target.coordinates.to_cartesian(latent.slow.label, latent.slow.torsions, latent.stiff)
    assert np.array_equal(samples.log_prob[:200], torch.logsumexp((latent.log_prob - log_det)[None], 0).numpy())
    x = random_images(x, trained.target.coordinates.zmatrix.rotors, rng)
    assert np.array_equal(samples.positions[:200], x.permute(2, 0, 1).numpy())
    assert np.array_equal(samples.log_weight, -samples.reduced_potential - samples.log_prob)
    assert (samples.n_energy_evaluations, samples.n_force_evaluations) == (300, 0)
    assert samples.flow_ess_fraction == pytest.approx(kish_ess(samples.log_weight) / 300)


def test_redraws_raise_the_effective_sample_size_of_a_short_training(trained):
    samples = trained.sample(400, inner=32)
    assert samples.n_energy_evaluations == 400 * 32
    assert kish_ess(samples.log_weight) / 400 > 1.5 * samples.flow_ess_fraction


@pytest.mark.parametrize("options", [{"inner": 5}, {"refine": 2}, {"inner": 2, "refine": 1}])
def test_the_contract_of_the_weights_and_the_seed(trained, options):
    samples, again, other = (trained.sample(7, **options, seed=seed, batch_size=4) for seed in (1, 1, 2))
    assert np.array_equal(samples.positions, again.positions)
    assert np.array_equal(samples.log_weight, again.log_weight)
    assert not np.isin(other.log_weight, samples.log_weight).any()
    assert samples.positions.shape == (7, 22, 3)
    # 1e-9: three terms of a few hundred, added in another order
    assert np.allclose(samples.log_weight, -samples.reduced_potential - samples.log_prob, atol=1e-9)
    # images of rotors have equal energies up to rounding
    assert np.allclose(trained.reduced_potential(samples.positions), samples.reduced_potential, atol=1e-6)


def test_every_energy_is_counted(trained, monkeypatch):
    """Those of the pilot too."""
    seen = []
    real = trained.target.reduced_potential
    monkeypatch.setattr(trained.target, "reduced_potential", lambda x: seen.append(x.shape[-1]) or real(x))
    samples = trained.sample(6, inner=2, refine=2, batch_size=5)
    assert samples.n_energy_evaluations == samples.n_force_evaluations == sum(seen)
    assert 0.0 < samples.acceptance <= 1.0
    seen.clear()
    samples = trained.sample(6, inner=7, batch_size=3)
    assert (samples.n_energy_evaluations, samples.n_force_evaluations) == (42, 0)
    assert (sum(seen), max(seen)) == (42, 3)  # more redraws than a batch holds come in several


@pytest.mark.parametrize("options", [{"inner": 3}, {"refine": 2}])
def test_a_sample_fails_only_if_all_its_redraws_do(untrained, options, monkeypatch):
    real = untrained.target.reduced_potential
    n = 30

    def broken(x):
        u = real(x)
        first = torch.arange(len(u)) % n < 10  # the same slow points in each redraw
        return torch.where(first | (torch.arange(len(u)) == 15), math.inf, u)

    monkeypatch.setattr(untrained.target, "reduced_potential", broken)
    samples = untrained.sample(n, **options)
    failed = np.isneginf(samples.log_weight)
    assert failed[:10].all()
    assert not failed[16:].any()
    assert failed[15] == ("refine" in options)
    assert np.array_equal(failed, np.isposinf(samples.reduced_potential))
    assert np.isfinite(samples.log_prob).all()
    assert np.isfinite(samples.positions).all()


def test_nothing_but_failures_is_no_crash(untrained, monkeypatch):
    monkeypatch.setattr(untrained.target, "reduced_potential", lambda x: torch.full_like(x[0, 0], math.inf))
    for options in ({}, {"inner": 3}):
        samples = untrained.sample(5, **options)
        assert np.isneginf(samples.log_weight).all()
        assert samples.flow_ess_fraction == 0.0


@pytest.mark.parametrize(
    ("options", "says"), [({"inner": 0}, "at least one"), ({"refine": -1}, "Ask for none"), ({"n": 0}, "at least one")]
)
def test_bad_numbers_are_refused_in_one_line(trained, options, says):
    with pytest.raises(InputError, match=says) as caught:
        trained.sample(**{"n": 10, **options})
    assert "\n" not in str(caught.value)
