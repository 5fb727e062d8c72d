"""The plain record of a molecule that every room shares: atoms, bonds, names; no RDKit, no OpenMM."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Molecule:
    """Atoms and bonds of one molecule, as plain tuples in the atom order of ``system.pdb``.

    Attributes
    ----------
    atomic_numbers, masses, atom_names
        One entry per atom; masses in dalton.
    residue_of_atom
        Residue index (0-based) of each atom.
    residue_names, residue_numbers
        One entry per residue; numbers as printed in the PDB file.
    bonds
        Covalent bonds as index pairs ``i < j``.
    rigid_bonds
        The bonds whose torsion is stiff: amide (secondary), double, aromatic and ring bonds.
    planar_atoms
        Atoms whose bonds lie in a plane (sp2 and amide nitrogen).
    torsions
        Named proper torsions to report, such as ``{"phi:ALA2": (4, 6, 8, 14)}``.
    smiles, formula, charge
        Canonical isomeric SMILES, Hill formula, net charge in units of e.
    """

    atomic_numbers: tuple[int, ...]
    masses: tuple[float, ...]
    atom_names: tuple[str, ...]
    residue_of_atom: tuple[int, ...]
    residue_names: tuple[str, ...]
    residue_numbers: tuple[int, ...]
    bonds: tuple[tuple[int, int], ...]
    rigid_bonds: tuple[tuple[int, int], ...]
    planar_atoms: tuple[int, ...]
    torsions: dict[str, tuple[int, int, int, int]]
    smiles: str
    formula: str
    charge: int

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atomic_numbers)

    @property
    def neighbours(self) -> list[list[int]]:
        """The atoms bonded to each atom, in the order of the bonds."""
        near: list[list[int]] = [[] for _ in self.atomic_numbers]
        for i, j in self.bonds:
            near[i].append(j)
            near[j].append(i)
        return near

    def residue_label(self, atom: int) -> str:
        """Name and number of the residue of an atom, such as ``ALA2``."""
        residue = self.residue_of_atom[atom]
        return f"{self.residue_names[residue]}{self.residue_numbers[residue]}"

    def to_json(self) -> str:
        """Serialise to JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Molecule:
        """Read what :meth:`to_json` wrote."""
        data = json.loads(text)
        for key in ("bonds", "rigid_bonds"):
            data[key] = tuple(tuple(pair) for pair in data[key])
        data["torsions"] = {name: tuple(atoms) for name, atoms in data["torsions"].items()}
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
        return cls(**fields)
