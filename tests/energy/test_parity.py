"""Torch energies and forces against OpenMM Reference, for whole molecules."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
import torch
from openmm import app

from boltzgen.chemistry.forcefield import build_system
from boltzgen.constants import thermal_energy
from boltzgen.energy import OpenMMEnergy, PotentialEnergy, from_openmm
from boltzgen.energy.parity import check_parity, openmm_energies

KT = thermal_energy(300.0)
DOUBLE = 1e-6 * KT
"""kJ/mol; rounding of sums of about 1e4 kJ/mol in strained frames is 1e-9."""

SINGLE = 5e-3 * KT
"""kJ/mol; float32 is 6e-8 of terms of about 1e4 kJ/mol that cancel, a few of them."""

RELATIVE = 1e-6
"""Of the largest force in a frame, which is 1e3 to 1e5 kJ/mol/nm."""

STEP = 1e-6
"""nm, of central differences: truncation h² U‴/6 and rounding 1e-16 U/h are both below 1e-7 of the largest force."""

SOLVENTS = ("vacuum", "hct", "obc1", "obc2", "gbn", "gbn2")


def jittered(positions, n_frames, seed=0):
    """Frames displaced by normal noise of 0 to 0.02 nm."""
    rng = np.random.default_rng(seed)
    width = np.linspace(0.0, 0.02, n_frames)[:, None, None]
    return positions + width * rng.standard_normal((n_frames, *positions.shape))


def both_ways(potential, dtype=torch.float64):
    """The potential by the compiled kernels, as far as they are there, and by plain torch."""
    for native in (True, False):
        yield PotentialEnergy(list(PotentialEnergy.from_tree(potential.to_tree(), dtype).terms), native=native)


def assert_same_function(system, potential, positions):
    """Energies in both precisions, and forces, of 200 frames."""
    frames = jittered(positions, 200)
    energy, force = openmm_energies(system, frames)
    largest = np.abs(force).max(axis=(1, 2))
    for double in both_ways(potential):
        own_energy, own_force = (part.numpy() for part in double.energy_and_forces(torch.as_tensor(frames)))
        assert np.abs(own_energy - energy).max() < DOUBLE
        assert (np.abs(own_force - force).max(axis=(1, 2)) < RELATIVE * largest).all()
    for single in both_ways(potential, torch.float32):
        own_energy = single(torch.as_tensor(frames, dtype=torch.float32)).double().numpy()
        assert np.abs(own_energy - energy).max() < SINGLE


def assert_force_is_the_derivative(potential, positions, *, jumps=False):
    """Central differences in every coordinate of 10 frames.

    The neck correction of GBn and GBn2 stops at a cutoff where it is not zero, so that those energies jump as a pair
    crosses it. A step across a jump says nothing about the force; it is recognised by a second difference
    |U(+h) − 2U(0) + U(−h)| above 1e-5 kJ/mol, where any curvature gives 1e-6, and left out. It may be one step
    in a hundred, and none in a model without jumps.
    """
    frames = torch.as_tensor(jittered(positions, 10, seed=1))
    n = frames[0].numel()
    shift = STEP * torch.eye(n, dtype=torch.float64).reshape(n, *frames.shape[1:])
    energy, force = potential.energy_and_forces(frames)
    ahead, behind = (
        torch.stack([potential(frame + sign * shift) for frame in frames]).reshape(force.shape) for sign in (1.0, -1.0)
    )
    smooth = (ahead + behind - 2.0 * energy[:, None, None]).abs() < 1e-5
    assert int((~smooth).sum()) <= (0.01 * smooth.numel() if jumps else 0)
    deviation = ((behind - ahead) / (2.0 * STEP) - force).abs() * smooth
    assert (deviation.amax(dim=(1, 2)) < RELATIVE * force.abs().amax(dim=(1, 2))).all()


@pytest.mark.parametrize("solvent", SOLVENTS)
@pytest.mark.parametrize("force_field", ["ff14SB", "ff96", "ff99SB-ILDN", "ff19SB"])
def test_every_solvent_and_force_field_agrees(dipeptide, force_field, solvent):
    system = build_system(dipeptide.topology, force_field, solvent)
    kinds = {type(force) for force in system.getForces()}
    assert (openmm.CMAPTorsionForce in kinds) == (force_field == "ff19SB")
    potential = from_openmm(system)
    assert_same_function(system, potential, dipeptide.positions)
    assert_force_is_the_derivative(potential, dipeptide.positions, jumps=solvent.startswith("gbn"))
    assert check_parity(system, potential, dipeptide.positions).agrees


@pytest.fixture(scope="module")
def charmm(dipeptide):
    """Alanine dipeptide in CHARMM36 of 2024, whose file takes seconds to read.

    As the one residue ALAD: as three residues with patches, OpenMM takes half a minute more to match them.
    """
    topology = app.Topology()
    residue = topology.addResidue("ALAD", topology.addChain())
    atoms = {
        atom: topology.addAtom(f"{atom.name}{atom.residue.index}", atom.element, residue)
        for atom in dipeptide.topology.atoms()
    }
    for first, second in dipeptide.topology.bonds():
        topology.addBond(atoms[first], atoms[second])
    return app.ForceField("charmm36_2024.xml").createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False
    )


def test_charmm_agrees(dipeptide, charmm):
    kinds = {type(force).__name__ for force in charmm.getForces()}
    assert kinds >= {"CMAPTorsionForce", "CustomBondForce", "CustomNonbondedForce", "CustomTorsionForce"}
    potential = from_openmm(charmm)
    assert_same_function(charmm, potential, dipeptide.positions)
    assert_force_is_the_derivative(potential, dipeptide.positions)


def test_native_gbsa_obc_agrees(dipeptide):
    system = app.ForceField("amber99sb.xml", "amber99_obc.xml").createSystem(
        dipeptide.topology, nonbondedMethod=app.NoCutoff, constraints=None
    )
    assert any(isinstance(force, openmm.GBSAOBCForce) for force in system.getForces())
    assert check_parity(system, from_openmm(system), dipeptide.positions).energy < DOUBLE


def test_parity_check_sees_a_missing_term(dipeptide):
    potential = from_openmm(dipeptide.system)
    broken = PotentialEnergy([term for term in potential.terms if type(term).__name__ != "PeriodicTorsion"])
    assert not check_parity(dipeptide.system, broken, dipeptide.positions).agrees


def test_parity_check_does_not_blame_the_single_precision_of_openmm():
    """From 100 atoms on, what is left to OpenMM is computed on its CPU platform, and compared with Reference."""
    system, force = openmm.System(), openmm.CustomManyParticleForce(2, "exp(-4*distance(p1, p2))")
    for _ in range(100):
        system.addParticle(1.0)
        force.addParticle([], 0)
    system.addForce(force)
    positions = np.random.default_rng(3).uniform(0.0, 2.0, (100, 3))
    parity = check_parity(system, from_openmm(system, fallback=True), positions)
    assert parity.agrees
    assert parity.energy > 0.0
    half = from_openmm(system, fallback=True)
    system.addForce(copy.deepcopy(force))
    assert not check_parity(system, half, positions).agrees


def test_stored_parameters_give_the_same_energy(dipeptide):
    system = build_system(dipeptide.topology, "ff19SB", "gbn2")
    potential = from_openmm(system)
    frames = torch.as_tensor(dipeptide.positions)[None]
    assert torch.equal(PotentialEnergy.from_tree(potential.to_tree())(frames), potential(frames))


def test_softening_changes_nothing_below_its_threshold_and_keeps_clashes_finite(dipeptide):
    potential = from_openmm(dipeptide.system)
    frames = torch.as_tensor(dipeptide.positions)[None]
    assert torch.allclose(potential(frames, 1e4), potential(frames), rtol=0.0, atol=1e-9)  # rounding
    clash = frames.clone()
    clash[0, 5] = clash[0, 15]
    single = PotentialEnergy.from_tree(potential.to_tree(), torch.float32)
    assert torch.isfinite(single(clash.float(), 200.0)).all()
    assert not torch.isfinite(potential(clash)).all()  # the raw energy says so: never a made-up number


def by_kernels(system, dtype):
    return from_openmm(system, dtype)


def by_torch(system, dtype):
    return PotentialEnergy(list(from_openmm(system, dtype).terms), native=False)


def by_openmm(system, dtype):
    return PotentialEnergy([OpenMMEnergy(22, dtype, system_xml=openmm.XmlSerializer.serialize(system))])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [by_kernels, by_torch, by_openmm])
@pytest.mark.parametrize("solvent", ["vacuum", "obc2", "gbn2"])
def test_broken_coordinates_are_counted_failures_among_good_samples(dipeptide, solvent, make, dtype):
    """Coincident atoms, NaN, infinity and overflow; 1e200 nm squared is infinite in float64, 1e30 nm in float32."""
    potential = make(build_system(dipeptide.topology, "ff19SB", solvent), dtype)
    x = torch.as_tensor(jittered(dipeptide.positions, 10), dtype=dtype)
    good, bad = [0, 2, 4, 6, 8, 9], [1, 3, 5, 7]
    alone = potential(x[good])
    x[1, 4] = x[1, 15]
    x[3, 4, 0] = torch.nan
    x[5, 4, 0] = torch.inf
    x[7, 4, 0] = 1e30 if dtype == torch.float32 else 1e200
    evaluation = potential.evaluate(x.permute(1, 2, 0).contiguous())
    assert evaluation.n_failed == len(bad)
    assert torch.isposinf(evaluation.energy[bad]).all()
    assert torch.equal(evaluation.gradient[..., bad], torch.zeros(22, 3, len(bad), dtype=dtype))
    assert torch.isfinite(evaluation.gradient).all()
    assert evaluation.gradient[..., good].any(dim=0).all()
    # Batches of another size may be summed in another order: rounding only.
    assert torch.allclose(evaluation.energy[good], alone, rtol=0.0, atol=SINGLE if dtype == torch.float32 else DOUBLE)
    assert torch.isposinf(potential(x)[bad]).all()
    leaf = x.clone().requires_grad_(True)
    potential(leaf).nan_to_num(posinf=0.0).sum().backward()
    assert torch.equal(leaf.grad.permute(1, 2, 0), evaluation.gradient)


def test_reference_energies_have_no_memory(dipeptide):
    """Evaluating frames together or alone gives the same numbers: no stale positions."""
    rng = np.random.default_rng(0)
    frames = dipeptide.positions + 0.01 * rng.standard_normal((4, *dipeptide.positions.shape))
    together, _ = openmm_energies(dipeptide.system, frames)
    alone = [openmm_energies(dipeptide.system, frame[None])[0][0] for frame in frames]
    assert np.array_equal(together, alone)
