"""Damage is exact: the density of a damaged flow is that of its samples, and its weights are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from damaged import DamagedGenerator, Shifted, Shrunk, branch_of, turned

from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.models.wells import Wells
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.selftest import geometry
from boltzgen.statistics.weights import summarize_weights

N = 40_000


@pytest.fixture(scope="module")
def honest():
    """An untrained flow of one double well, in exact coordinates: weights are right, whatever it has learnt."""
    target = Wells(1, 1.0, -6.0, 1.0).target()
    torch.manual_seed(0)
    return BoltzmannGenerator(target, Generator(Architecture.of(target.coordinates)).double())


def right(x):
    return x[:, 0, 0] > 0.0


def moved(distance):
    return lambda x: np.asarray(x) + np.array([distance, 0.0])


def check_density(damaged, honest):
    """The mean of q'/q over draws of q is 1; ln Z of its own samples is right; densities agree on its samples."""
    drawn = honest.sample(N, seed=5)
    ratio = np.exp(damaged.log_prob(drawn.positions) - drawn.log_prob)
    assert abs(ratio.mean() - 1.0) < 4.0 * ratio.std() / np.sqrt(N) + 4.0 * 0.0012  # of the counted share, see damaged
    samples = damaged.sample(N, seed=6)
    np.testing.assert_allclose(damaged.log_prob(samples.positions), samples.log_prob, atol=1e-6)
    np.testing.assert_allclose(samples.log_weight, -samples.reduced_potential - samples.log_prob, atol=1e-9)
    np.testing.assert_allclose(honest.reduced_potential(samples.positions), samples.reduced_potential, atol=1e-6)
    return samples


@pytest.mark.parametrize("factor", [0.1, 0.01])
def test_a_shrunk_state_is_drawn_less_often_and_ln_z_stays_right(honest, factor):
    shrunk = Shrunk.of(honest, right, factor)
    samples = check_density(DamagedGenerator(honest, shrunk), honest)
    expected = factor * shrunk.share / np.exp(shrunk.log_norm)
    drawn = right(samples.positions).mean()
    assert abs(drawn - expected) < 4.0 * np.sqrt(expected / N)
    weights = summarize_weights(samples.log_weight)
    ess_error = np.sqrt(1.0 / weights.ess)
    assert abs(weights.log_z - Wells(1, 1.0, -6.0, 1.0).log_z()) < 4.0 * ess_error + 4.0 * 0.0012


def test_a_removed_state_takes_its_part_of_z_along(honest):
    model = Wells(1, 1.0, -6.0, 1.0)
    samples = check_density(DamagedGenerator(honest, Shrunk.of(honest, right, 0.0)), honest)
    assert not right(samples.positions).any()
    weights = summarize_weights(samples.log_weight)
    expected = model.log_z() + np.log(model.population(0.0))
    assert abs(weights.log_z - expected) < 4.0 * np.sqrt(1.0 / weights.ess) + 4.0 * 0.0012


def test_a_shifted_state_has_the_density_of_where_it_went(honest):
    samples = check_density(DamagedGenerator(honest, Shifted(right, moved(-1.0), moved(1.0))), honest)
    assert right(samples.positions).any()


def test_a_turn_about_a_bond_changes_one_torsion_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 6, 3))
    bonds = ((0, 1), (1, 2), (2, 3), (3, 4), (2, 5))
    branch = branch_of(bonds, (1, 2))
    assert branch.tolist() == [3, 4, 5]
    y = turned(x, (1, 2), branch, 0.7)
    change = geometry.torsion(y, (0, 1, 2, 3)) - geometry.torsion(x, (0, 1, 2, 3))
    np.testing.assert_allclose(np.mod(change, 2.0 * np.pi), 0.7, atol=1e-9)
    np.testing.assert_allclose(geometry.torsion(y, (1, 2, 3, 4)), geometry.torsion(x, (1, 2, 3, 4)), atol=1e-9)
    np.testing.assert_allclose(geometry.angle(y, 1, 2, 3), geometry.angle(x, 1, 2, 3), atol=1e-9)
    np.testing.assert_allclose(turned(y, (1, 2), branch, -0.7), x, atol=1e-12)
    with pytest.raises(ValueError, match="ring"):
        branch_of(((0, 1), (1, 2), (2, 0)), (0, 1))
