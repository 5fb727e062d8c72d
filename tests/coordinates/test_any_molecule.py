"""Coordinates of molecules of every kind: bijection, log-determinant, stereo, energies of the untrained base."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fitted_molecules import THERMAL_ENERGY, case

from boltzgen.coordinates.atlas import Atlas
from boltzgen.coordinates.internal import log_volume

MOLECULES = {
    "water": "O",
    "ammonia": "N",
    "hydrogen peroxide": "OO",
    "hydrogen cyanide, all in line": "C#N",
    "acetylene, all in line": "C#C",
    "nitrile and alkyne": "N#CCC#CC",
    "diyne": "CC#CC#C",
    "azide": "CCN=[N+]=[N-]",
    "isocyanate": "CN=C=O",
    "cumulene": "C=C=C=C",
    "cubane": "C12C3C4C1C5C2C3C45",
    "norbornane": "C1CC2CCC1C2",
    "spiro[2.3]hexane": "C1CC12CCC2",
    "indole": "c1ccc2[nH]ccc2c1",
    "epoxide": "CC1CO1",
    "cyclododecane": "C1CCCCCCCCCCC1",
    "phosphate": "COP(=O)([O-])OC",
    "t-butyl, nested rotors": "CC(C)(C)O",
    "nitro, half turns": "C[N+](=O)[O-]",
    "phenol, half turns": "Oc1ccccc1",
}

ROUND_TRIP = 1e-9
"""nm, and latent units: float64 rounding with a margin for chains of rotations."""

LOG_DET = 1e-8
"""Rounding of a determinant of up to 102 columns."""


def aligned_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Largest displacement in nm after the best rigid motion of a onto b."""
    a, b = a - a.mean(0), b - b.mean(0)
    u, _, vt = np.linalg.svd(a.T @ b)
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return float(np.abs(a @ rotation - b).max())


@pytest.mark.parametrize("name", MOLECULES)
def test_round_trip(name):
    made = case(MOLECULES[name])
    c = made.coordinates
    torsions, stiff = made.latent(50)
    x, log_det = c.to_cartesian(torsions, stiff)
    torsions_back, stiff_back, log_det_back = c.from_cartesian(x)
    assert torch.allclose(torsions_back, torsions, atol=ROUND_TRIP, rtol=0.0)
    assert torch.allclose(stiff_back, stiff, atol=ROUND_TRIP, rtol=0.0)
    assert torch.allclose(log_det_back, log_det, atol=ROUND_TRIP, rtol=0.0)
    minima = c.canonical_images(torch.as_tensor(made.fitted.conformers).permute(1, 2, 0))
    again, _ = c.to_cartesian(*c.from_cartesian(minima)[:2])
    for k in range(minima.shape[-1]):
        assert aligned_distance(again[..., k].numpy(), minima[..., k].numpy()) < ROUND_TRIP


@pytest.mark.parametrize("name", MOLECULES)
def test_log_det_is_that_of_the_jacobian(name):
    made = case(MOLECULES[name])
    c = made.coordinates
    torsions, stiff = made.latent(1, seed=1)
    n_t = c.n_torsions

    def to_internal(v):
        x, _ = c.to_cartesian(v[None, :n_t], v[None, n_t:])
        values = c.geometry.internal(x)
        return torch.cat([values.bonds, values.angles, values.torsions])[:, 0]

    jacobian = torch.autograd.functional.jacobian(to_internal, torch.cat([torsions, stiff], dim=1)[0])
    x, log_det = c.to_cartesian(torsions, stiff)
    # Every rotor has its window's 1/n in the Jacobian and n images, which log_det counts as one circle.
    expected = torch.linalg.slogdet(jacobian)[1] + log_volume(c.geometry.internal(x))[0]
    expected = expected + math.log(c.zmatrix.symmetry_number)
    assert log_det.item() == pytest.approx(expected.item(), abs=LOG_DET)


@pytest.mark.parametrize("name", ["nitrile and alkyne", "acetylene, all in line", "cubane"])
def test_volume_is_that_of_cartesian_space(name):
    """The rigid motion fixed by the frame: the second atom moves on z, the third in xz, all others freely."""
    made = case(MOLECULES[name])
    c, z = made.coordinates, made.coordinates.zmatrix
    torsions, stiff = made.latent(1, seed=2)
    n_t = c.n_torsions

    def free(v):
        x = c.to_cartesian(v[None, :n_t], v[None, n_t:])[0][..., 0]
        return torch.cat([x[z.atom[1]][2:], x[z.atom[2]][[0, 2]], x[z.atom[3:]].reshape(-1)])

    jacobian = torch.autograd.functional.jacobian(free, torch.cat([torsions, stiff], dim=1)[0])
    x, log_det = c.to_cartesian(torsions, stiff)
    i = c.geometry.internal(x)
    rigid = 2.0 * i.bonds[0].log() + i.bonds[1].log() + i.angles[0].sin().log()
    expected = torch.linalg.slogdet(jacobian)[1] + rigid + math.log(c.zmatrix.symmetry_number)
    assert log_det.item() == pytest.approx(expected.item(), abs=LOG_DET)


@pytest.mark.parametrize("name", ["nitrile and alkyne", "acetylene, all in line", "indole", "water"])
def test_kernels_place_like_the_definition(name):
    """Guides of linear groups included, with gradients."""
    made = case(MOLECULES[name])
    geometry = made.coordinates.geometry
    x, _ = made.coordinates.to_cartesian(*made.latent(7))
    internal = geometry.internal(x)
    leaves = [t.clone().requires_grad_() for t in vars(internal).values()]
    place = geometry.place(type(internal)(*leaves))
    plain = geometry.positions(type(internal)(*leaves)), log_volume(type(internal)(*leaves))
    weights = torch.randn(plain[0].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for a, b in zip(place, plain, strict=True):
        assert torch.allclose(a, b, atol=1e-11, rtol=0.0)
    slopes = [torch.autograd.grad((x * weights).sum() + v.sum(), leaves, allow_unused=True) for x, v in (place, plain)]
    for a, b in zip(*slopes, strict=True):
        assert (a is None and b is None) or torch.allclose(a, b, atol=1e-8, rtol=1e-9)


@pytest.mark.parametrize("name", MOLECULES)
def test_base_samples_are_near_the_harmonic_expectation(name):
    """Every energy is finite; the lower quartile is within 1 kT a degree of freedom of equipartition."""
    made = case(MOLECULES[name])
    x, _ = made.coordinates.to_cartesian(*made.latent(300))
    u = made.potential.batch_last(x) / THERMAL_ENERGY
    assert torch.isfinite(u).all()
    excess = (u - made.fitted.reduced_potentials[0]) / made.coordinates.zmatrix.n_internal - 0.5
    assert excess.quantile(0.25) < 1.0


def test_linear_groups_pass_through_the_straight_angle():
    """Both bends of a nitrile from −0.5 to 0.5 rad: log-determinant and gradient are smooth, and finite in line."""
    made = case("N#CC")
    c, z = made.coordinates, made.coordinates.zmatrix
    row = int(np.flatnonzero(z.linear)[0])
    internal = c.geometry.internal(made.conformer)
    bends = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)
    angles, torsions = internal.angles.repeat(1, 11), internal.torsions.repeat(1, 11)
    angles[row - 2], torsions[row - 3] = 0.5 * math.pi + bends, math.pi + bends
    angles.requires_grad_()
    x, volume = c.geometry.place(type(internal)(internal.bonds.repeat(1, 11), angles, torsions))
    (slope,) = torch.autograd.grad(volume.sum() + x.square().sum(), angles)
    assert torch.isfinite(slope).all()
    assert volume.detach().max() - volume.detach().min() < 0.15  # ln cos 0.5 = −0.13
    straight = c.geometry.internal(x.detach())
    assert torch.allclose(straight.angles[row - 2], angles.detach()[row - 2], atol=1e-12)


def test_coordinates_survive_storage():
    made = case("CC(C)(C)O")
    again = Atlas.from_tree(made.fitted.coordinates.to_tree()).charts[0]
    for a, b in zip(again.to_cartesian(*made.latent(3)), made.coordinates.to_cartesian(*made.latent(3)), strict=True):
        assert torch.equal(a, b)
    assert again.zmatrix.rotors == made.coordinates.zmatrix.rotors
