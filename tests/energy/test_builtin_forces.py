"""OpenMM's built-in forces: each torch term against the Reference platform, and what is refused."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch

from boltzgen.energy import PotentialEnergy, from_openmm
from boltzgen.energy.parity import check_parity, openmm_energies
from boltzgen.errors import UnsupportedError

ROUNDING = 1e-9
"""kJ/mol and kJ/mol/nm: float64 rounding of sums of about 1e3."""

N_ATOMS = 12


@pytest.fixture
def positions():
    """Atoms about 0.36 nm apart, in no special arrangement, nm."""
    rng = np.random.default_rng(1)
    lattice = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1, 2], indexing="ij"), axis=-1).reshape(-1, 3)
    return 0.36 * lattice + rng.uniform(-0.05, 0.05, (N_ATOMS, 3))


def system_with(*forces):
    system = openmm.System()
    for _ in range(N_ATOMS):
        system.addParticle(12.0)
    for force in forces:
        system.addForce(force)
    return system


def assert_same_function(system, positions):
    """Energies and forces of Reference, forces of central differences, and the same after storing; both ways."""
    converted = from_openmm(system)
    frames = torch.as_tensor(positions)[None]
    assert torch.equal(PotentialEnergy.from_tree(converted.to_tree())(frames), converted(frames))
    for potential in (converted, PotentialEnergy(list(converted.terms), native=False)):
        parity = check_parity(system, potential, positions)
        assert parity.energy < ROUNDING
        assert parity.force < 10 * ROUNDING
        assert parity.energy_float32 < 5e-3
        step = 1e-5
        shifts = step * torch.eye(3 * N_ATOMS, dtype=torch.float64).reshape(-1, N_ATOMS, 3)
        difference = (potential(frames - shifts) - potential(frames + shifts)) / (2 * step)
        _, force = potential.energy_and_forces(frames)
        # Truncation h² E‴/6 and rounding 1e-16 E/h are both below 1e-6 of the largest force.
        assert torch.allclose(difference.reshape(N_ATOMS, 3), force[0], rtol=0.0, atol=1e-6 * float(force.abs().max()))


def rb_torsions():
    force = openmm.RBTorsionForce()
    rng = np.random.default_rng(2)
    for atoms in ((0, 1, 2, 3), (5, 4, 8, 11), (0, 1, 2, 7)):
        force.addTorsion(*atoms, *rng.uniform(-9, 9, 6))
    return force


def cmap_torsions():
    """Maps of two sizes, one of them twice and one unused, with torsions in mixed order."""
    force = openmm.CMAPTorsionForce()
    rng = np.random.default_rng(3)
    for size in (8, 24, 6, 8):
        force.addMap(size, rng.uniform(-5, 5, size * size))
    for index, atoms in ((3, (0, 1, 2, 3, 1, 2, 3, 4)), (1, (5, 4, 8, 11, 0, 3, 6, 9)), (0, (2, 3, 4, 5, 7, 8, 9, 10))):
        force.addTorsion(index, *atoms)
    return force


def nonbonded(*, cutoff=None, switching=None, dielectric=78.3, offsets=False):
    """Random particles with an exclusion, two exceptions, one of them across the cutoff, and offsets on request."""
    force = openmm.NonbondedForce()
    rng = np.random.default_rng(4)
    for index in range(N_ATOMS):
        force.addParticle(rng.uniform(-0.5, 0.5), rng.uniform(0.2, 0.35), 0.0 if index == 3 else rng.uniform(0.1, 0.6))
    force.addException(1, 0, 0.0, 1.0, 0.0)
    force.addException(0, 2, 0.1, 0.3, 0.2)
    force.addException(11, 0, -0.2, 0.25, 0.3)
    if cutoff:
        force.setNonbondedMethod(openmm.NonbondedForce.CutoffNonPeriodic)
        force.setCutoffDistance(cutoff)
        force.setReactionFieldDielectric(dielectric)
    if switching:
        force.setUseSwitchingFunction(True)
        force.setSwitchingDistance(switching)
    if offsets:
        force.addGlobalParameter("lambda", 0.7)
        force.addGlobalParameter("mu", -0.3)
        force.addParticleParameterOffset("lambda", 4, 0.3, 0.05, 0.2)
        force.addParticleParameterOffset("mu", 4, 0.1, 0.0, 0.0)
        force.addParticleParameterOffset("mu", 7, 0.5, -0.02, -0.1)
        force.addExceptionParameterOffset("lambda", 0, 0.2, -1.0, 0.4)
        force.addExceptionParameterOffset("mu", 2, 0.2, 0.1, 0.1)
    return force


def test_ryckaert_bellemans_convention_is_that_of_openmm(positions):
    assert_same_function(system_with(rb_torsions()), positions)


@pytest.mark.parametrize("angle", [0.0, np.pi / 3, np.pi])
def test_ryckaert_bellemans_force_is_finite_where_an_angle_would_have_a_kink(angle):
    chain = np.array([[0.1, 0.1, 0], [0.1, 0, 0], [0, 0, 0], [0, 0.1 * np.cos(angle), 0.1 * np.sin(angle)]])
    torsion = openmm.RBTorsionForce()
    torsion.addTorsion(0, 1, 2, 3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    frames = torch.as_tensor(np.concatenate([chain, np.zeros((N_ATOMS - 4, 3))]))[None]
    energy, force = from_openmm(system_with(torsion)).energy_and_forces(frames)
    assert torch.isfinite(energy).all()
    assert torch.isfinite(force).all()


def test_cmap_is_the_spline_of_openmm(positions):
    assert_same_function(system_with(cmap_torsions()), positions)


def test_cmap_is_right_in_every_cell_and_across_its_borders():
    """All turns of both torsions, grid lines and ±π included."""
    size = 8
    force = openmm.CMAPTorsionForce()
    force.addMap(size, np.random.default_rng(5).uniform(-5, 5, size * size))
    force.addTorsion(0, 0, 1, 2, 3, 4, 5, 6, 7)
    system = system_with(force)
    angles = np.linspace(-np.pi, np.pi, 4 * size + 1)
    phi, psi = np.meshgrid(angles, angles, indexing="ij")
    frames = np.zeros((phi.size, N_ATOMS, 3))
    for first, angle in ((0, phi.ravel()), (4, psi.ravel())):
        frames[:, first] = [0.1, 0, 0]
        frames[:, first + 2] = [0, 0, 0.1]
        frames[:, first + 3] = 0.1 * np.stack([np.cos(angle), np.sin(angle), np.ones_like(angle)], axis=1)
    reference, reference_force = openmm_energies(system, frames)
    energy, force = from_openmm(system).energy_and_forces(torch.as_tensor(frames))
    assert np.abs(energy.numpy() - reference).max() < ROUNDING
    # Slopes of 5 kJ/mol over 2π/8, at 0.1 nm from the axis.
    assert np.abs(force.numpy() - reference_force).max() < 10 * ROUNDING


@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize(
    "cutoff",
    [
        {},
        {"cutoff": 0.6},
        {"cutoff": 0.6, "dielectric": 1.0},
        {"cutoff": 0.6, "switching": 0.45},
        {"cutoff": 5.0, "switching": 4.0},
    ],
    ids=["none", "reaction-field", "vacuum-beyond", "switched", "beyond-all"],
)
def test_nonbonded_cutoffs_exceptions_and_offsets_are_those_of_openmm(positions, cutoff, offsets):
    assert_same_function(system_with(nonbonded(**cutoff, offsets=offsets)), positions)


def test_cutoff_does_not_hide_broken_coordinates(positions):
    """NaN is not farther away than the cutoff."""
    force = nonbonded(cutoff=0.6, switching=0.45)
    frames = torch.as_tensor(positions).repeat(2, 1, 1)
    frames[1, 5, 0] = torch.nan
    frames[1, 0] = 1e3
    energy, gradient = from_openmm(system_with(force)).evaluate(frames.permute(1, 2, 0))
    assert torch.isfinite(energy[0])
    assert energy[1] == torch.inf
    assert torch.equal(gradient[..., 1], torch.zeros(N_ATOMS, 3, dtype=torch.float64))


def test_softened_cutoff_keeps_clashes_finite_and_changes_nothing_else(positions):
    potential = from_openmm(system_with(nonbonded(cutoff=0.6)))
    frames = torch.as_tensor(positions).repeat(2, 1, 1)
    frames[1, 5] = frames[1, 9]
    softened = potential(frames, 1e5)
    assert torch.equal(softened[0], potential(frames)[0])
    assert torch.isfinite(softened).all()


def test_forces_without_interactions_are_no_terms(positions):
    forces = (
        openmm.HarmonicBondForce(),
        openmm.HarmonicAngleForce(),
        openmm.PeriodicTorsionForce(),
        openmm.RBTorsionForce(),
        openmm.CMAPTorsionForce(),
    )
    silent = nonbonded()
    silent.setIncludeDirectSpace(False)
    potential = from_openmm(system_with(*forces, silent))
    assert len(potential.terms) == 0
    assert torch.equal(potential(torch.as_tensor(positions)[None]), torch.zeros(1, dtype=torch.float64))


def test_remover_of_the_centre_of_mass_motion_is_ignored(positions):
    with_remover = from_openmm(system_with(nonbonded(), openmm.CMMotionRemover()))
    frames = torch.as_tensor(positions)[None]
    assert torch.equal(with_remover(frames), from_openmm(system_with(nonbonded()))(frames))


def periodic(force):
    force.setUsesPeriodicBoundaryConditions(True)
    return force


def with_method(method):
    force = nonbonded()
    force.setNonbondedMethod(method)
    return force


def holding_periodic():
    force = openmm.CustomCVForce("d")
    force.addCollectiveVariable("d", periodic(openmm.CustomBondForce("r")))
    return force


REFUSED = [
    periodic(openmm.HarmonicBondForce()),
    periodic(openmm.HarmonicAngleForce()),
    periodic(openmm.PeriodicTorsionForce()),
    periodic(openmm.RBTorsionForce()),
    periodic(openmm.CMAPTorsionForce()),
    periodic(openmm.CustomBondForce("r")),
    holding_periodic(),
    *(
        with_method(method)
        for method in (
            openmm.NonbondedForce.CutoffPeriodic,
            openmm.NonbondedForce.Ewald,
            openmm.NonbondedForce.PME,
            openmm.NonbondedForce.LJPME,
        )
    ),
    openmm.AndersenThermostat(300.0, 1.0),
    openmm.MonteCarloBarostat(1.0, 300.0),
    openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(1, 1, 1), 300.0),
    openmm.MonteCarloMembraneBarostat(1.0, 0.0, 300.0, 0, 0),
    openmm.MonteCarloFlexibleBarostat(1.0, 300.0),
    openmm.RPMDMonteCarloBarostat(1.0, 1),
    openmm.PythonForce(min),
]


@pytest.mark.parametrize("force", REFUSED, ids=lambda force: type(force).__name__)
def test_what_is_no_energy_of_free_coordinates_is_refused_by_name(force):
    system = system_with(force)
    for fallback in (False, True):
        with pytest.raises(UnsupportedError, match=type(force).__name__):
            from_openmm(system, fallback=fallback)


@pytest.mark.parametrize("fallback", [False, True])
def test_constraints_and_virtual_sites_are_refused(fallback):
    constrained = system_with()
    constrained.addConstraint(0, 1, 0.1)
    with pytest.raises(UnsupportedError, match="1 constraint"):
        from_openmm(constrained, fallback=fallback)
    with_site = system_with()
    with_site.setParticleMass(2, 0.0)
    with_site.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    with pytest.raises(UnsupportedError, match="virtual site"):
        from_openmm(with_site, fallback=fallback)


@pytest.mark.parametrize(
    "force",
    [
        openmm.DrudeForce(),
        openmm.AmoebaVdwForce(),
        openmm.CustomCentroidBondForce(2, "distance(g1, g2)"),
        openmm.CustomHbondForce("distance(a1, d1)"),
        openmm.CustomManyParticleForce(3, "distance(p1, p2)"),
        openmm.CustomCVForce("1"),
        openmm.ATMForce("u0"),
        openmm.RMSDForce([openmm.Vec3(i, i % 2, 0) for i in range(N_ATOMS)]),
    ],
    ids=lambda force: type(force).__name__,
)
def test_forces_that_cannot_be_converted_are_named_with_the_way_out(force):
    with pytest.raises(UnsupportedError, match=rf"{type(force).__name__}.*fallback=True"):
        from_openmm(system_with(force))
