"""Shared fixtures: one thread per process, and alanine dipeptide prepared once."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
# A shell starts its background jobs with SIGINT ignored, which commands that tests interrupt would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

MOLECULES = Path(__file__).parents[1] / "molecules"


@pytest.fixture(scope="session")
def dipeptide():
    """Alanine dipeptide with ff14SB + OBC2, as the chemistry room gives it."""
    from boltzgen.chemistry.build import build
    from boltzgen.chemistry.read import read_input

    return build(read_input(MOLECULES / "alanine_dipeptide.pdb"))


@pytest.fixture(scope="session")
def dipeptide_target(dipeptide):
    """Alanine dipeptide at 300 K with fitted coordinates."""
    from boltzgen.constants import thermal_energy
    from boltzgen.coordinates.fitting import fit_coordinates
    from boltzgen.coordinates.zmatrix import build_zmatrix
    from boltzgen.energy import from_openmm
    from boltzgen.target import Target

    molecule = dipeptide.molecule
    potential = from_openmm(dipeptide.system)
    kT = thermal_energy(300.0)
    zmatrix = build_zmatrix(molecule.atomic_numbers, molecule.bonds, molecule.rigid_bonds, dipeptide.positions)
    fitted = fit_coordinates(
        zmatrix,
        dipeptide.positions,
        lambda x: potential.batch_last(x, 200.0) / kT,
        molecule.planar_atoms,
        n_conformers=3,
    )
    return Target(molecule, potential, fitted.coordinates, 300.0)
