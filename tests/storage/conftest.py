"""A small molecule and weighted frames of it, made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boltzgen.molecule import Molecule
from boltzgen.storage.atomic import write_hdf5
from boltzgen.storage.trajectory import Frames, fill_trajectory


@pytest.fixture
def temperature() -> float:
    return 310.0


@pytest.fixture
def molecule() -> Molecule:
    """Alanine dipeptide without its hydrogens but one, and a chlorine for a symbol of two letters."""
    return Molecule(
        atomic_numbers=(6, 6, 8, 7, 6, 6, 6, 8, 7, 6, 1, 17),
        masses=(12.011, 12.011, 15.999, 14.007, 12.011, 12.011, 12.011, 15.999, 14.007, 12.011, 1.008, 35.45),
        atom_names=("CH3", "C", "O", "N", "CA", "CB", "C", "O", "N", "CH3", "HH31", "CL"),
        residue_of_atom=(0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2),
        residue_names=("ACE", "ALA", "NME"),
        residue_numbers=(1, 2, 3),
        bonds=((0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (4, 6), (6, 7), (6, 8), (8, 9), (9, 10), (9, 11)),
        rigid_bonds=((1, 3), (6, 8)),
        planar_atoms=(1, 3, 6, 8),
        torsions={"phi:ALA2": (1, 3, 4, 6), "psi:ALA2": (3, 4, 6, 8)},
        smiles="not needed here",
        formula="C6HClN2O2",
        charge=0,
    )


@pytest.fixture
def frames(molecule: Molecule) -> Frames:
    """More frames than one chunk holds."""
    generator = np.random.default_rng(0)
    n = 1100
    log_prob, reduced_potential = generator.normal(size=(2, n)) * 10
    return Frames(
        positions=generator.normal(size=(n, molecule.n_atoms, 3)).astype(np.float32),
        log_prob=log_prob,
        reduced_potential=reduced_potential,
        log_weight=-reduced_potential - log_prob,
    )


@pytest.fixture
def samples_h5(tmp_path: Path, molecule: Molecule, frames: Frames, temperature: float) -> Path:
    path = tmp_path / "samples.h5"
    write_hdf5(path, lambda file: fill_trajectory(file, molecule, frames, temperature))
    return path
