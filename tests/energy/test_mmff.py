"""The torch terms of MMFF, recognised in a System, against OpenMM Reference."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from boltzgen.chemistry.mmff import build_mmff_system
from boltzgen.energy import PotentialEnergy, from_openmm
from boltzgen.energy.convert_custom import CONVERTERS
from boltzgen.energy.convert_mmff import recognise
from boltzgen.energy.mmff_expressions import FORMS
from boltzgen.energy.parity import openmm_energies

ENERGY_TOLERANCE = 2.5e-6
"""kJ/mol, 1e-6 kT; float64 rounding is 1e-11 of frames of 1e4 kJ/mol."""

ENERGY_TOLERANCE_FLOAT32 = 0.0125
"""kJ/mol, 5e-3 kT: rounding of positions of 1 nm to 6e-8 times bond forces of 1e5 kJ/mol/nm."""

FORCE_TOLERANCE = 1e-6
"""Of the largest force."""

MOLECULES = [
    "O",
    "N#N",
    "O=C=S",
    "CC(=O)Nc1ccc(O)cc1",
    "Cc1cnc(s1)NS(=O)(=O)C",
    "CCOP(=O)(O)[O-]",
    "CN=[N+]=[N-]",
    "C1CC1C#CC=C=C",
    "NC(=[NH2+])NCC(=O)[O-]",
    "C12C3C4C1C5C2C3C45",
]


def positions_of(mol: Chem.Mol) -> np.ndarray:
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=7) == 0
    return 0.1 * mol.GetConformer().GetPositions()


def built(
    smiles: str, n_frames: int = 200, dtype: torch.dtype = torch.float64
) -> tuple[openmm.System, PotentialEnergy, np.ndarray]:
    """System, its terms as plain torch evaluates them, and frames, jittered by up to 0.02 nm."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    x = positions_of(mol)
    rng = np.random.default_rng(0)
    frames = x + np.linspace(0.0, 0.02, n_frames)[:, None, None] * rng.standard_normal((n_frames, *x.shape))
    system = build_mmff_system(mol)
    return system, PotentialEnergy([*from_openmm(system, dtype).terms], native=False), frames


def largest(x: np.ndarray) -> np.ndarray:
    """Largest absolute value of each frame."""
    return np.abs(x).max(axis=(1, 2))


@pytest.mark.parametrize("smiles", MOLECULES)
def test_a_term_differs_from_openmm(smiles):
    system, potential, frames = built(smiles)
    _, single, _ = built(smiles, dtype=torch.float32)
    reference_energy, reference_force = openmm_energies(system, frames)
    energy, force = potential.energy_and_forces(torch.as_tensor(frames))
    single_energy = single(torch.as_tensor(frames).float()).double()
    assert np.abs(energy.numpy() - reference_energy).max() < ENERGY_TOLERANCE
    assert (largest(force.numpy() - reference_force) < FORCE_TOLERANCE * largest(reference_force)).all()
    assert np.abs(single_energy.numpy() - reference_energy).max() < ENERGY_TOLERANCE_FLOAT32


def test_a_gradient_is_no_derivative():
    _, potential, frames = built("C1CC1C(=O)NC=C=C", 2)
    x = torch.as_tensor(frames[1:]).permute(1, 2, 0).contiguous()
    gradient = potential.evaluate(x).gradient[..., 0]
    step = 1e-6
    shifts = step * torch.eye(x.numel(), dtype=x.dtype).reshape(*x.shape[:2], -1)
    slope = (potential.batch_last(x + shifts) - potential.batch_last(x - shifts)) / (2.0 * step)
    # Rounding of 1e3 kJ/mol to 1e-16, divided by the step, is 1e-7 kJ/mol/nm.
    assert (slope - gradient.reshape(-1)).abs().max() < FORCE_TOLERANCE * gradient.abs().max()


def test_a_force_of_mmff_is_not_recognised():
    seen = set()
    for smiles in MOLECULES:
        system, potential, _ = built(smiles, 1)
        names = [force.getName() for force in system.getForces()]
        assert [type(term).__name__ for term in potential.terms] == names
        seen.update(names)
    assert seen == set(FORMS)


@pytest.mark.parametrize("smiles", MOLECULES)
def test_a_term_differs_from_its_expression(smiles):
    system, potential, frames = built(smiles, 20)
    expressions = [
        term
        for force in system.getForces()
        for term in CONVERTERS[type(force).__name__](force, system.getNumParticles(), torch.float64)
    ]
    x = torch.as_tensor(frames)
    energy, force = potential.energy_and_forces(x)
    expected_energy, expected_force = PotentialEnergy(expressions, native=False).energy_and_forces(x)
    assert (energy - expected_energy).abs().max() < ENERGY_TOLERANCE
    assert (largest((force - expected_force).numpy()) < FORCE_TOLERANCE * largest(expected_force.numpy())).all()


def test_linear_molecules_have_no_finite_gradient():
    """At exact linearity OpenMM's energy is smooth, and so is the term's: the gradient is that of the bonds."""
    system, potential, _ = built("O=C=S", 1)
    straight = np.array([[[-0.12, 0.0, 0.0], [0.0, 0.0, 0.0], [0.16, 0.0, 0.0]]])
    reference_energy, reference_force = openmm_energies(system, straight)
    energy, force = potential.energy_and_forces(torch.as_tensor(straight))
    assert energy.numpy() == pytest.approx(reference_energy, abs=ENERGY_TOLERANCE)
    assert force.numpy() == pytest.approx(reference_force, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_what_has_no_direction_fails(dtype):
    """Atoms on top of one another, bonded or not, three nearly in a line, a molecule in a plane, a point, a line."""
    _, potential, frames = built("CC(=O)Nc1ccc(O)cc1", 1, dtype)
    x = torch.as_tensor(frames[0], dtype=dtype).repeat(6, 1, 1)
    x[0, 0] = x[0, 1]
    x[1, 0] = x[1, 9]
    x[2, 1] = 0.5 * (x[2, 0] + x[2, 2])
    x[3, :, 2] = 0.0
    x[4] = 0.0
    x[5, :, 1:] = 0.0
    for softening in (None, 100.0):
        evaluation = potential.evaluate(x.permute(1, 2, 0).contiguous(), softening)
        assert torch.isposinf(evaluation.energy).tolist() == [True, False, False, False, True, True]
        assert torch.isfinite(evaluation.gradient).all()


def test_softening_leaves_clashes_or_touches_the_rest():
    _, potential, frames = built("CCCCC", 1)
    x = torch.as_tensor(frames)
    clash = x.clone()
    clash[0, 0] = clash[0, 4]
    assert torch.equal(potential(x, 1e4), potential(x))
    assert 0.0 < potential(clash, 100.0) - potential(clash, 50.0) < 1e4 < potential(clash)


def test_a_stored_potential_forgets_a_parameter():
    _, potential, frames = built("CC(=O)Nc1ccc(O)cc1", 3)
    x = torch.as_tensor(frames)
    stored = PotentialEnergy.from_tree(potential.to_tree())
    assert torch.equal(PotentialEnergy([*stored.terms], native=False)(x), potential(x))


def _bond_force(expression: str, parameters: tuple[str, ...]) -> openmm.Force:
    force = openmm.CustomBondForce(expression)
    for name in parameters:
        force.addPerBondParameter(name)
    force.addBond(0, 1, [1.0] * len(parameters))
    return force


def test_other_forces_are_taken_for_mmff():
    form = FORMS["MMFFBond"]
    assert recognise(_bond_force(form.expression, form.parameters), 2, torch.float64) is not None
    assert recognise(_bond_force("2*" + form.expression, form.parameters), 2, torch.float64) is None
    assert recognise(_bond_force(form.expression, form.parameters[::-1]), 2, torch.float64) is None
    assert recognise(_bond_force(form.expression, (*form.parameters, "more")), 2, torch.float64) is None
    assert recognise(openmm.HarmonicBondForce(), 2, torch.float64) is None
    periodic = _bond_force(form.expression, form.parameters)
    periodic.setUsesPeriodicBoundaryConditions(True)
    assert recognise(periodic, 2, torch.float64) is None


def test_a_force_without_interactions_makes_a_term():
    force = openmm.CustomBondForce(FORMS["MMFFBond"].expression)
    for name in FORMS["MMFFBond"].parameters:
        force.addPerBondParameter(name)
    assert recognise(force, 2, torch.float64) == []
