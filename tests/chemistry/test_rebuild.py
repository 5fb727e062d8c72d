"""The molecule of a run under another force field: the same atoms in the same order, or a refusal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from boltzgen.chemistry.build import build
from boltzgen.chemistry.read import read_input
from boltzgen.chemistry.rebuild import rebuild
from boltzgen.energy import from_openmm
from boltzgen.errors import ConflictError, UnsupportedError
from boltzgen.storage.trajectory import write_pdb


def stored(chemical, tmp_path):
    path = tmp_path / "system.pdb"
    write_pdb(path, chemical.molecule, chemical.positions[None])
    return path


def energy(chemical, positions):
    return from_openmm(chemical.system)(torch.as_tensor(positions[None])).item()


@pytest.mark.parametrize(("force_field", "solvent"), [("ff96", "obc1"), ("ff14SB", "auto"), ("MMFF94s", "vacuum")])
def test_a_peptide_has_the_energy_of_a_fresh_build(dipeptide, tmp_path, force_field, solvent):
    again = rebuild(stored(dipeptide, tmp_path), dipeptide.molecule, force_field, solvent)
    fresh = build(dipeptide.source, force_field, solvent)
    assert energy(again, dipeptide.positions) == pytest.approx(energy(fresh, dipeptide.positions), abs=1e-6)


@pytest.mark.parametrize("smiles", ["CC(=O)Oc1ccccc1C(=O)O", "C[N+](C)(C)CC(=O)[O-]", "FOOF", "C/C=C/C#N"])
def test_other_molecules_take_their_bond_orders_from_the_stored_smiles(smiles, tmp_path):
    chemical = build(read_input(smiles=smiles))
    again = rebuild(stored(chemical, tmp_path), chemical.molecule, "MMFF94s")
    assert again.molecule.atomic_numbers == chemical.molecule.atomic_numbers
    # the charges and types come from the graph, so equal energies mean equal graphs
    assert energy(again, chemical.positions) == pytest.approx(energy(chemical, chemical.positions), abs=1e-6)


def test_a_force_field_that_does_not_know_the_molecule_says_so(tmp_path):
    chemical = build(read_input(smiles="CC(=O)Oc1ccccc1C(=O)O"))
    with pytest.raises(UnsupportedError, match="ff96"):
        rebuild(stored(chemical, tmp_path), chemical.molecule, "ff96")


def test_atoms_in_another_order_are_refused(dipeptide, tmp_path):
    molecule = dipeptide.molecule
    numbers = tuple(np.roll(molecule.atomic_numbers, 1).tolist())
    with pytest.raises(ConflictError, match="another order"):
        rebuild(stored(dipeptide, tmp_path), replace(molecule, atomic_numbers=numbers), "ff96")
