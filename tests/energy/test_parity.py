"""Torch energies and forces against OpenMM Reference."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch
from openmm import app

from boltzgen.chemistry.forcefield import build_system
from boltzgen.energy import PotentialEnergy, from_openmm
from boltzgen.energy.parity import check_parity, openmm_energies
from boltzgen.errors import UnsupportedError

TOLERANCE = 1e-8
"""kJ/mol and kJ/mol/nm: float64 rounding of sums of about 1e5 kJ/mol in strained frames."""


@pytest.mark.parametrize("solvent", ["vacuum", "hct", "obc1", "obc2", "gbn", "gbn2"])
@pytest.mark.parametrize("force_field", ["ff14SB", "ff96"])
def test_every_solvent_and_force_field_agrees(dipeptide, force_field, solvent):
    system = build_system(dipeptide.topology, force_field, solvent)
    parity = check_parity(system, from_openmm(system), dipeptide.positions)
    assert parity.agrees
    assert parity.energy < TOLERANCE
    assert parity.force < TOLERANCE
    assert parity.energy_float32 < 5e-3  # 1e-7 of terms that cancel to within 1e4 kJ/mol


def test_native_gbsa_obc_agrees(dipeptide):
    system = app.ForceField("amber99sb.xml", "amber99_obc.xml").createSystem(
        dipeptide.topology, nonbondedMethod=app.NoCutoff, constraints=None
    )
    assert any(isinstance(force, openmm.GBSAOBCForce) for force in system.getForces())
    # The native force carries its own rounding of the Coulomb constant: 1e-6 of 50 kJ/mol.
    assert check_parity(system, from_openmm(system), dipeptide.positions).energy < 1e-3


def test_parity_check_sees_a_missing_term(dipeptide):
    potential = from_openmm(dipeptide.system)
    broken = PotentialEnergy([term for term in potential.terms if type(term).__name__ != "PeriodicTorsion"])
    assert not check_parity(dipeptide.system, broken, dipeptide.positions).agrees


def test_stored_parameters_give_the_same_energy(dipeptide):
    potential = from_openmm(dipeptide.system)
    frames = torch.as_tensor(dipeptide.positions)[None]
    assert torch.equal(PotentialEnergy.from_tree(potential.to_tree())(frames), potential(frames))


def test_softening_changes_nothing_below_its_threshold_and_keeps_clashes_finite(dipeptide):
    potential = from_openmm(dipeptide.system)
    frames = torch.as_tensor(dipeptide.positions)[None]
    assert torch.equal(potential(frames, 1e4), potential(frames))
    clash = frames.clone()
    clash[0, 5] = clash[0, 15]
    single = PotentialEnergy.from_tree(potential.to_tree(), torch.float32)
    assert torch.isfinite(single(clash.float(), 200.0)).all()
    assert not torch.isfinite(potential(clash)).all()  # the raw energy says so: never a made-up number


def test_reference_energies_have_no_memory(dipeptide):
    """Evaluating frames together or alone gives the same numbers: no stale positions."""
    rng = np.random.default_rng(0)
    frames = dipeptide.positions + 0.01 * rng.standard_normal((4, *dipeptide.positions.shape))
    together, _ = openmm_energies(dipeptide.system, frames)
    alone = [openmm_energies(dipeptide.system, frame[None])[0][0] for frame in frames]
    assert np.array_equal(together, alone)


@pytest.mark.parametrize(
    ("force", "name"),
    [(openmm.CustomBondForce("r"), "CustomBondForce"), (openmm.CMAPTorsionForce(), "CMAPTorsionForce")],
)
def test_unknown_forces_are_named(force, name):
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(force)
    with pytest.raises(UnsupportedError, match=name):
        from_openmm(system)


def test_constraints_are_refused():
    system = openmm.System()
    system.addParticle(1.0)
    system.addParticle(1.0)
    system.addConstraint(0, 1, 0.1)
    with pytest.raises(UnsupportedError, match="constraints"):
        from_openmm(system)
