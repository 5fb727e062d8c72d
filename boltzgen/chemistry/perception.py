"""What of a molecule is flat, stiff, flexible or inverts: from its graph and bond orders alone."""

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
    flat = set(planar)
    pairs = []
    for bond in mol.GetBonds():
        i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        is_amide = bond.GetBondType() == _SINGLE and i in flat and j in flat and _is_amide(bond)
        if bond.IsInRing() or bond.GetBondType() == _DOUBLE or is_amide:
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


def flexible_rings(mol: Chem.Mol) -> tuple[tuple[int, ...], ...]:
    """Return the rings that have several puckers, as atoms in ring order: coordinates hold one pucker of each.

    A ring of the smallest set of smallest rings counts if two bonded atoms of it are neither planar nor in a double
    bond; a ring of four, if all are. Left out are three-membered rings and those of up to seven atoms that are held by
    a bridge: that share two bonds or more with another ring of the set. Rings of eight atoms and more always count:
    even planar atoms turn out of the plane there.
    """
    flat = set(planar_atoms(mol)) | {
        atom.GetIdx() for atom in mol.GetAtoms() if any(bond.GetBondType() == _DOUBLE for bond in atom.GetBonds())
    }
    info = mol.GetRingInfo()
    rings = list(zip(info.AtomRings(), map(frozenset, info.BondRings()), strict=True))
    return tuple(
        tuple(ring)
        for ring, bonds in rings
        if _may_pucker(ring, flat) and not _is_bridged(bonds, [other for _, other in rings if other != bonds])
    )


def _may_pucker(ring: tuple[int, ...], flat: set[int]) -> bool:
    bent = [atom not in flat for atom in ring]
    if len(ring) >= 8:
        return True
    if len(ring) == 4:
        return all(bent)
    return len(ring) > 4 and any(a and b for a, b in zip(bent, bent[1:] + bent[:1], strict=True))


def _is_bridged(bonds: frozenset[int], others: list[frozenset[int]]) -> bool:
    shared = [bonds & other for other in others]
    caged = len(frozenset().union(*shared)) == len(bonds)
    return len(bonds) <= 7 and (caged or any(len(part) > 1 for part in shared))


def ring_name(mol: Chem.Mol, ring: tuple[int, ...]) -> str:
    """Return a ring as the SMILES of its own atoms, such as ``C1CCNC1``, to name it to a reader."""
    fragment = Chem.MolFragmentToSmiles(mol, atomsToUse=list(ring), isomericSmiles=False)
    return fragment.replace("[H]", "")


def inverting_nitrogens(mol: Chem.Mol) -> tuple[int, ...]:
    """Return the pyramidal nitrogens that invert into another conformer: coordinates keep the one of the reference.

    Those with three neighbours, none conjugated with it, either in a ring but at no bridgehead (axial and equatorial),
    or with three different neighbours. Elsewhere inversion exchanges equal groups, and nothing is lost.
    """
    flat = set(planar_atoms(mol))
    classes = list(Chem.CanonicalRankAtoms(mol, breakTies=False))
    found = []
    for atom in mol.GetAtoms():
        if atom.GetAtomicNum() != 7 or atom.GetDegree() != 3 or atom.GetIdx() in flat:
            continue
        ring_bonds = sum(bond.IsInRing() for bond in atom.GetBonds())
        distinct = len({classes[x.GetIdx()] for x in atom.GetNeighbors()}) == 3
        if ring_bonds == 2 or (ring_bonds == 0 and distinct):
            found.append(atom.GetIdx())
    return tuple(found)
