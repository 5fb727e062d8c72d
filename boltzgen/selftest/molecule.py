"""From an openmm.System to a target, by the steps of ``prepare``."""

from __future__ import annotations

import openmm

from boltzgen.constants import thermal_energy
from boltzgen.coordinates.fitting import fit_coordinates
from boltzgen.coordinates.zmatrix import build_zmatrix
from boltzgen.energy import from_openmm
from boltzgen.molecule import Molecule
from boltzgen.selftest.case import Array
from boltzgen.target import Target
from boltzgen.training.objectives import PAIR_SOFTENING


def molecular_target(
    system: openmm.System,
    atomic_numbers: tuple[int, ...],
    bonds: tuple[tuple[int, ...], ...],
    positions: Array,
    temperature: float,
    planar_atoms: tuple[int, ...] = (),
) -> Target:
    """The target of a System and a structure ``(atoms, 3)`` in nm, written to a tree and read back as a file's is."""
    pairs = tuple((min(pair), max(pair)) for pair in bonds)
    potential, kT = from_openmm(system), thermal_energy(temperature)
    zmatrix = build_zmatrix(atomic_numbers, pairs, (), positions)
    fitted = fit_coordinates(zmatrix, positions, lambda x: potential.batch_last(x, PAIR_SOFTENING) / kT, planar_atoms)
    n = len(atomic_numbers)
    molecule = Molecule(
        atomic_numbers=atomic_numbers,
        masses=(12.0,) * n,
        atom_names=tuple(f"X{k}" for k in range(n)),
        residue_of_atom=(0,) * n,
        residue_names=("MOL",),
        residue_numbers=(1,),
        bonds=pairs,
        rigid_bonds=(),
        planar_atoms=planar_atoms,
        torsions={},
        smiles="",
        formula="",
        charge=0,
    )
    return Target.from_tree(Target(molecule, potential, fitted.coordinates, temperature).to_tree())
