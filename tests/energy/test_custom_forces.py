"""OpenMM's custom forces: one System each against the Reference platform."""

from __future__ import annotations

import math

import h5py
import numpy as np
import openmm
import pytest
import torch

from boltzgen.energy import PotentialEnergy, from_openmm
from boltzgen.energy.convert_custom import CONVERTERS
from boltzgen.energy.parity import openmm_energies
from boltzgen.errors import UnsupportedError
from boltzgen.storage.tree import get_tree, put_tree

DOUBLE = 2.5e-6
"""kJ/mol: 1e-6 kT; rounding of sums of about 1e3 is 1e-12."""

SINGLE = 0.0125
"""kJ/mol: 5e-3 kT; float32 is 6e-8 of sums of about 1e3, some of them cancelling."""

RELATIVE = 1e-6
"""Of the largest force."""

STEP = 1e-6
"""nm, of central differences: truncation h² U‴/6 and rounding 1e-16 U/h are both below 1e-7 of the largest force."""

N_ATOMS = 8


@pytest.fixture
def positions():
    """Atoms about 0.25 nm apart, in no special arrangement, nm."""
    lattice = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(-1, 3)
    return 0.25 * lattice + np.random.default_rng(1).uniform(-0.06, 0.06, (N_ATOMS, 3))


def system_with(*forces, n_atoms=N_ATOMS):
    system = openmm.System()
    for _ in range(n_atoms):
        system.addParticle(12.0)
    for force in forces:
        system.addForce(force)
    return system


def assert_same_function(system, positions):
    """Energies and forces of Reference and of central differences, in both precisions, before and after storing."""
    rng = np.random.default_rng(0)
    width = np.linspace(0.0, 0.02, 8)[:, None, None]
    frames = positions + width * rng.standard_normal((8, *positions.shape))
    energy, force = openmm_energies(system, frames)
    assert np.abs(energy).min() > 1e-2  # there is something to compare
    x = torch.as_tensor(frames)
    potential = from_openmm(system)
    torch_energy, torch_force = potential.energy_and_forces(x)
    assert np.abs(torch_energy.numpy() - energy).max() < DOUBLE
    assert np.abs(torch_force.numpy() - force).max() < RELATIVE * np.abs(force).max()
    with h5py.File("stored", "w", driver="core", backing_store=False) as file:
        put_tree(file, potential.to_tree())
        stored = get_tree(file)
    assert torch.equal(PotentialEnergy.from_tree(stored)(x), potential(x))
    single = PotentialEnergy.from_tree(stored, torch.float32)(x.float())
    assert single.dtype == torch.float32
    assert np.abs(single.double().numpy() - energy).max() < SINGLE
    shifts = STEP * torch.eye(positions.size, dtype=torch.float64).reshape(-1, *positions.shape)
    difference = (potential(x[-1] - shifts) - potential(x[-1] + shifts)) / (2.0 * STEP)
    assert (difference.reshape(positions.shape) - torch_force[-1]).abs().max() < RELATIVE * np.abs(force).max()


def tables():
    """A table of every sort, which cover distances to 0.8 nm and angles to π."""
    rng = np.random.default_rng(3)
    periodic = rng.normal(size=7)
    periodic[-1] = periodic[0]
    return {
        "spline": openmm.Continuous1DFunction(rng.normal(size=9).tolist(), 0.0, 0.8),
        "turn": openmm.Continuous1DFunction(periodic.tolist(), -math.pi, math.pi, True),
        "surface": openmm.Continuous2DFunction(5, 6, rng.normal(size=30).tolist(), 0.0, 0.8, 0.0, math.pi),
        "volume": openmm.Continuous3DFunction(4, 3, 3, rng.normal(size=36).tolist(), 0.0, 0.8, 0.0, 0.9, 0.0, 0.7),
        "row": openmm.Discrete1DFunction(rng.normal(size=4).tolist()),
        "matrix": openmm.Discrete2DFunction(2, 2, [1.0, 0.3, 0.3, -0.7]),
        "cube3": openmm.Discrete3DFunction(2, 2, 2, rng.normal(size=8).tolist()),
    }


def custom_bonds():
    force = openmm.CustomBondForce(
        "k*(d^2 - cubic*d^3)*select(step(d), 1, 1+soft) + depth*(1-exp(-d/0.1))^2; soft=tanh(d)^2; d=r-r0"
    )
    force.addGlobalParameter("cubic", 2.5)
    force.addGlobalParameter("depth", 3.0)
    force.addPerBondParameter("k")
    force.addPerBondParameter("r0")
    force.addEnergyParameterDerivative("cubic")
    force.addBond(0, 1, [900.0, 0.2])
    force.addBond(5, 2, [300.0, 0.3])
    force.addBond(1, 7, [150.0, 0.7])
    return force


def custom_angles():
    force = openmm.CustomAngleForce("k*(theta-theta0)^2*(1-0.4*(theta-theta0)) + 3*(1+cos(n*theta))*sin(theta)^2")
    for name in ("k", "theta0", "n"):
        force.addPerAngleParameter(name)
    force.addAngle(0, 1, 2, [40.0, 1.9, 1.0])
    force.addAngle(4, 3, 7, [20.0, 2.1, 3.0])
    return force


def custom_torsions():
    """The harmonic improper of CHARMM, and a proper with odd and even parts."""
    force = openmm.CustomTorsionForce(
        f"k*min(d, 2*pi-d)^2 + 2*sin(theta-theta0)^3 + floor(theta/10); d=abs(theta-theta0); pi={math.pi}"
    )
    force.addPerTorsionParameter("k")
    force.addPerTorsionParameter("theta0")
    for atoms, theta0 in (((0, 1, 2, 3), 0.2), ((7, 4, 1, 6), 3.0), ((2, 0, 6, 5), -3.0)):
        force.addTorsion(*atoms, [7.0, theta0])
    return force


def custom_external():
    force = openmm.CustomExternalForce("k*((x-x0)^2 + abs(y)*exp(-z)) + erf(5*z)*max(x,y)^2 + ceil(x) + offset")
    force.addGlobalParameter("offset", -2.0)
    force.addPerParticleParameter("k")
    force.addPerParticleParameter("x0")
    force.addParticle(3, [50.0, 0.1])
    force.addParticle(6, [20.0, -0.2])
    return force


def custom_compound_bonds():
    """Distances, angles and torsions of atoms and of points, coordinates, and every sort of table."""
    force = openmm.CustomCompoundBondForce(
        4,
        "k*(distance(p1,p3)-0.3)^2 + turn(phi)*cos(phi-shift) + surface(distance(p2,p4), angle(p1,p2,p3))"
        " + volume(distance(p1,p2), pointdistance(x1,y1,z1, (x3+x4)/2,(y3+y4)/2,(z3+z4)/2), distance(p2,p3))"
        " + pointangle(x1+0.1,y2,z3, x2,y2,z2, x4,y4,0)^2 + 2*cos(pointdihedral(x1,y1,z1, 0,0,0, x3,y3,z3, x4,y4,1))"
        " + (x1*y2-z4)*row(type) + cube3(type,1,0)*spline(distance(p4,p1)); phi=dihedral(p1,p2,p3,p4)",
    )
    for name, function in tables().items():
        force.addTabulatedFunction(name, function)
    force.addGlobalParameter("shift", 0.7)
    force.addPerBondParameter("k")
    force.addPerBondParameter("type")
    force.addBond([0, 1, 2, 3], [200.0, 0.0])
    force.addBond([7, 5, 2, 4], [100.0, 3.0])
    return force


def custom_nonbonded(*, cutoff=None, switching=None, groups=False):
    """Buffered pairs of computed parameters, with exclusions."""
    force = openmm.CustomNonbondedForce(
        "scale*matrix(type1,type2)*(epsilon*(s^12 - 2*s^6) + 10*q1*q2/(r+0.05)) + spline(r)"
        " + cube3(type1*type2,0,1)/r; s=1.07*sigma/(r+0.07*sigma); sigma=0.5*(sigma1+sigma2);"
        " epsilon=sqrt(epsilon1*epsilon2)"
    )
    for name, function in tables().items():
        force.addTabulatedFunction(name, function)
    force.addGlobalParameter("scale", 0.8)
    for name in ("q", "sigma", "type"):
        force.addPerParticleParameter(name)
    force.addComputedValue("epsilon", "scale*row(type)^2 + 10*sigma")
    rng = np.random.default_rng(4)
    for index in range(N_ATOMS):
        force.addParticle([rng.uniform(-1.0, 1.0), rng.uniform(0.2, 0.3), float(index % 2)])
    force.addExclusion(0, 1)
    force.addExclusion(6, 2)
    if groups:
        force.addInteractionGroup([0, 1, 2, 3], [2, 3, 4])
        force.addInteractionGroup([5, 6], [5, 6, 7])
        force.addInteractionGroup([4], [0, 5])
    if cutoff is not None:
        force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
        force.setCutoffDistance(cutoff)
    if switching is not None:
        force.setUseSwitchingFunction(True)
        force.setSwitchingDistance(switching)
    return force


def custom_gb(*, cutoff=None):
    """Values of pairs and of atoms, energies of all kinds, and exclusions that count in some of them."""
    force = openmm.CustomGBForce()
    for name, function in tables().items():
        force.addTabulatedFunction(name, function)
    force.addGlobalParameter("tau", 0.9)
    force.addPerParticleParameter("q")
    force.addPerParticleParameter("radius")
    pairs, all_pairs, single = force.ParticlePair, force.ParticlePairNoExclusions, force.SingleParticle
    force.addComputedValue("I", "q2*max(radius1, abs(r-radius2))*exp(-r/radius2) + 0.02*spline(r)/r", pairs)
    force.addComputedValue("J", "0.1*I^2*tau + x*y - matrix(0,1)*z", single)
    force.addComputedValue("B", "1/(1/radius-tanh(psi-0.8*psi^2)); psi=I*radius+0.1*J", single)
    force.addEnergyTerm("-20*tau*q^2/B + J + x^2", single)
    force.addEnergyTerm("-40*tau*q1*q2/f; f=sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2)))", all_pairs)
    force.addEnergyTerm("3*J1*J2*select(step(r-0.3), 0.1/r, I1+I2)", pairs)
    rng = np.random.default_rng(5)
    for _ in range(N_ATOMS):
        force.addParticle([rng.uniform(-1.0, 1.0), rng.uniform(0.1, 0.2)])
    force.addExclusion(1, 0)
    force.addExclusion(3, 7)
    if cutoff is not None:
        force.setNonbondedMethod(openmm.CustomGBForce.CutoffNonPeriodic)
        force.setCutoffDistance(cutoff)
    return force


FORCES = {
    "CustomBondForce": custom_bonds,
    "CustomAngleForce": custom_angles,
    "CustomTorsionForce": custom_torsions,
    "CustomExternalForce": custom_external,
    "CustomCompoundBondForce": custom_compound_bonds,
    "CustomNonbondedForce": custom_nonbonded,
    "CustomGBForce": custom_gb,
}


@pytest.mark.parametrize("kind", FORCES)
def test_every_custom_force_is_the_same_function(kind, positions):
    assert_same_function(system_with(FORCES[kind]()), positions)


@pytest.mark.parametrize(
    "options",
    [
        {"groups": True},
        {"cutoff": 0.35},
        {"cutoff": 0.4, "switching": 0.3},
        {"cutoff": 0.35, "switching": 0.2, "groups": True},
    ],
    ids=str,
)
def test_groups_cutoff_and_switching_of_pairs_are_the_same_function(options, positions):
    assert_same_function(system_with(custom_nonbonded(**options)), positions)


def test_a_cutoff_in_generalised_born_is_the_same_function(positions):
    assert_same_function(system_with(custom_gb(cutoff=0.35)), positions)


def test_a_pair_energy_undefined_beyond_its_cutoff_has_forces(positions):
    force = openmm.CustomNonbondedForce("-10*sqrt(1-(r/0.35)^2)")
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
    force.setCutoffDistance(0.35)
    for _ in range(N_ATOMS):
        force.addParticle([])
    system = system_with(force)
    energy, forces = openmm_energies(system, positions[None])
    ours, gradient = from_openmm(system).energy_and_forces(torch.as_tensor(positions)[None])
    assert ours.item() == pytest.approx(energy[0], abs=DOUBLE)
    assert np.abs(gradient.numpy() - forces).max() < RELATIVE * np.abs(forces).max()


@pytest.mark.parametrize("kind", FORCES)
def test_a_sample_that_cannot_be_computed_is_infinite_and_leaves_the_others_alone(kind, positions):
    potential = from_openmm(system_with(FORCES[kind]()))
    x = torch.as_tensor(positions)[:, :, None].repeat(1, 1, 3)
    x[:, :, 0] = 0.1  # all atoms in one place
    x[3, 1, 2] = x[6, 0, 2] = x[0, 2, 2] = math.nan
    energy, gradient = potential.evaluate(x)
    alone = potential.evaluate(x[:, :, 1:2].contiguous())
    assert energy[2] == math.inf
    assert not gradient[:, :, 2].any()
    assert torch.allclose(energy[1], alone.energy[0], rtol=1e-12)
    assert torch.allclose(gradient[:, :, 1], alone.gradient[:, :, 0], rtol=1e-9)
    assert torch.isfinite(gradient).all()
    if kind not in ("CustomExternalForce", "CustomAngleForce"):  # regular there, or of gradient zero
        assert energy[0] == math.inf
        assert not gradient[:, :, 0].any()


@pytest.mark.parametrize("text", ["0*r+7", "7", "step(r)*7", "g"])
def test_an_energy_without_a_slope_has_force_zero(text, positions):
    force = openmm.CustomBondForce(text)
    force.addGlobalParameter("g", 7.0)
    force.addBond(0, 1, [])
    force.addBond(2, 1, [])
    energy, gradient = from_openmm(system_with(force)).evaluate(torch.as_tensor(positions)[:, :, None])
    assert energy.item() == 14.0
    assert not gradient.any()


def test_a_straight_angle_and_a_flat_torsion_have_finite_forces():
    angle = openmm.CustomAngleForce("theta^2")
    angle.addAngle(0, 1, 2, [])
    torsion = openmm.CustomTorsionForce("cos(theta)*3")
    torsion.addTorsion(0, 3, 4, 5, [])
    line = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0.1, 0.1, 0], [0.2, 0.1, 0], [0.3, 0, 0]])
    potential = from_openmm(system_with(angle, torsion, n_atoms=6))
    energy, gradient = potential.evaluate(torch.as_tensor(line)[:, :, None])
    assert energy.item() == pytest.approx(math.pi**2 + 3.0, abs=1e-9)
    assert torch.isfinite(gradient).all()


def test_forces_without_interactions_have_no_terms():
    empty = [openmm.CustomBondForce("r"), openmm.CustomExternalForce("x"), openmm.CustomCompoundBondForce(2, "x1")]
    assert len(from_openmm(system_with(*empty)).terms) == 0


@pytest.mark.parametrize("kind", FORCES)
def test_periodic_forces_are_refused_by_name(kind):
    force = FORCES[kind]()
    if kind in ("CustomNonbondedForce", "CustomGBForce"):
        force.setNonbondedMethod(type(force).CutoffPeriodic)
    elif kind == "CustomExternalForce":
        force.setEnergyFunction("periodicdistance(x,y,z,0,0,0)")
    else:
        force.setUsesPeriodicBoundaryConditions(True)
    with pytest.raises(UnsupportedError, match=kind):
        CONVERTERS[kind](force, N_ATOMS, torch.float64)


def test_a_wrong_expression_is_named():
    force = openmm.CustomBondForce("k*(r-r0)^2")
    force.addPerBondParameter("k")
    force.addBond(0, 1, [1.0])
    with pytest.raises(UnsupportedError, match=r"CustomBondForce: .*k\*\(r-r0\)\^2.*unknown variable r0 at position 5"):
        from_openmm(system_with(force))


def test_softened_pairs_are_finite_and_unchanged_below_the_threshold(positions):
    force = openmm.CustomNonbondedForce("(0.2/r)^12")
    for _ in range(N_ATOMS):
        force.addParticle([])
    potential = from_openmm(system_with(force), torch.float32)
    frames = torch.as_tensor(positions, dtype=torch.float32).repeat(2, 1, 1)
    frames[1] = 0.1
    assert torch.equal(potential(frames, 1e4)[0], potential(frames)[0])
    x = frames.permute(1, 2, 0).contiguous()
    energy, gradient = potential.evaluate(x, 100.0)
    assert torch.isfinite(energy).all()
    assert torch.isfinite(gradient).all()
