"""Equal atoms of a structure, labelled as in a reference: internal coordinates tell them apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from rdkit import Chem

from boltzgen.molecule import Molecule

FLAT = 0.3
"""Triple product of unit bond vectors below which a centre has no handedness; it is 0.77 at a tetrahedral one."""


@dataclass(frozen=True)
class Exchange:
    """Two equal branches of a centre, atom by atom, and four atoms whose order in space tells which is which.

    ``probe`` is three neighbours and the centre where that is a handedness, or the atoms of a torsion about a rigid
    bond.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    probe: tuple[int, int, int, int]
    is_hand: bool


def like_reference(x: np.ndarray, reference: np.ndarray, exchanges: list[Exchange]) -> np.ndarray:
    """Relabel equal branches of ``x (atoms, 3)`` wherever they stand otherwise than in the reference ``(atoms, 3)``."""
    x = x.copy()
    for exchange in exchanges:
        atoms = list(exchange.probe)
        if exchange.is_hand:
            other = handedness(x, atoms) * handedness(reference, atoms) < 0.0
        else:
            other = np.cos(torsion_of(x[atoms]) - torsion_of(reference[atoms])) < 0.0
        if other:
            pair = [*exchange.first, *exchange.second]
            x[pair] = x[[*exchange.second, *exchange.first]]
    return x


def handedness(x: np.ndarray, atoms: list[int]) -> float:
    """Triple product of the unit bond vectors of three neighbours of a centre; the centre comes last."""
    vectors = x[atoms[:3]] - x[atoms[3]]
    return float(np.linalg.det(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))


def find_exchanges(mol: Chem.Mol, reference: np.ndarray, molecule: Molecule) -> list[Exchange]:
    """The exchanges of equal branches at pyramidal centres and at planar ends of rigid bonds, the largest first.

    Larger branches move smaller ones, which are therefore put in order later. Equal is what elements and bonds alone
    cannot tell apart, so that all of a guanidinium's NH2 are. Branches that lie in a ring with their centre are not
    exchanged: which way round a ring is numbered is for the embedding to keep.
    """
    ranks = list(Chem.CanonicalRankAtoms(graph_of(mol), breakTies=False))
    found = []
    for centre in mol.GetAtoms():
        for a, b in combinations(_neighbours(mol, centre.GetIdx()), 2):
            if ranks[a] != ranks[b]:
                continue
            branches = _matched_branches(mol, reference, ranks, centre.GetIdx(), a, b)
            probe = branches and _probe(mol, reference, molecule, centre.GetIdx(), a, b)
            if branches and probe:
                found.append(Exchange(*branches, *probe))
                break  # one exchange turns the hand of a centre
    return sorted(found, key=lambda exchange: -len(exchange.first))


def bare_graph(numbers: Iterable[int], bonds: Iterable[tuple[int, int]]) -> Chem.Mol:
    """Elements and bonds alone, all of them single."""
    graph = Chem.RWMol()
    for number in numbers:
        graph.AddAtom(Chem.Atom(int(number)))
    for i, j in bonds:
        graph.AddBond(i, j, Chem.BondType.SINGLE)
    graph.UpdatePropertyCache(strict=False)
    return graph.GetMol()


def graph_of(mol: Chem.Mol) -> Chem.Mol:
    """The same of a molecule."""
    bonds = ((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds())
    return bare_graph((atom.GetAtomicNum() for atom in mol.GetAtoms()), bonds)


def _probe(
    mol: Chem.Mol, reference: np.ndarray, molecule: Molecule, v: int, a: int, b: int
) -> tuple[tuple[int, int, int, int], bool] | None:
    """The atoms that tell the branches a and b of v apart, and whether by a handedness; None where nothing does."""
    others = [x for x in _neighbours(mol, v) if x not in (a, b)]
    if not others:
        return None
    if v not in molecule.planar_atoms:
        return (others[0], a, b, v), True
    if len(others) > 1 or tuple(sorted((v, others[0]))) not in molecule.rigid_bonds:
        return None
    before, axis = v, others[0]
    for _ in range(mol.GetNumAtoms()):  # beyond the atoms in line of an allene
        further = [x for x in _neighbours(mol, axis) if x != before]
        if len(further) != 1 or not _is_straight(reference[[before, axis, further[0]]]):
            return ((a, v, axis, further[0]), False) if further else None
        before, axis = axis, further[0]
    return None


def _matched_branches(
    mol: Chem.Mol, reference: np.ndarray, ranks: list[int], v: int, a: int, b: int
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The branches of v that begin with a and b, matched atom by atom; None if they meet or are not the same."""
    mapping, seen = {a: b}, {v, a, b}
    for x in (queue := [a]):
        images = [_beyond(mol, ranks, y, seen) for y in (x, mapping[x])]
        if [ranks[y] for y in images[0]] != [ranks[y] for y in images[1]] or set(images[0]) & set(images[1]):
            return None
        mapping |= dict(zip(*images, strict=True))
        seen |= {*images[0], *images[1]}
        queue += images[0]
    side = {v: v, **mapping}
    for x, image in mapping.items():
        neighbours = _neighbours(mol, x)
        if not set(neighbours) <= side.keys() or {side[y] for y in neighbours} != set(_neighbours(mol, image)):
            return None
        if len({ranks[y] for y in neighbours}) == len(neighbours) > 2:  # else its hand is put in order later
            hand = handedness(reference, [*neighbours[:3], x])
            if hand * handedness(reference, [*(side[y] for y in neighbours[:3]), image]) < -(FLAT**2):
                return None
    return tuple(mapping), tuple(mapping.values())


def _beyond(mol: Chem.Mol, ranks: list[int], x: int, seen: set[int]) -> list[int]:
    return sorted((y for y in _neighbours(mol, x) if y not in seen), key=lambda y: ranks[y])


def _neighbours(mol: Chem.Mol, x: int) -> list[int]:
    return [y.GetIdx() for y in mol.GetAtomWithIdx(x).GetNeighbors()]


def _is_straight(x: np.ndarray) -> bool:
    u, v = x[0] - x[1], x[2] - x[1]
    return bool(u @ v < -0.94 * np.linalg.norm(u) * np.linalg.norm(v))  # beyond 160°, as the coordinates have it


def torsion_of(x: np.ndarray) -> float:
    """Torsion of four atoms ``(4, 3)`` in (−π, π]."""
    b = np.diff(x, axis=0)
    m, n = np.cross(b[0], b[1]), np.cross(b[1], b[2])
    return float(np.arctan2(np.linalg.norm(b[1]) * (b[0] @ n), m @ n))
