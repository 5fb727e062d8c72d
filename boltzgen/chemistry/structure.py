"""A named peptide chain with coordinates, and the checks of size and geometry that every molecule must pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from openmm import app
from rdkit import Chem
from rdkit.Geometry import Point3D

from boltzgen.chemistry.residues import C_CAPS, FORMAL_CHARGES, N_CAPS, Residue
from boltzgen.errors import InputError, UnsupportedError

ATOM_LIMIT = 200
"""Largest molecule that is accepted, in atoms."""


@dataclass(frozen=True)
class PlacedResidue:
    """A residue of the chain: its template, its number, and its atom names in the order of the input."""

    template: Residue
    number: int
    names: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name and number, such as ``ALA2``."""
        return f"{self.template.name}{self.number}"


@dataclass(frozen=True)
class Structure:
    """A capped chain from N to C and its coordinates ``positions`` (atoms, 3) in nm."""

    residues: tuple[PlacedResidue, ...]
    positions: np.ndarray

    def index(self) -> dict[tuple[int, str], int]:
        """Return ``{(residue index, atom name): atom index}``."""
        keys = [(r, name) for r, residue in enumerate(self.residues) for name in residue.names]
        return {key: i for i, key in enumerate(keys)}

    def labels(self) -> list[str]:
        """Return what messages call each atom, such as ``CA of ALA2``."""
        return [f"{name} of {residue.label}" for residue in self.residues for name in residue.names]

    def elements(self) -> list[str]:
        """Return the element symbol of each atom."""
        return [residue.template.elements[name] for residue in self.residues for name in residue.names]

    def bonds(self) -> list[tuple[int, int]]:
        """Return the bonds as sorted pairs: those of the templates, and C to N between neighbours."""
        at = self.index()
        pairs = [(at[r, a], at[r, b]) for r, residue in enumerate(self.residues) for a, b in residue.template.bonds]
        pairs += [(at[r, "C"], at[r + 1, "N"]) for r in range(len(self.residues) - 1)]
        return sorted((min(pair), max(pair)) for pair in pairs)

    def topology(self) -> app.Topology:
        """Return the OpenMM topology."""
        topology = app.Topology()
        chain = topology.addChain("A")
        atoms = []
        for residue in self.residues:
            added = topology.addResidue(residue.template.name, chain, str(residue.number))
            for name in residue.names:
                element = app.Element.getBySymbol(residue.template.elements[name])
                atoms.append(topology.addAtom(name, element, added))
        for i, j in self.bonds():
            topology.addBond(atoms[i], atoms[j])
        return topology

    def to_rdkit(self) -> Chem.Mol:
        """Return the molecule with all hydrogens, in this order of atoms, chirality taken from 3D.

        Bond orders and formal charges come from the residue templates: deriving them from the element graph is a
        search that grows with the molecule, and coordinates alone do not determine them.
        """
        mol = Chem.RWMol()
        for symbol in self.elements():
            atom = Chem.Atom(symbol)
            atom.SetNoImplicit(True)
            mol.AddAtom(atom)
        at = self.index()
        for i, j in self.bonds():
            mol.AddBond(i, j, Chem.BondType.SINGLE)
        for r, residue in enumerate(self.residues):
            for a, b in residue.template.double_bonds:
                mol.GetBondBetweenAtoms(at[r, a], at[r, b]).SetBondType(Chem.BondType.DOUBLE)
            if residue.template.name in FORMAL_CHARGES:
                name, charge = FORMAL_CHARGES[residue.template.name]
                mol.GetAtomWithIdx(at[r, name]).SetFormalCharge(charge)
        conformer = Chem.Conformer(mol.GetNumAtoms())
        for i, xyz in enumerate(10.0 * self.positions):
            conformer.SetAtomPosition(i, Point3D(*map(float, xyz)))
        mol.AddConformer(conformer)
        Chem.SanitizeMol(mol)
        Chem.AssignStereochemistryFrom3D(mol)
        return mol.GetMol()


def check_caps(names: Sequence[str], labels: Sequence[str], where: str) -> None:
    """Raise InputError unless a chain of residue names begins and ends with a cap."""
    if names[0] not in N_CAPS:
        raise InputError(
            f"{where}: the chain starts with {labels[0]}, an uncapped terminus. "
            "Put an acetyl cap (ACE) before it, or give --smiles too."
        )
    if names[-1] not in C_CAPS:
        raise InputError(
            f"{where}: the chain ends with {labels[-1]}, an uncapped terminus. "
            "Put an N-methyl amide (NME) or amide (NH2) cap after it, or give --smiles too."
        )


def covalent_radius(symbol: str) -> float:
    """Return the covalent radius in nm as RDKit has it (Cordero et al. 2008, doi:10.1039/b801115j)."""
    return 0.1 * Chem.GetPeriodicTable().GetRcovalent(symbol)


def check_size(n_atoms: int, where: str) -> None:
    """Raise UnsupportedError above ``ATOM_LIMIT`` atoms."""
    if n_atoms > ATOM_LIMIT:
        raise UnsupportedError(f"{where}: {n_atoms} atoms; the limit is {ATOM_LIMIT}. Give a smaller molecule.")


def check_geometry(
    elements: Sequence[str],
    bonds: Sequence[tuple[int, int]],
    positions: np.ndarray,
    labels: Sequence[str],
    places: Sequence[str],
) -> None:
    """Raise InputError for torn or crushed bonds, atoms that lie on each other, and numbers that are none.

    Bonds must have 0.6 to 1.35 times the sum of the covalent radii; atoms not bonded to each other must be at
    least 0.08 nm apart, two heavy ones 0.12 nm. Real structures stay inside; force fields accept anything.
    ``positions (atoms, 3)`` in nm; ``labels`` name the atoms, ``places`` say where in the input they stand.
    """
    x = positions
    if not np.isfinite(x).all():
        i = int(np.flatnonzero(~np.isfinite(x).all(1))[0])
        raise InputError(f"{places[i]}: a coordinate of {labels[i]} is no number. Correct it.")
    element = np.array(elements)
    radius = np.array([covalent_radius(symbol) for symbol in elements])
    distance = np.linalg.norm(x[:, None] - x[None, :], axis=-1)
    shortest = np.where((element == "H")[:, None] | (element == "H")[None, :], 0.08, 0.12)
    for i, j in bonds:
        shortest[i, j] = shortest[j, i] = 0.6 * (radius[i] + radius[j])
    i, j = divmod(int(np.argmin(distance / shortest + 1e6 * np.eye(len(x)))), len(x))
    if i != j and distance[i, j] < shortest[i, j]:
        raise InputError(
            f"{places[max(i, j)]}: {labels[i]} and {labels[j]} are {10 * distance[i, j]:.2f} Å apart. "
            "Remove the overlap."
        )
    stretch = [distance[i, j] / (radius[i] + radius[j]) for i, j in bonds]
    if stretch and max(stretch) > 1.35:
        i, j = bonds[int(np.argmax(stretch))]
        raise InputError(
            f"{places[j]}: the bond from {labels[i]} to {labels[j]} is {10 * distance[i, j]:.2f} Å long. "
            "Add what is missing in between, or correct the coordinates."
        )
