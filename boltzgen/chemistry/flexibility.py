"""Which atoms are planar, and about which bonds nothing turns."""

from __future__ import annotations

from rdkit import Chem


def planar_atoms(mol: Chem.Mol) -> tuple[int, ...]:
    """Return the carbons with three neighbours, and nitrogens with two or three bonded to such a carbon."""
    carbons = {a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() == 6 and a.GetDegree() == 3}
    nitrogens = {
        atom.GetIdx()
        for atom in mol.GetAtoms()
        if atom.GetAtomicNum() == 7
        and atom.GetDegree() <= 3
        and any(neighbour.GetIdx() in carbons for neighbour in atom.GetNeighbors())
    }
    return tuple(sorted(carbons | nitrogens))


def rigid_bonds(mol: Chem.Mol, planar: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the bonds about which nothing turns: in rings, and between planar atoms.

    The amide bond before a proline is the exception: cis and trans differ by a few kT there, so it is free.
    """
    flat = set(planar)
    pairs = []
    for bond in mol.GetBonds():
        i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        nitrogens = [atom for atom in (bond.GetBeginAtom(), bond.GetEndAtom()) if atom.GetAtomicNum() == 7]
        tertiary = any(not any(x.GetAtomicNum() == 1 for x in atom.GetNeighbors()) for atom in nitrogens)
        if bond.IsInRing() or (i in flat and j in flat and not tertiary):
            pairs.append((i, j))
    return tuple(sorted(pairs))
