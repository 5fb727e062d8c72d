"""The example molecules are what their table says, and say it in full."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rdkit import Chem
from rdkit.Chem import rdCIPLabeler, rdDistGeom
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from boltzgen.chemistry.mmff import build_mmff_system
from boltzgen.errors import UnsupportedError

MOLECULES = Path(__file__).parents[1] / "molecules"
README = (MOLECULES / "README.md").read_text()
MISTYPED = {"carbon_dioxide"}
"""Molecules that MMFF94s in RDKit cannot describe, see the table."""


def entries(file: str) -> list[tuple[str, str]]:
    """(name, SMILES) of every line."""
    return [(name, smiles) for smiles, name in map(str.split, (MOLECULES / file).read_text().splitlines())]


def formulas(section: str) -> dict[str, str]:
    """Formula by name in the table of a section of the README."""
    text = README.split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| ([\w+-]+) \|", text, re.MULTILINE))


def labels(name: str) -> list[str]:
    """CIP labels in the table of the panel, sorted, for nomenclature numbers the atoms in its own way."""
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
    return sorted(re.findall(r"\d*[a-z]?([RSrsEZ])(?=[,)])", " ".join(re.findall(r"\([\w,]+\)", row))))


TABLES = {"panel.smi": "The panel", "amino_acids.smi": "Amino acids"}
ALL = [pytest.param(file, name, smiles, id=f"{file}-{name}") for file in TABLES for name, smiles in entries(file)]


@pytest.mark.parametrize("file", TABLES)
def test_table_and_file_name_the_same_molecules(file):
    names = [name for name, _ in entries(file)]
    assert len(set(names)) == len(names)
    assert list(formulas(TABLES[file])) == names


def test_the_panel_is_wide():
    assert len(entries("panel.smi")) >= 40
    canonical = {Chem.CanonSmiles(smiles) for _, smiles in entries("panel.smi")}
    assert len(canonical) == len(entries("panel.smi"))
    sizes = [Chem.AddHs(Chem.MolFromSmiles(smiles)).GetNumAtoms() for _, smiles in entries("panel.smi")]
    assert min(sizes) == 3
    assert 55 <= max(sizes) <= 70


@pytest.mark.parametrize(("file", "name", "smiles"), ALL)
def test_formula_is_that_of_the_literature(file, name, smiles):
    assert CalcMolFormula(Chem.MolFromSmiles(smiles)) == formulas(TABLES[file])[name]


@pytest.mark.parametrize(("file", "name", "smiles"), ALL)
def test_no_stereo_is_left_open(file, name, smiles):
    """One isomer only: a mark that is missing would give two. Impossible ones, as of norbornane, do not embed."""
    options = StereoEnumerationOptions(unique=True, tryEmbedding=True, onlyUnassigned=True)
    assert len(list(EnumerateStereoisomers(Chem.MolFromSmiles(smiles), options=options))) == 1


@pytest.mark.parametrize("name", [name for name, _ in entries("panel.smi") if labels(name)])
def test_labels_are_those_of_the_table(name):
    mol = Chem.MolFromSmiles(dict(entries("panel.smi"))[name])
    rdCIPLabeler.AssignCIPLabels(mol)
    found = [x.GetProp("_CIPCode") for x in (*mol.GetAtoms(), *mol.GetBonds()) if x.HasProp("_CIPCode")]
    assert sorted(found) == labels(name)


@pytest.mark.parametrize(("file", "name", "smiles"), ALL)
def test_embeds_and_has_force_field_parameters(file, name, smiles):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=1) == 0
    if name in MISTYPED:
        with pytest.raises(UnsupportedError, match="charges add up"):
            build_mmff_system(mol)
    else:
        assert build_mmff_system(mol).getNumParticles() == mol.GetNumAtoms()


def test_every_file_is_in_the_table():
    files = {path.name for path in MOLECULES.iterdir() if path.is_file() and path.suffix not in (".md", ".py")}
    assert files == set(re.findall(r"^\| `([\w.]+\.[\w.]+)` \|", README, re.MULTILINE))


@pytest.mark.parametrize("name", ["ibuprofen", "penicillin_G"])
def test_sdf_files_hold_the_molecules_of_the_panel(name):
    mol = next(Chem.SDMolSupplier(str(MOLECULES / f"{name}.sdf"), removeHs=False))
    Chem.AssignStereochemistryFrom3D(mol)
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.CanonSmiles(dict(entries("panel.smi"))[name])


def test_mol2_file_holds_the_molecule_of_the_panel():
    mol = Chem.MolFromMol2File(str(MOLECULES / "glycerol.mol2"), removeHs=False)
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.CanonSmiles(dict(entries("panel.smi"))["glycerol"])
