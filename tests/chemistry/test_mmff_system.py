"""MMFF Systems against RDKit's own MMFF energies and gradients."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import unit
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from boltzgen.chemistry.mmff import build_mmff_system
from boltzgen.energy.parity import openmm_energies
from boltzgen.errors import InputError, UnsupportedError

KILOCALORIE = 4.184

ENERGY_TOLERANCE = 1e-9
"""kcal/mol: float64 rounding of strained frames of up to 1e4 kcal/mol, summed over 1e3 terms."""

FORCE_TOLERANCE = 1e-8
"""Of the largest force: RDKit divides by the sine of angles, which costs digits where an angle is nearly straight."""

MOLECULES = {
    "water": "O",
    "linear": "O=C=S",
    "amide and phenol": "CC(=O)Nc1ccc(O)cc1",
    "sulfonamide, thiazole": "Cc1cnc(s1)NS(=O)(=O)C",
    "sulfoxide, halogens": "CS(=O)CC(Cl)Br",
    "phosphate": "CCOP(=O)(O)[O-]",
    "azide, iodine": "IC=CN=[N+]=[N-]",
    "alkyne, allene, cyclopropane": "C1CC1C#CC=C=C",
    "oxetane, nitrile": "C1COC1C#N",
    "guanidinium, carboxylate": "NC(=[NH2+])NCC(=O)[O-]",
    "nitro, fluorine": "O=[N+]([O-])c1ccc(F)cc1",
    "cubane": "C12C3C4C1C5C2C3C45",
    "salt": "C[NH3+].[Cl-]",
}


def molecule(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=7) == 0
    return mol


def frames(mol: Chem.Mol, n_frames: int) -> np.ndarray:
    """The conformer and frames jittered by up to 0.02 nm, nm; fragments are drawn 0.3 nm apart."""
    x = 0.1 * mol.GetConformer().GetPositions()
    for shift, atoms in enumerate(Chem.GetMolFrags(mol)):
        x[list(atoms)] += 0.3 * shift
    rng = np.random.default_rng(0)
    return x + np.linspace(0.0, 0.02, n_frames)[:, None, None] * rng.standard_normal((n_frames, *x.shape))


def rdkit_energies(mol: Chem.Mol, variant: str, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies in kcal/mol and forces in kcal/mol/Å. CalcGrad(positions) uses stale distances: hence new conformers."""
    mol = Chem.Mol(mol)
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, mmffVariant=variant)
    energies, forces = [], []
    for frame in positions:
        mol.GetConformer().SetPositions(10.0 * frame)
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties, ignoreInterfragInteractions=False)
        energies.append(field.CalcEnergy())
        forces.append(-np.reshape(field.CalcGrad(), (-1, 3)))
    return np.asarray(energies), np.asarray(forces)


@pytest.mark.parametrize("variant", ["MMFF94", "MMFF94s"])
@pytest.mark.parametrize("name", MOLECULES)
def test_a_term_or_constant_differs_from_rdkit(name, variant):
    mol = molecule(MOLECULES[name])
    positions = frames(mol, 5)
    energy, force = openmm_energies(build_mmff_system(mol, variant), positions)
    rdkit_energy, rdkit_force = rdkit_energies(mol, variant, positions)
    assert np.abs(energy / KILOCALORIE - rdkit_energy).max() < ENERGY_TOLERANCE
    assert np.abs(force / (10.0 * KILOCALORIE) - rdkit_force).max() < FORCE_TOLERANCE * np.abs(rdkit_force).max()


def test_variants_are_confused():
    mol = molecule("Nc1ccccc1")
    positions = frames(mol, 1)
    flat, _ = openmm_energies(build_mmff_system(mol), positions)
    assert not np.isclose(flat, openmm_energies(build_mmff_system(mol, "MMFF94"), positions)[0], atol=1e-3)
    assert np.isclose(flat, openmm_energies(build_mmff_system(mol, "MMFF94s"), positions)[0], atol=0.0)


def test_xml_loses_a_digit_or_a_name():
    mol = molecule("CC(=O)N")
    positions = frames(mol, 1)
    system = build_mmff_system(mol)
    copy = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    assert openmm_energies(copy, positions)[0] == openmm_energies(system, positions)[0]
    assert [force.getName() for force in copy.getForces()] == [
        "MMFFBond",
        "MMFFAngle",
        "MMFFStretchBend",
        "MMFFOutOfPlane",
        "MMFFTorsion",
        "MMFFNonbonded",
    ]


def test_masses_lose_isotopes():
    system = build_mmff_system(molecule("[2H]C([2H])([2H])[2H]"))
    masses = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles())]
    assert sorted(masses) == pytest.approx([2.014, 2.014, 2.014, 2.014, 12.011], abs=1e-3)


def test_the_molecule_of_the_caller_is_changed():
    mol = molecule("c1ccc2cccc-2cc1")  # aromatic to RDKit, not to MMFF
    before = mol.ToBinary(), sorted(mol.GetPropNames(includePrivate=True))
    build_mmff_system(mol)
    assert (mol.ToBinary(), sorted(mol.GetPropNames(includePrivate=True))) == before


def test_a_molecule_without_conformer_is_refused():
    build_mmff_system(Chem.AddHs(Chem.MolFromSmiles("CCO")))


@pytest.mark.parametrize(
    ("smiles", "named"),
    [("CB(O)O", "B2"), ("C[Se]CC[Se]C", "Se2, Se5"), ("C[I](Cl)Cl", "I2"), ("FS(F)(F)(F)(F)F", "S2"), ("Cl", "Cl1")],
)
def test_atoms_without_parameters_are_not_named(smiles, named):
    with pytest.raises(UnsupportedError, match=f"no parameters for {named} of "):
        build_mmff_system(Chem.AddHs(Chem.MolFromSmiles(smiles)))


@pytest.mark.parametrize("smiles", ["O=C=O", "C[P+](C)(C)C", "[CH3-]"])
def test_lost_charges_go_unnoticed(smiles):
    with pytest.raises(UnsupportedError, match="charges add up"):
        build_mmff_system(Chem.AddHs(Chem.MolFromSmiles(smiles)))


def test_radicals_become_anions():
    with pytest.raises(UnsupportedError, match="unpaired electrons of O4"):
        build_mmff_system(Chem.AddHs(Chem.MolFromSmiles("CN(C)[O]")))


def test_missing_hydrogens_go_unnoticed():
    with pytest.raises(InputError, match="hydrogens are missing on C1, O2"):
        build_mmff_system(Chem.MolFromSmiles("CO"))


def test_unknown_variants_are_not_named():
    with pytest.raises(InputError, match="'MMFF95'"):
        build_mmff_system(molecule("O"), "MMFF95")


def test_an_empty_molecule_gives_an_empty_system():
    with pytest.raises(InputError, match="no atoms"):
        build_mmff_system(Chem.Mol())
