"""A generator whose stiff coordinates are centred by relaxation is still a density, and counts what it spends."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from boltzgen.coordinates.harmonic import _unevenness
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.flow.relaxation import Relaxation, relax
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.storage.tree import get_tree, put_tree
from boltzgen.training.objectives import PAIR_SOFTENING, score_stiff
from boltzgen.training.trainer import Trainer, TrainSettings

LEVERS = (3, 7, 11)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def architecture(dipeptide_target):
    plain = Architecture.of(dipeptide_target.coordinates, stiff_hidden=16, torsion_hidden=8)
    return replace(plain, levers=LEVERS)


@pytest.fixture
def flow(dipeptide_target, architecture):
    generator = Generator(architecture).double().requires_grad_(False).attach(dipeptide_target)
    for parameter in generator.parameters():
        parameter.normal_(std=0.1, generator=rng(5))
    return generator


def stiff_quadratics(n, d):
    """Centres of n quadratic forms with curvatures from 0.3 to 20, and the objective of all."""
    bases = torch.linalg.qr(torch.randn(n, d, d, generator=rng(1), dtype=torch.float64)).Q
    hessians = bases * torch.logspace(math.log10(0.3), math.log10(20.0), d, dtype=torch.float64) @ bases.mT
    centres = torch.randn(n, d, generator=rng(2), dtype=torch.float64)

    def objective(x):
        gradient = (hessians @ (x - centres)[..., None])[..., 0]
        return 0.5 * (gradient * (x - centres)).sum(1), gradient

    return centres, objective


def test_relaxation_finds_the_minimum_of_uneven_wells():
    centres, objective = stiff_quadratics(7, 12)
    found = relax(objective, torch.zeros_like(centres), 60)
    assert (found - centres).abs().max() < 1e-3  # steps so short that s·y is below 1e-6 tell no curvature


def test_relaxation_never_ends_higher_than_it_began():
    centres, objective = stiff_quadratics(50, 12)
    steep = lambda x: (objective(x)[0].square(), 2.0 * objective(x)[0][:, None] * objective(x)[1])  # noqa: E731
    for evaluations in (2, 3, 5):
        x = relax(steep, torch.zeros_like(centres), evaluations)
        assert (steep(x)[0] <= steep(torch.zeros_like(centres))[0]).all()


def test_the_centre_of_a_draw_depends_on_its_own_torsions_alone(flow):
    slow, _ = flow.sample_slow(9, rng())
    together = flow.stiff_flow.centre_of_levers(slow)
    alone = torch.cat([flow.stiff_flow.centre_of_levers(slow[row : row + 1]) for row in range(9)])
    assert torch.allclose(together, alone, rtol=0.0, atol=1e-9)  # sums in another order


def test_the_density_of_a_draw_is_found_again_from_the_draw(flow):
    heat = torch.full((40,), 0.3, dtype=torch.float64)
    drawn = flow.sample(40, rng(), heat)
    assert torch.allclose(flow.log_prob(drawn.slow, drawn.stiff), drawn.log_prob, rtol=0.0, atol=1e-8)


def test_a_centre_serves_every_temperature(flow):
    """That of a draw at one is that of the same point at another, and spares the second relaxation."""
    drawn = flow.sample(40, rng(), torch.full((40,), 0.3, dtype=torch.float64))
    assert torch.allclose(flow.centre(drawn.slow, drawn.stiff), drawn.centre, rtol=0.0, atol=1e-9)
    colder = replace(drawn.slow, heat=torch.zeros(40, dtype=torch.float64))
    flow.take_energies()
    spared = flow.log_prob(colder, drawn.stiff, drawn.centre)
    assert flow.take_energies() == 0
    assert torch.allclose(flow.log_prob(colder, drawn.stiff), spared, rtol=0.0, atol=1e-8)
    assert flow.take_energies() == 40 * 18


def test_samples_of_a_mixture_relax_once(flow, dipeptide_target):
    mixture = BoltzmannGenerator(dipeptide_target, flow, temperatures={300.0: 0.7, 330.0: 0.3})
    samples = mixture.sample(50, seed=1)
    assert samples.n_energy_evaluations == 50 * 19
    assert np.allclose(mixture.log_prob(samples.positions), samples.log_prob, rtol=0.0, atol=1e-7)
    assert flow.take_energies() == 50 * 18


def test_redraws_of_one_slow_point_relax_the_levers_once(flow, dipeptide_target):
    """12 evaluations of each point, then 6 and the energy of each redraw; the weights are those of each by itself."""
    samples = BoltzmannGenerator(dipeptide_target, flow).sample(10, inner=4, seed=1, batch_size=20)
    assert samples.n_energy_evaluations == 10 * 12 + 40 * 7
    slow, _ = flow.sample_slow(5, rng())
    lines = torch.randn(5, flow.architecture.n_stiff, generator=rng(1), dtype=torch.float64)
    flow.take_energies()
    shared = flow.push_stiff(lines, slow, flow.centre_of_levers(slow))
    assert flow.take_energies() == 5 * 18
    for found, expected in zip(shared, flow.push_stiff(lines, slow), strict=True):
        assert torch.equal(found, expected)


def test_redraws_of_a_training_weigh_each_slow_point_by_the_mean(flow, dipeptide_target):
    """Against the density of each draw, found again from the draw; 12 energies of a point and 7 of a draw."""
    slow, log_slow = flow.sample_slow(6, rng())
    flow.take_energies()
    drawn = score_stiff(flow, dipeptide_target, slow, log_slow, rng(1), redraws=3)
    assert (len(drawn), flow.take_energies()) == (18, 6 * (12 + 3 * 6))
    x, log_det = dipeptide_target.coordinates.to_cartesian(drawn.slow.label, drawn.slow.torsions, drawn.stiff)
    u = dipeptide_target.reduced_potential(x, softening=PAIR_SOFTENING)
    expected = log_det - u - log_slow.repeat(3) - flow.log_prob_stiff(drawn.stiff, drawn.slow)
    assert torch.allclose(drawn.log_weight, expected, rtol=0.0, atol=1e-7)
    pooled = drawn.pooled(3)
    assert torch.equal(pooled.slow.torsions, slow.torsions)
    for k in range(6):
        of_point = (drawn.slow.torsions == slow.torsions[k]).all(1)
        assert of_point.sum() == 3
        assert pooled.log_weight[k].item() == pytest.approx(drawn.log_weight[of_point].exp().mean().log().item())


def test_the_density_is_the_jacobian_of_the_whole_map_with_its_relaxations(flow):
    slow, _ = flow.sample_slow(1, rng(3))
    lines = torch.randn(1, flow.architecture.n_stiff, generator=rng(4), dtype=torch.float64)
    n, eps = lines.shape[1], 1e-5
    steps = eps * torch.eye(n, dtype=torch.float64)
    repeated = slow[torch.zeros(n, dtype=torch.int64)]
    ahead, behind = (flow.push_stiff(lines + sign * steps, repeated)[0] for sign in (1.0, -1.0))
    jacobian = (ahead - behind) / (2.0 * eps)
    of_base = -0.5 * (lines.square().sum() + n * math.log(2.0 * math.pi))
    _, log_prob = flow.push_stiff(lines, slow)
    assert log_prob.item() == pytest.approx((of_base - torch.linalg.slogdet(jacobian)[1]).item(), abs=1e-5)


def test_a_generator_with_levers_refuses_to_draw_without_its_target(architecture):
    with pytest.raises(RuntimeError, match="attach"):
        Generator(architecture).sample(2, rng())


def test_energies_of_relaxation_are_counted_once(flow):
    flow.take_energies()
    flow.sample(10, rng())
    assert flow.take_energies() == 10 * 18
    assert flow.take_energies() == 0


def test_copies_of_a_generator_share_what_relaxes_them(flow):
    assert isinstance(flow.stiff_flow.relaxation, Relaxation)
    assert copy.deepcopy(flow).stiff_flow.relaxation is flow.stiff_flow.relaxation


@pytest.mark.parametrize("threads", [1, 2])
def test_a_training_counts_every_energy_of_relaxation_and_stays_in_its_budget(dipeptide_target, architecture, threads):
    settings = TrainSettings(max_energies=60_000, exchange_share=0.0)
    trainer = Trainer(dipeptide_target, architecture, settings, threads=threads)
    trainer.run(lambda progress: None, lambda: True, lambda: None)
    points = sum(int(row["batch"]) for row in trainer.history)
    assert architecture.energies_per_point == 12 + 2 * 7
    assert trainer.counters.energies == points * architecture.energies_per_point
    assert 60_000 - architecture.energies_per_point < trainer.counters.energies <= 60_000


def test_levers_survive_being_stored(tmp_path, architecture):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        put_tree(file.create_group("architecture"), architecture.to_dict())
    with h5py.File(tmp_path / "a.h5") as file:
        assert Architecture(**get_tree(file["architecture"])) == architecture


def test_a_coordinate_is_uneven_where_a_minimum_is_narrower_than_the_whitening():
    cholesky = torch.linalg.cholesky(torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.1], [0.0, 0.1, 3.0]]).double())
    narrow = torch.diag(torch.tensor([1.0, 0.25, 1.0]).double())
    assert _unevenness(cholesky @ narrow @ cholesky.T, cholesky).tolist() == pytest.approx(
        [0.0, math.log(0.25) ** 2, 0.0], abs=1e-9
    )
