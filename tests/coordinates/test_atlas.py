"""Charts for the basins of a ring: every basin is found, and the mixture of overlapping charts has exact weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fitted_molecules import THERMAL_ENERGY, embedded, positions_of, two_puckers, zmatrix_of
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from boltzgen.chemistry.mmff import build_mmff_system
from boltzgen.chemistry.perception import planar_atoms
from boltzgen.coordinates.atlas import Atlas
from boltzgen.coordinates.fitting import fit_coordinates
from boltzgen.coordinates.symmetry import random_images
from boltzgen.dynamics.minimise import minimise
from boltzgen.energy import from_openmm
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.sampling.extended import ExtendedTarget
from boltzgen.statistics.weights import summarize_weights
from boltzgen.target import Target
from boltzgen.workflow.checks import stein_identities


@pytest.fixture(scope="module", params=["C1CCC1", "C1CCCCC1"])
def puckered(request) -> Target:
    return two_puckers(request.param)


def untrained(atlas: Atlas, slope: float) -> Generator:
    """Gaussian stiff coordinates; each chart is e^−slope as probable as the one before."""
    flow = Generator(Architecture.of(atlas))
    with torch.no_grad():
        flow.label_logits[-1].bias.copy_(-slope * torch.arange(atlas.n_charts))
    return flow


def test_both_puckers_have_a_chart(puckered):
    assert puckered.coordinates.n_charts >= 2


def test_shares_are_a_partition_of_unity_that_knows_its_centres(puckered):
    atlas = puckered.coordinates
    stiff = torch.zeros(atlas.n_charts, atlas.n_stiff, dtype=torch.float64)
    x, _ = atlas.to_cartesian(torch.arange(atlas.n_charts), stiff[:, :0], stiff)
    shares = atlas.log_shares(x).exp()
    assert torch.allclose(shares.sum(0), torch.ones_like(shares[0]))
    assert (shares.diagonal() > 0.5).all()
    assert atlas.assign(x).tolist() == list(range(atlas.n_charts))


def test_each_sample_goes_through_its_own_chart(puckered):
    atlas = puckered.coordinates
    rng = torch.Generator().manual_seed(0)
    label = torch.randint(atlas.n_charts, (40,), generator=rng)
    stiff = torch.randn(40, atlas.n_stiff, generator=rng, dtype=torch.float64)
    x, log_det = atlas.to_cartesian(label, stiff[:, :0], stiff)
    for k in range(40):
        alone, volume = atlas.charts[int(label[k])].to_cartesian(stiff[k : k + 1, :0], stiff[k : k + 1])
        assert torch.allclose(x[..., k], alone[..., 0], atol=1e-12)
        assert log_det[k].item() == pytest.approx(volume.item(), abs=1e-10)
    _, back, log_det_back = atlas.from_cartesian(x, label)
    assert torch.allclose(back, stiff, atol=1e-9)
    assert torch.allclose(log_det_back, log_det, atol=1e-9)
    again = Atlas.from_tree(atlas.to_tree())
    assert torch.equal(again.to_cartesian(label, stiff[:, :0], stiff)[0], x)


def test_weights_do_not_depend_on_the_share_of_the_charts(puckered):
    """Even and uneven labels give one ln Z, and mirror images one population."""
    results = []
    for slope in (0.0, 1.5):
        samples = BoltzmannGenerator(puckered, untrained(puckered.coordinates, slope)).sample(20_000)
        results.append((summarize_weights(samples.log_weight), samples))
    (even, _), (uneven, samples) = results
    error = math.hypot(even.log_z_stderr, uneven.log_z_stderr)
    assert abs(even.log_z - uneven.log_z) < 4.0 * error
    assert error < 0.1  # far below ln 2, what one pucker alone would miss
    if puckered.coordinates.n_charts == 2:
        first = (puckered.coordinates.assign(torch.as_tensor(samples.positions).permute(1, 2, 0)) == 0).numpy()
        parts = [summarize_weights(np.where(mask, samples.log_weight, -np.inf)) for mask in (first, ~first)]
        gap = parts[0].log_z - parts[1].log_z
        assert abs(gap) < 4.0 * math.hypot(*(part.log_z_stderr for part in parts))


def test_stein_identities_hold_in_every_chart_and_fail_for_another_temperature(puckered):
    """Where charts overlap, a sample of one is tested in the other too, with the weight of the mixture."""
    samples = BoltzmannGenerator(puckered, untrained(puckered.coordinates, 0.5)).sample(10_000)
    x = torch.as_tensor(samples.positions).permute(1, 2, 0)
    check = stein_identities(puckered, x, samples.log_weight, 300.0)
    assert check.passed, check.words
    shapes = puckered.coordinates.n_charts
    assert f"of {shapes * (puckered.coordinates.n_stiff + 1)} averages" in check.words
    assert stein_identities(puckered, x, samples.log_weight, 270.0).passed is False


def test_density_of_structures_is_that_of_the_samples(puckered):
    generator = BoltzmannGenerator(puckered, untrained(puckered.coordinates, 0.3))
    samples = generator.sample(200)
    assert np.allclose(generator.log_prob(samples.positions), samples.log_prob, atol=1e-8)


def test_shares_among_the_charts_that_reach_a_structure_add_up_to_one(puckered):
    """Else mass of the target that a chart cannot make would be lost, and ln Z with it."""
    atlas = puckered.coordinates
    rng = torch.Generator().manual_seed(0)
    label = torch.randint(atlas.n_charts, (500,), generator=rng)
    wide = 4.0 * torch.randn(500, atlas.n_stiff, generator=rng, dtype=torch.float64)
    x, _ = atlas.to_cartesian(label, wide[:, :0], wide)
    reach = torch.stack([chart.is_in_support(chart.canonical_images(x)) for chart in atlas.charts])
    assert reach.any(0).all()
    assert not reach.all()  # or the sum of all shares would do
    shares = torch.stack([atlas.log_share(x, torch.full_like(label, k)).exp() for k in range(atlas.n_charts)])
    total = torch.where(reach, shares, 0.0).sum(0)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-12)


def test_weights_of_labelled_draws_hold_the_share_of_their_chart(puckered):
    """Where charts overlap, both would count the structure in full without it; too rare here to be seen in ln Z."""
    atlas, flow = puckered.coordinates, untrained(puckered.coordinates, 0.7).double()
    rng = torch.Generator().manual_seed(0)
    base = flow.sample_base(1000, rng)
    lines = 6.0 * torch.randn(1000, atlas.n_stiff, generator=rng, dtype=torch.float64)
    with torch.no_grad():
        draws = ExtendedTarget(puckered, flow).weigh_base(base.label, torch.cat([base.torsions, lines], dim=1))
        # The last layers of an untrained flow are zero: base points are their own images.
        x, log_det = atlas.to_cartesian(base.label, base.torsions, lines)
        log_q = flow.log_prob(base, lines) - log_det
        share = atlas.log_share(x, base.label)
        expected = share - puckered.reduced_potential(x) - log_q
    assert (share < -0.1).any()
    assert torch.allclose(draws.log_weight, expected, rtol=1e-10)
    assert torch.allclose(draws.x, x, atol=1e-12)


@pytest.mark.parametrize(("inner", "refine", "n"), [(8, 0, 4000), (1, 2, 1500)])
def test_charts_told_apart_by_label_have_the_log_z_of_their_mixture(puckered, inner, refine, n):
    generator = BoltzmannGenerator(puckered, untrained(puckered.coordinates, 1.0))
    mixture = summarize_weights(generator.sample(20_000).log_weight)
    extended = summarize_weights(generator.sample(n, inner=inner, refine=refine, seed=1).log_weight)
    error = math.hypot(mixture.log_z_stderr, extended.log_z_stderr)
    assert abs(mixture.log_z - extended.log_z) < 4.0 * error
    assert error < 0.15  # far below ln 2


def test_shares_do_not_depend_on_the_labels_of_equal_branches():
    """Two cyclopentyls on a planar nitrogen are branches of a rotor, and carry the torsions that tell charts apart."""
    mol = embedded("CC(=O)N(C1CCCC1)C1CCCC1")
    potential = from_openmm(build_mmff_system(mol))
    several = Chem.Mol(mol)
    rdDistGeom.EmbedMultipleConfs(several, 8, randomSeed=3)
    starts = np.stack([0.1 * conformer.GetPositions() for conformer in several.GetConformers()])
    relaxed = minimise(potential, torch.as_tensor(starts).permute(1, 2, 0).contiguous()).positions
    fitted = fit_coordinates(
        zmatrix_of(mol),
        positions_of(mol),
        lambda x: potential.batch_last(x, 200.0) / THERMAL_ENERGY,
        planar_atoms(mol),
        conformers=relaxed.permute(2, 0, 1).numpy(),
        n_conformers=1,
    )
    atlas = fitted.coordinates
    assert atlas.n_charts > 1
    assert any(rotor.order == 2 for rotor in atlas.zmatrix.rotors)
    rng = torch.Generator().manual_seed(0)
    n = 60
    torsions = 2.0 * math.pi * torch.rand(n, atlas.n_torsions, generator=rng, dtype=torch.float64) - math.pi
    stiff = torch.randn(n, atlas.n_stiff, generator=rng, dtype=torch.float64)
    x, _ = atlas.to_cartesian(torch.arange(n) % atlas.n_charts, torsions, stiff)
    image = random_images(x, atlas.zmatrix.rotors, rng)
    assert not torch.equal(image, x)
    assert torch.allclose(atlas.log_shares(image), atlas.log_shares(x), atol=1e-9)
