"""Which configurations must be declared: those that rings leave open, and no others."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from boltzgen.chemistry import embed as embedding
from boltzgen.chemistry.build import build
from boltzgen.chemistry.configuration import assign_stereo, configurations
from boltzgen.chemistry.graph import molecule_from_smiles
from boltzgen.chemistry.interpret import Reading
from boltzgen.chemistry.read import read_input
from boltzgen.errors import InputError, UnsupportedError

SETTLED = {
    "norbornane": "C1CC2CCC1C2",
    "norbornene": "C1=CC2CCC1C2",
    "bicyclo[2.2.2]octane": "C1CC2CCC1CC2",
    "tropane": "CN1C2CCC1CCC2",
    "nortricyclane": "C1C2CC3C1C23",
    "bicyclo[1.1.0]butane": "C1C2CC12",
    "bicyclo[1.1.1]pentane": "C1C2CC1C2",
    "bicyclo[3.3.1]nonane": "C1CC2CCCC(C1)C2",
    "quinuclidine": "C1CN2CCC1CC2",
    "cineole": "CC12CCC(CC1)C(C)(C)O2",
    "triquinacene": "C1=CC2C=CC3C2C1C=C3",
    "dodecahedrane": "C12C3C4C5C1C6C7C2C8C3C9C4C1C5C6C2C7C8C9C12",
}
OPEN = {
    "camphor": ("CC1(C)C2CCC1(C)C(=O)C2", "C4, C7"),  # enantiomers
    "pinene": ("CC1=CCC2CC1C2(C)C", "C5, C7"),
    "twistane": ("C1CC2CC3CCC2CC13", "C3, C5, C8, C10"),
    "decalin": ("C1CCC2CCCCC2C1", "C4, C9"),  # cis and trans
    "bicyclo[3.3.0]octane": ("C1CC2CCCC2C1", "C3, C7"),
    "bicyclo[3.2.0]heptane": ("C1CC2CCC2C1", "C3, C6"),
    "tetrahydrodicyclopentadiene": ("C1CC2C3CCC(C3)C2C1", "C3, C4, C7, C9"),  # endo and exo
    "in and out": ("C1CCCCC2CCCCCC(CCCC1)CC2", "C6, C12"),
    "norborneol": ("OC1CC2CCC1C2", "C1, C3, C6"),
    "1,4-dimethylcyclohexane": ("CC1CCC(C)CC1", "C2, C5"),
}


@pytest.mark.parametrize("name", SETTLED)
def test_bridgeheads_of_one_possible_configuration_are_not_asked_for(name: str) -> None:
    chemical = build(read_input(smiles=SETTLED[name]))
    assert len(chemical.molecule.atomic_numbers) == Chem.AddHs(Chem.MolFromSmiles(SETTLED[name])).GetNumAtoms()
    if name == "tropane":
        assert sorted(chemical.stereocentres.values()) == ["R", "S"]  # what was found is told


@pytest.mark.parametrize("name", OPEN)
def test_configurations_that_both_exist_are_asked_for(name: str) -> None:
    smiles, centres = OPEN[name]
    with pytest.raises(InputError, match=f"undefined stereocentre {centres}. Say which"):
        build(read_input(smiles=smiles))


def test_one_declared_bridgehead_of_camphor_settles_the_other() -> None:
    whole = build(read_input(smiles="CC1(C)[C@@H]2CC[C@@]1(C)C(=O)C2")).molecule.smiles
    assert build(read_input(smiles="CC1(C)[C@@H]2CCC1(C)C(=O)C2")).molecule.smiles == whole


def test_a_pick_is_an_isomer_that_exists() -> None:
    picks = {
        build(read_input(smiles=OPEN["camphor"][0]), reading=Reading(stereo="pick", seed=seed)).molecule.smiles
        for seed in range(4)
    }
    assert picks == {"CC1(C)[C@@H]2CC[C@@]1(C)C(=O)C2", "CC1(C)[C@H]2CC[C@]1(C)C(=O)C2"}


def test_no_time_is_spent_on_more_conformers_where_the_first_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    real = rdDistGeom.EmbedMultipleConfs

    def counted(mol: Chem.Mol, n: int, parameters: Any) -> Any:
        assert parameters.timeout > 0
        assert parameters.maxIterations > 0
        found = real(mol, n, parameters)
        asked.append((n, len(found)))
        return found

    monkeypatch.setattr(embedding.rdDistGeom, "EmbedMultipleConfs", counted)
    mol = molecule_from_smiles(read_input(smiles="C1C[C@H]2CC[C@H]1C2"), [])  # in,out-norbornane
    with pytest.raises(UnsupportedError, match="no 3D structure was found by embedding"):
        embedding.embed(mol, "norbornane")
    assert (1, 0) in asked
    assert len([n for n, _ in asked if n == 1]) == len(embedding.WAYS)
    assert all(before == (1, 1) for before, (n, _) in pairwise(asked) if n > 1)


def test_large_molecules_get_fewer_conformers() -> None:
    small, large = (Chem.AddHs(Chem.MolFromSmiles("C" * n)) for n in (30, 66))
    assert embedding.number_of_conformers(small) == embedding.N_CONFORMERS
    assert embedding.number_of_conformers(large) == 2


def test_labels_that_would_take_forever_are_left_out() -> None:
    mol = embedding.embed(molecule_from_smiles(read_input(smiles=SETTLED["dodecahedrane"]), []), "dodecahedrane")
    assign_stereo(mol)
    assert configurations(mol) == {}
