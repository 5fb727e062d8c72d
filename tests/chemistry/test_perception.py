"""What is flat or stiff, from the graph."""

from __future__ import annotations

import pytest
from rdkit import Chem

from boltzgen.chemistry.perception import planar_atoms, rigid_bonds


def molecule(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


@pytest.mark.parametrize(
    ("smiles", "n"),
    [
        ("CC(=O)NC", 2),
        ("CC(=O)N(C)C", 1),
        ("c1ccccc1-c1ccccc1", 12),
        ("C=CC=C", 2),
        ("C[N+](=O)[O-]", 1),
        ("CC(=O)OC", 1),
        ("NC(=[NH2+])NC", 3),
        ("CNC=O", 1),
        ("CS(=O)(=O)NC", 2),
    ],
)
def test_rigid_bonds(smiles, n):
    mol = molecule(smiles)
    assert len(rigid_bonds(mol, planar_atoms(mol))) == n


def test_planar_atoms_of_groups_without_a_flat_carbon():
    mol = molecule("C[N+](=O)[O-]")
    assert 1 in planar_atoms(mol)
    assert 1 not in planar_atoms(molecule("C[NH3+]"))
    assert 1 not in planar_atoms(molecule("CS(C)=O"))
