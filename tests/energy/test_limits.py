"""Wrong shapes, types and indices, points where measures are undefined, and Systems that OpenMM refuses."""

from __future__ import annotations

import math

import numpy as np
import openmm
import pytest
import torch

from boltzgen.coordinates.internal import Internal, InternalToCartesian
from boltzgen.coordinates.zmatrix import build_zmatrix
from boltzgen.energy import PotentialEnergy, from_openmm
from boltzgen.energy.bonded import HarmonicAngle, HarmonicBond, PeriodicTorsion, RBTorsion
from boltzgen.energy.nonbonded import NonbondedPairs
from boltzgen.energy.parity import openmm_energies
from boltzgen.energy.program import split_terms
from boltzgen.errors import InputError
from boltzgen.native import load

NATIVE = [True, False]


def _bond(n: int, atoms: list[int]) -> HarmonicBond:
    return HarmonicBond(n, torch.float64, atoms=np.array([atoms]), length=np.array([0.1]), k=np.array([1e3]))


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("shape", [(4, 3, 5), (8, 3, 5), (6, 5), (6, 2, 5), (3, 6, 5), (6, 3, 5, 1)])
def test_positions_of_another_shape_are_refused(shape, native):
    potential = PotentialEnergy([_bond(6, [0, 5])], native=native)
    x = torch.zeros(shape, dtype=torch.float64)
    for call in (potential.evaluate, potential.batch_last, potential.definition):
        with pytest.raises(InputError, match="shape"):
            call(x)


@pytest.mark.parametrize("native", NATIVE)
def test_batch_first_positions_of_another_shape_are_refused(native):
    potential = PotentialEnergy([_bond(6, [0, 5])], native=native)
    for shape in ((2, 5, 3), (6, 3), (2, 3, 6)):
        with pytest.raises(InputError, match="shape"):
            potential(torch.zeros(shape))
        with pytest.raises(InputError, match="shape"):
            potential.energy_and_forces(torch.zeros(shape))


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.complex64])
def test_positions_of_another_type_are_refused(dtype, native):
    potential = PotentialEnergy([_bond(6, [0, 5])], native=native)
    with pytest.raises(InputError, match="float32 or float64"):
        potential.evaluate(torch.zeros(6, 3, 4, dtype=dtype))


@pytest.mark.parametrize("atoms", [[0, 6], [-1, 2], [0, 10**8], [3, 3]])
def test_indices_outside_the_molecule_are_refused(atoms):
    with pytest.raises(InputError, match="HarmonicBond"):
        _bond(6, atoms)


def test_terms_of_different_molecules_are_refused():
    with pytest.raises(InputError, match="different sizes"):
        PotentialEnergy([_bond(6, [0, 5]), _bond(7, [0, 5])])


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("softening", [0.0, -5.0, math.nan, math.inf, 1e-30])
def test_a_softening_that_is_no_energy_is_refused(dipeptide, softening, native):
    potential = PotentialEnergy(list(from_openmm(dipeptide.system).terms), native=native)
    with pytest.raises(InputError, match="softening"):
        potential.evaluate(torch.as_tensor(dipeptide.positions)[..., None], softening)


def test_the_same_term_twice_counts_twice(dipeptide):
    terms = {type(term).__name__: term for term in from_openmm(dipeptide.system).terms}
    pairs, born = terms["NonbondedPairs"], terms["GeneralizedBorn"]
    x = torch.as_tensor(dipeptide.positions)[..., None]
    for chosen in ([pairs, pairs, born], [born, born, pairs], [born, pairs], [pairs, pairs]):
        expected = PotentialEnergy(chosen, native=False).evaluate(x)
        assert torch.allclose(PotentialEnergy(chosen).evaluate(x).energy, expected.energy, rtol=0.0, atol=1e-9)


def test_pairs_listed_twice_or_backwards_fuse_like_any(dipeptide):
    terms = {type(term).__name__: term for term in from_openmm(dipeptide.system).terms}
    p = terms["NonbondedPairs"].arrays()
    x = torch.as_tensor(dipeptide.positions)[..., None]
    for rows, order in ((slice(None), [1, 0]), (np.r_[0 : len(p["atoms"]), 0:5], [0, 1])):
        changed = {name: value[rows] for name, value in p.items()}
        changed["atoms"] = changed["atoms"][:, order]
        chosen = [NonbondedPairs(22, torch.float64, **changed), terms["GeneralizedBorn"]]
        for softening in (None, 1.0):
            expected = PotentialEnergy(chosen, native=False).evaluate(x, softening)
            found = PotentialEnergy(chosen).evaluate(x, softening)
            assert torch.allclose(found.energy, expected.energy, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("native", NATIVE)
def test_single_precision_positions_on_a_double_potential(dipeptide, native):
    terms = list(from_openmm(dipeptide.system).terms)
    potential = PotentialEnergy(terms, native=native)
    x = torch.as_tensor(dipeptide.positions, dtype=torch.float32)[..., None]
    result = potential.evaluate(x)
    assert result.energy.dtype == result.gradient.dtype == torch.float32
    assert (result.energy.double() - potential.evaluate(x.double()).energy).abs() < 5e-3


def _singular(kind: str) -> PotentialEnergy:
    quadruple = np.array([[0, 1, 2, 3]])
    if kind == "bond":
        term = _bond(4, [0, 1])
    elif kind == "angle":
        term = HarmonicAngle(4, torch.float64, atoms=quadruple[:, :3], angle=np.array([2.0]), k=np.array([300.0]))
    elif kind == "torsion":
        numbers = {"periodicity": np.array([2.0]), "phase": np.array([1.0]), "k": np.array([3.0])}
        term = PeriodicTorsion(4, torch.float64, atoms=quadruple, **numbers)
    else:
        term = RBTorsion(4, torch.float64, atoms=quadruple, coefficients=np.arange(6.0)[None])
    return term


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("kind", ["bond", "angle", "torsion", "rb"])
def test_undefined_measures_fail_alike_in_kernels_and_torch(kind, native):
    """With and without gradient: coincident atoms, atoms in a line, an atom in no term that is nowhere."""
    potential = PotentialEnergy([_singular(kind)], native=native)
    x = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.15, 0.1, 0.0], [0.2, 0.1, 0.1]], dtype=torch.float64)
    x = x[..., None].repeat(1, 1, 4)
    x[0, :, 1] = x[1, :, 1]
    x[:, 1:, 2] = 0.0
    x[3, 0, 3] = math.inf
    fails = {"bond": [0, 1, 0, 1], "angle": [0, 1, 0, 1], "torsion": [0, 1, 1, 1], "rb": [0, 1, 1, 1]}[kind]
    result = potential.evaluate(x)
    assert torch.isposinf(result.energy).tolist() == [bool(f) for f in fails]
    assert torch.equal(torch.isposinf(potential.batch_last(x)), torch.isposinf(result.energy))
    assert torch.isfinite(result.gradient).all()


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("away", [1e-3, 3e-4, 0.0])
def test_single_precision_keeps_the_force_of_nearly_straight_angles(away, native):
    numbers = {"angle": np.array([2.0]), "k": np.array([300.0])}
    term = HarmonicAngle(3, torch.float32, atoms=np.array([[0, 1, 2]]), **numbers)
    bent = [[0.1, 0.0, 0.0], [0.0, 0.0, 0.0], [-0.1 * math.cos(away), 0.1 * math.sin(away), 0.0]]
    result = PotentialEnergy([term], native=native).evaluate(torch.tensor(bent, dtype=torch.float32)[..., None])
    slope = 300.0 * (math.pi - away - 2.0)
    expected = (
        slope / 0.1 if away else 0.0
    )  # dE/dθ over the arm; at π the direction is undefined, and the gradient zero
    assert result.gradient[2].norm() == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert result.energy == pytest.approx(0.5 * slope * (math.pi - away - 2.0), rel=1e-5)


@pytest.mark.parametrize("native", NATIVE)
@pytest.mark.parametrize("radii", [[0.08, 0.15], [0.5, 0.15, 0.15, 0.17, 0.9, 0.12]])
def test_atoms_that_swallow_others_in_the_native_gb(radii, native):
    n = len(radii)
    system, force = openmm.System(), openmm.GBSAOBCForce()
    for atom, radius in enumerate(radii):
        system.addParticle(1.0)
        force.addParticle(0.3 * (-1) ** atom, radius, 0.8)
    system.addForce(force)
    rng = np.random.default_rng(0)
    frames = np.linspace(0.02, 0.3, 40)[:, None, None] * rng.normal(size=(40, n, 3))
    energy, expected_force = openmm_energies(system, frames)
    potential = PotentialEnergy(list(from_openmm(system).terms), native=native)
    found, forces = potential.energy_and_forces(torch.as_tensor(frames))
    assert np.abs(found.numpy() - energy).max() < 1e-9 * np.abs(energy).max()
    assert np.abs(forces.numpy() - expected_force).max() < 1e-9 * np.abs(expected_force).max()


def _system(change) -> openmm.System:
    system, force = openmm.System(), openmm.NonbondedForce()
    for _ in range(3):
        system.addParticle(1.0)
        force.addParticle(0.1, 0.3, 0.5)
    bonds = openmm.HarmonicBondForce()
    bonds.addBond(0, 1, 0.1, 1e3)
    force.addException(0, 1, 0.0, 1.0, 0.0)
    change(force, bonds)
    system.addForce(force)
    system.addForce(bonds)
    return system


@pytest.mark.parametrize(
    "change",
    [
        lambda nonbonded, bonds: nonbonded.addParticle(0.0, 0.1, 0.1),
        lambda nonbonded, bonds: nonbonded.setExceptionParameters(nonbonded.addException(0, 2, 0, 1, 0), 1, 0, 0, 1, 0),
        lambda nonbonded, bonds: bonds.addBond(0, 3, 0.1, 1.0),
        lambda nonbonded, bonds: nonbonded.setParticleParameters(0, 0.0, -0.1, 0.1),
        lambda nonbonded, bonds: nonbonded.addException(0, 0, 0.1, 1.0, 0.5),
    ],
    ids=[
        "one particle too many",
        "an exception twice",
        "a bond to nowhere",
        "a negative sigma",
        "an exception with itself",
    ],
)
def test_what_openmm_refuses_is_refused(change):
    system = _system(change)
    with pytest.raises(InputError):
        from_openmm(system)


@pytest.mark.skipif(load() is None, reason="built without compiled kernels")
def test_no_threads_at_all_is_one(dipeptide):
    program, _ = split_terms(22, from_openmm(dipeptide.system).terms)
    x = torch.as_tensor(dipeptide.positions)[..., None].repeat(1, 1, 40)
    one = program.evaluate(load(), x, None, 1, with_gradient=True)
    for threads in (0, -3, 10**4):
        assert torch.equal(program.evaluate(load(), x, None, threads, with_gradient=True)[1], one[1])


def test_placement_takes_only_what_fits(dipeptide):
    molecule = dipeptide.molecule
    geometry = InternalToCartesian(build_zmatrix(molecule.atomic_numbers, molecule.bonds, molecule.rigid_bonds))
    one = geometry.internal(torch.as_tensor(dipeptide.positions)[..., None])
    bonds, angles, torsions = one.bonds, one.angles, one.torsions
    for wrong in (
        Internal(bonds[:-1], angles, torsions),
        Internal(bonds, angles, torsions[:5]),
        Internal(bonds, angles.float(), torsions),
        Internal(bonds.half(), angles.half(), torsions.half()),
    ):
        with pytest.raises(InputError, match="internal coordinates"):
            geometry.place(wrong)
    x, volume = geometry.place(Internal(bonds.repeat(1, 4), angles.repeat(1, 4), torsions))
    assert x.shape == (22, 3, 4)
    assert torch.equal(x[..., 3:], geometry.place(one)[0])
    assert volume.shape == (4,)
