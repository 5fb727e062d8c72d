"""Names of atoms and residues, and the torsions that are reported under them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rdkit import Chem

from boltzgen.chemistry.records import AtomRecord
from boltzgen.chemistry.residues import CHI_ATOMS
from boltzgen.chemistry.structure import Structure

LIGAND = "LIG"
"""Residue name of a molecule that brings none."""

_PDB_NAME = re.compile(r"[\w'*+-]{1,4}", re.ASCII)

Torsions = dict[str, tuple[int, int, int, int]]


@dataclass(frozen=True)
class Names:
    """PDB-style names, unique within each residue; ``residues`` are name and number."""

    atoms: tuple[str, ...]
    residues: tuple[tuple[str, int], ...]
    residue_of_atom: tuple[int, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """What atoms are called where names must be unique: ``C1``, or ``CA@2`` where there are several residues."""
        if len(self.residues) == 1:
            return self.atoms
        return tuple(f"{name}@{self.residues[r][1]}" for name, r in zip(self.atoms, self.residue_of_atom, strict=True))


def names_of_structure(structure: Structure) -> Names:
    """Return the names of the residue templates."""
    return Names(
        tuple(name for residue in structure.residues for name in residue.names),
        tuple((residue.template.name, residue.number) for residue in structure.residues),
        tuple(r for r, residue in enumerate(structure.residues) for _ in residue.names),
    )


def names_of_molecule(mol: Chem.Mol) -> Names:
    """Return the names that a MOL2 file gives if they are unique and fit a PDB file, else element and number."""
    given = [a.GetProp("_TriposAtomName") if a.HasProp("_TriposAtomName") else "" for a in mol.GetAtoms()]
    fit = len(set(given)) == len(given) and all(_PDB_NAME.fullmatch(name) for name in given)
    atoms = given if fit else _numbered(mol)
    return Names(tuple(atoms), ((LIGAND, 1),), (0,) * mol.GetNumAtoms())


def names_of_records(records: Sequence[AtomRecord], mol: Chem.Mol) -> Names:
    """Return the names of a PDB or mmCIF file; added hydrogens, last in ``mol``, belong to what they sit on.

    All is one residue where atoms of several are mixed, as they are if hydrogens were added: formats know no other way.
    """
    keys: dict[tuple[str, str, str], int] = {}
    residue_of_atom = [keys.setdefault((a.chain, a.residue_id, a.residue_name), len(keys)) for a in records]
    for atom in list(mol.GetAtoms())[len(records) :]:
        residue_of_atom.append(residue_of_atom[atom.GetNeighbors()[0].GetIdx()])
    residues = tuple((_residue_name(name), _number(text, index + 1)) for index, (_, text, name) in enumerate(keys))
    if residue_of_atom != sorted(residue_of_atom):
        residues, residue_of_atom = ((LIGAND, 1),), [0] * mol.GetNumAtoms()
    given = [atom.name for atom in records] + _numbered(mol)[len(records) :]
    pairs = list(zip(residue_of_atom, given, strict=True))
    fit = len(set(pairs)) == len(pairs) and all(_PDB_NAME.fullmatch(name) for name in given)
    return Names(tuple(given if fit else _numbered(mol)), residues, tuple(residue_of_atom))


def _residue_name(given: str) -> str:
    return re.sub(r"[^\w+-]", "_", given[:3], flags=re.ASCII)


def _number(text: str, otherwise: int) -> int:
    """A residue number, if it is one that fits a PDB file."""
    return int(text) if re.fullmatch(r"-?\d{1,3}|\d{4}", text, re.ASCII) else otherwise


def peptide_torsions(structure: Structure) -> Torsions:
    """Return phi, psi, omega and chi by residue, such as ``"phi:ALA2"``.

    IUPAC-IUB convention: omega of residue i turns about the bond from its C to the next N; that of the acetyl
    cap starts at its methyl carbon.
    """
    at = structure.index()
    torsions: Torsions = {}
    for r, residue in enumerate(structure.residues):
        start = "CA" if "CA" in residue.names else "CH3"
        end = next((name for name in ("CA", "CH3") if (r + 1, name) in at), "")
        chains: dict[str, tuple[tuple[int, str], ...]] = {
            "phi": ((r - 1, "C"), (r, "N"), (r, "CA"), (r, "C")),
            "psi": ((r, "N"), (r, "CA"), (r, "C"), (r + 1, "N")),
            "omega": ((r, start), (r, "C"), (r + 1, "N"), (r + 1, end)),
        }
        chi = CHI_ATOMS.get(residue.template.name, ())
        for first in range(len(chi) - 3):
            chains[f"chi{first + 1}"] = tuple((r, name) for name in chi[first : first + 4])
        for kind, atoms in chains.items():
            if all(atom in at for atom in atoms):
                a, b, c, d = (at[atom] for atom in atoms)
                torsions[f"{kind}:{residue.label}"] = (a, b, c, d)
    return torsions


def rotatable_torsions(mol: Chem.Mol, names: Names, rigid_bonds: Sequence[tuple[int, int]]) -> Torsions:
    """Return one torsion of heavy atoms for every bond that turns, such as ``"tor:C1-C2-C3-C4"``.

    Of several neighbours the one with the most heavy neighbours of its own leads, then the heavier element. Where there
    are several residues, their numbers are part of the names.
    """
    torsions: Torsions = {}
    rigid = set(rigid_bonds)
    labels = names.labels
    for bond in mol.GetBonds():
        b, c = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        if (b, c) in rigid or _is_linear(mol, b) or _is_linear(mol, c):
            continue
        a, d = _leading_neighbour(mol, b, c), _leading_neighbour(mol, c, b)
        if a is not None and d is not None:
            torsions["tor:" + "-".join(labels[i] for i in (a, b, c, d))] = (a, b, c, d)
    return torsions


def _leading_neighbour(mol: Chem.Mol, atom: int, excluded: int) -> int | None:
    heavy = [n for n in mol.GetAtomWithIdx(atom).GetNeighbors() if n.GetAtomicNum() > 1 and n.GetIdx() != excluded]
    ranked = sorted(heavy, key=lambda n: (-_heavy_degree(n), -n.GetAtomicNum(), n.GetIdx()))
    return ranked[0].GetIdx() if ranked else None


def _heavy_degree(atom: Chem.Atom) -> int:
    return sum(neighbour.GetAtomicNum() > 1 for neighbour in atom.GetNeighbors())


def _is_linear(mol: Chem.Mol, atom: int) -> bool:
    return mol.GetAtomWithIdx(atom).GetHybridization() == Chem.HybridizationType.SP


def _numbered(mol: Chem.Mol) -> list[str]:
    counts: Counter[str] = Counter()
    names = []
    for atom in mol.GetAtoms():
        symbol = atom.GetSymbol().upper()
        counts[symbol] += 1
        names.append(f"{symbol}{counts[symbol]}")
    return names
