"""What is flat, stiff, flexible or inverting, from the graph."""

from __future__ import annotations

import pytest
from rdkit import Chem

from boltzgen.chemistry.perception import flexible_rings, inverting_nitrogens, planar_atoms, rigid_bonds, ring_name


def molecule(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


@pytest.mark.parametrize(
    ("smiles", "rings"),
    [
        ("C1CCCCC1", ["C1CCCCC1"]),
        ("OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O", ["C1CCOCC1"]),
        ("CC(=O)N1CCC[C@H]1C(=O)NC", ["C1CCNC1"]),
        ("C1CCC2(C1)CCCCC2", ["C1CCCC1", "C1CCCCC1"]),
        ("C1CC=CCC1", ["C1=CCCCC1"]),
        ("C1CCC1", ["C1CCC1"]),
        ("C1CC1", []),
        ("c1ccccc1", []),
        ("O=C1C=CC(=O)C=C1", []),
        ("C12C3C4C1C5C2C3C45", []),
        ("C1C2CC3CC1CC(C2)C3", []),
        ("C1CC2CCC1C2", []),
        ("C1CCCCCCCCCCC1", ["C1CCCCCCCCCCC1"]),
        ("c1ccc2c(c1)CCCC2", ["c1cCCCC1"]),
    ],
)
def test_rings_with_several_puckers_are_named(smiles, rings):
    mol = molecule(smiles)
    found = [len(ring) for ring in flexible_rings(mol)]
    assert sorted(found) == sorted(len([c for c in ring if c.isalpha()]) for ring in rings)
    for ring in flexible_rings(mol):
        assert "1" in ring_name(mol, ring)


@pytest.mark.parametrize(
    ("smiles", "n"),
    [
        ("CN1CCCCC1", 1),
        ("C1CCNCC1", 1),
        ("CCNC", 1),
        ("CN", 0),
        ("CNC", 0),
        ("N", 0),
        ("CC(=O)NC", 0),
        ("C1CN2CCC1CC2", 0),
    ],
)
def test_nitrogens_whose_inversion_is_another_conformer(smiles, n):
    assert len(inverting_nitrogens(molecule(smiles))) == n


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
