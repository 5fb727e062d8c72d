"""What of a molecule is flat or stiff: from its graph and bond orders alone."""

from __future__ import annotations

from rdkit import Chem

_DOUBLE = Chem.BondType.DOUBLE
_SINGLE = Chem.BondType.SINGLE


def planar_atoms(mol: Chem.Mol) -> tuple[int, ...]:
    """Return the atoms whose bonds lie in a plane.

    Carbons with three neighbours, nitrogens with two or three bonded to such a carbon, and other atoms with three
    neighbours that are conjugated or have a double bond (nitro, boron, azo); those of sulfur and phosphorus stay
    pyramidal.
    """
    carbons = {a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() == 6 and a.GetDegree() == 3}
    nitrogens = {
        atom.GetIdx()
        for atom in mol.GetAtoms()
        if atom.GetAtomicNum() == 7
        and atom.GetDegree() <= 3
        and any(neighbour.GetIdx() in carbons for neighbour in atom.GetNeighbors())
    }
    conjugated = {
        atom.GetIdx()
        for atom in mol.GetAtoms()
        if atom.GetAtomicNum() in (5, 7)
        and atom.GetDegree() == 3
        and atom.GetHybridization() == Chem.HybridizationType.SP2
    }
    return tuple(sorted(carbons | nitrogens | conjugated))


def rigid_bonds(mol: Chem.Mol, planar: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the bonds about which nothing turns: in rings, double bonds, and the C–N bonds of amides and their like.

    A C–N bond is stiff where the carbon is planar and outside aromatic rings, has a double bond to O, N or S, and
    neither the carbon nor the nitrogen gives cis and trans nearly equal energies: the amide bonds of tertiary
    nitrogens (those before a proline) and of formamides turn freely. So do single bonds between conjugated carbons, as
    in biphenyl and butadiene, and those of anilines.
    """
    pairs = set(held_bonds(mol, planar))
    for bond in mol.GetBonds():
        if bond.IsInRing():
            i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
            pairs.add((i, j))
    return tuple(sorted(pairs))


def held_bonds(mol: Chem.Mol, planar: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the bonds that keep cis or trans, in rings too: double bonds, and C–N bonds of amides and their like."""
    flat = set(planar)
    pairs = []
    for bond in mol.GetBonds():
        i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        is_amide = bond.GetBondType() == _SINGLE and i in flat and j in flat and _is_amide(bond)
        if bond.GetBondType() == _DOUBLE or is_amide:
            pairs.append((i, j))
    return tuple(sorted(pairs))


def _is_amide(bond: Chem.Bond) -> bool:
    atoms = bond.GetBeginAtom(), bond.GetEndAtom()
    carbon = next((a for a in atoms if a.GetAtomicNum() == 6), None)
    nitrogen = next((a for a in atoms if a.GetAtomicNum() == 7), None)
    if carbon is None or nitrogen is None or carbon.GetIsAromatic():
        return False
    polar = any(
        other.GetBondType() == _DOUBLE and other.GetOtherAtom(carbon).GetAtomicNum() in (7, 8, 16)
        for other in carbon.GetBonds()
    )
    return polar and _has_hydrogen(nitrogen) and (not _has_hydrogen(carbon) or _hydrogens(nitrogen) == 2)


def _hydrogens(atom: Chem.Atom) -> int:
    return sum(x.GetAtomicNum() == 1 for x in atom.GetNeighbors())


def _has_hydrogen(atom: Chem.Atom) -> bool:
    return _hydrogens(atom) > 0
