"""Conformers of a molecule by distance geometry: a search that knows nothing of the coordinates it is held against."""

from __future__ import annotations

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolAlign

from boltzgen.chemistry.embed import WAYS, Way, conformers
from boltzgen.chemistry.images import FLAT, bare_graph, find_exchanges, graph_of, handedness, like_reference, torsion_of
from boltzgen.chemistry.perception import held_bonds, planar_atoms
from boltzgen.molecule import Molecule

APART = 0.02
"""nm, root mean square over heavy atoms and polar hydrogens, beyond which conformers differ."""

SAME_ENERGY = 0.1
"""kJ/mol between copies of one conformer at most: minimising to forces of 2 kJ/mol/nm leaves a tenth of it."""

MOST_SYMMETRIES = 1000

_CIS_AMIDE = Chem.MolFromSmarts("O=[CX3]-!@[NX3;H1]-[#1]")


class ConformerSearch:
    """Conformers in the atom order and labels of a reference structure ``(atoms, 3)`` nm.

    Stereo is that of the reference also where only labels tell atoms apart: each tetrahedral centre has its hand, those
    with equal groups too (the hydrogens of CH2, CH3 and NH2, methyls of isopropyl), and the equal ends of a rigid bond
    (=CH2, amide NH2) keep their sides. Other pyramidal nitrogens may be inverted. Amides are trans unless one of the
    reference is cis.

    Source: ETKDGv3, Wang et al., J. Chem. Inf. Model. 60, 2044 (2020).
    """

    def __init__(self, molecule: Molecule, reference_positions: np.ndarray) -> None:
        self._n_atoms = molecule.n_atoms
        self._reference = reference = np.asarray(reference_positions, dtype=np.float64)
        mol = _in_order(molecule)
        _add_conformer(mol, reference)
        Chem.AssignStereochemistryFrom3D(mol)
        Chem.AssignAtomChiralTagsFromStructure(mol)  # of every tetrahedral atom, with equal groups too
        self._mol = mol
        self._exchanges = find_exchanges(mol, reference, molecule)
        self._hands = _hands(mol, reference)
        self._held = _held_torsions(mol, reference)

    def embed(self, n: int, seed: int) -> np.ndarray:
        """Up to ``n`` conformers ``(k, atoms, 3)`` in nm, neither minimised nor distinct; none where embedding fails.

        The same for equal seeds.
        """
        found = np.empty((0, self._n_atoms, 3))
        for way in WAYS:
            missing = n - len(found)
            if missing == 0 or (len(found) and not (way.torsions and way.stereo)):
                break
            found = np.concatenate([found, self._attempt(missing, seed, way)])
        return found

    def _attempt(self, n: int, seed: int, way: Way) -> np.ndarray:
        trans_amides = not _has_cis_amide(self._mol, self._reference)
        trial = conformers(self._mol, n, seed, way, trans_amides=trans_amides)
        found = np.array([conformer.GetPositions() / 10.0 for conformer in trial.GetConformers()])
        x = self.relabelled(found.reshape(-1, self._n_atoms, 3))
        return x[self.has_stereo(x)]

    def relabelled(self, x: np.ndarray) -> np.ndarray:
        """Structures ``(k, atoms, 3)`` with equal atoms labelled as in the reference."""
        found = [like_reference(one, self._reference, self._exchanges) for one in x]
        return np.array(found).reshape(-1, self._n_atoms, 3)

    def has_stereo(self, x: np.ndarray) -> np.ndarray:
        """Whether structures ``(k, atoms, 3)`` are the stereoisomer of the reference, ``(k,)``.

        Atoms with four neighbours have its hand, and double bonds and amides its cis or trans: torsions about them
        differ by less than a quarter of a turn.
        """
        return np.array(
            [
                all(handedness(one, a) * hand > 0.0 for a, hand in self._hands)
                and all(np.cos(torsion_of(one[list(a)]) - angle) > 0.0 for a, angle in self._held)
                for one in x
            ],
            dtype=bool,
        )


def distinct_conformers(molecule: Molecule, positions: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Number the state of each of ``positions (k, atoms, 3)`` nm with ``energies (k,)`` kJ/mol, from 0 for the lowest.

    Equal are conformers of equal energy that lie on each other within :data:`APART` once equal atoms are exchanged, but
    not mirror images. Hydrogens at carbon are left out: equal ones would make too many exchanges.
    """
    bonded = np.full(molecule.n_atoms, -1)
    for i, j in molecule.bonds:
        bonded[i], bonded[j] = j, i
    numbers = np.asarray(molecule.atomic_numbers)
    kept = np.flatnonzero((numbers > 1) | (numbers[bonded] != 6))
    mol = bare_graph(numbers[kept].tolist(), _bonds_among(molecule.bonds, kept))
    for x in positions[:, kept]:
        _add_conformer(mol, x)
    matches = mol.GetSubstructMatches(mol, uniquify=False, maxMatches=MOST_SYMMETRIES)
    pairs = [list(enumerate(match)) for match in matches]
    states = np.full(len(positions), -1)
    lowest: list[int] = []
    for k in map(int, np.argsort(energies, kind="stable")):
        near = (s for s, other in enumerate(lowest) if energies[k] - energies[other] < SAME_ENERGY)
        same = (s for s in near if rdMolAlign.GetBestRMS(Chem.Mol(mol), mol, k, lowest[s], pairs) < 10.0 * APART)
        states[k] = next(same, len(lowest))
        if states[k] == len(lowest):
            lowest.append(k)
    return states


def _in_order(molecule: Molecule) -> Chem.Mol:
    """The molecule of the SMILES in the atom order of the record, without stereo."""
    mol = Chem.AddHs(Chem.MolFromSmiles(molecule.smiles))
    Chem.RemoveStereochemistry(mol)
    record = bare_graph(molecule.atomic_numbers, molecule.bonds)  # it has no bond orders
    match = graph_of(mol).GetSubstructMatch(record)
    if len(match) != molecule.n_atoms:
        raise ValueError(f"the SMILES {molecule.smiles} is not the molecule of the record")
    return Chem.RenumberAtoms(mol, match)


def _add_conformer(mol: Chem.Mol, x: np.ndarray) -> None:
    conformer = Chem.Conformer(len(x))
    conformer.SetPositions(np.ascontiguousarray(10.0 * x, dtype=np.float64))
    mol.AddConformer(conformer, assignId=True)


def _bonds_among(bonds: tuple[tuple[int, int], ...], kept: np.ndarray) -> list[tuple[int, int]]:
    place = {int(atom): k for k, atom in enumerate(kept)}
    return [(place[i], place[j]) for i, j in bonds if i in place and j in place]


def _hands(mol: Chem.Mol, reference: np.ndarray) -> list[tuple[list[int], float]]:
    """Three neighbours and the centre of each atom with four neighbours, and its hand in the reference."""
    found = []
    for atom in mol.GetAtoms():
        if atom.GetDegree() == 4:
            atoms = [*(x.GetIdx() for x in atom.GetNeighbors()[:3]), atom.GetIdx()]
            hand = handedness(reference, atoms)
            if abs(hand) > FLAT:
                found.append((atoms, hand))
    return found


def _held_torsions(mol: Chem.Mol, reference: np.ndarray) -> list[tuple[tuple[int, int, int, int], float]]:
    """A torsion about each bond that keeps cis or trans, and its angle in the reference."""
    found = []
    for i, j in held_bonds(mol, planar_atoms(mol)):
        ends = [
            next((n.GetIdx() for n in mol.GetAtomWithIdx(a).GetNeighbors() if n.GetIdx() != b), None)
            for a, b in ((i, j), (j, i))
        ]
        if ends[0] is not None and ends[1] is not None:
            atoms = (ends[0], i, j, ends[1])
            if not _is_linear(reference, atoms):
                found.append((atoms, torsion_of(reference[list(atoms)])))
    return found


def _is_linear(x: np.ndarray, atoms: tuple[int, int, int, int]) -> bool:
    """Whether three neighbours of a torsion are nearly in line, as in allenes, so that it says nothing."""
    a, b, c, d = x[list(atoms)]
    return any(
        np.linalg.norm(np.cross(u, v)) < 0.2 * np.linalg.norm(u) * np.linalg.norm(v)
        for u, v in ((b - a, c - b), (c - b, d - c))
    )


def _has_cis_amide(mol: Chem.Mol, reference: np.ndarray) -> bool:
    """Whether H and O of a secondary amide stand on one side."""
    matches = mol.GetSubstructMatches(_CIS_AMIDE)
    return any((reference[o] - reference[c]) @ (reference[h] - reference[n]) > 0.0 for o, c, n, h in matches)
