"""Conformers of a molecule by distance geometry: a search that knows nothing of the coordinates it is held against."""

from __future__ import annotations

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from rdkit.rdBase import BlockLogs

from boltzgen.chemistry.embed import MAX_ATTEMPTS, PREFERENCES
from boltzgen.chemistry.images import FLAT, bare_graph, find_exchanges, handedness, like_reference
from boltzgen.molecule import Molecule

_CIS_AMIDE = Chem.MolFromSmarts("O=[CX3]-!@[NX3;H1]-[#1]")


def embed_conformers(molecule: Molecule, reference_positions: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return up to ``n`` conformers ``(k, atoms, 3)`` in nm from ETKDG, neither minimised nor distinct.

    Atom order and stereo are those of ``reference_positions (atoms, 3)`` in nm, also where only labels tell atoms
    apart: each tetrahedral centre has the hand of the reference, those with equal groups too (the hydrogens of CH2, CH3
    and NH2, methyls of isopropyl), and the equal ends of a rigid bond (=CH2, amide NH2) keep their sides. Other
    pyramidal nitrogens may be inverted. Amides are trans unless one of the reference is cis. The result is empty where
    embedding fails, and the same for equal seeds.

    Source: ETKDGv3, Wang et al., J. Chem. Inf. Model. 60, 2044 (2020).
    """
    reference = np.asarray(reference_positions, dtype=np.float64)
    mol = _in_order(molecule)
    if mol is None:
        return np.empty((0, molecule.n_atoms, 3))
    conformer = Chem.Conformer(molecule.n_atoms)
    conformer.SetPositions(10.0 * reference)
    mol.AddConformer(conformer)
    Chem.AssignStereochemistryFrom3D(mol)
    exchanges = find_exchanges(mol, reference, molecule)
    Chem.AssignAtomChiralTagsFromStructure(mol)  # of every tetrahedral atom, after equal groups were found
    hands = _hands(mol, reference)
    for random_start, knowledge in PREFERENCES:
        parameters = rdDistGeom.ETKDGv3()
        settings = {
            "randomSeed": seed + 1,  # RDKit reads −1 as no seed
            "maxIterations": MAX_ATTEMPTS,
            "useRandomCoords": random_start,
            "useExpTorsionAnglePrefs": knowledge,
            "useBasicKnowledge": knowledge,
            "forceTransAmides": not _has_cis_amide(mol, reference),
        }
        for name, value in settings.items():
            setattr(parameters, name, value)
        trial = Chem.Mol(mol)
        trial.RemoveAllConformers()  # the reference is none of what was found
        with BlockLogs():
            rdDistGeom.EmbedMultipleConfs(trial, n, parameters)
        found = [like_reference(c.GetPositions() / 10.0, reference, exchanges) for c in trial.GetConformers()]
        kept = [x for x in found if all(handedness(x, atoms) * hand > 0.0 for atoms, hand in hands)]
        if kept:
            return np.stack(kept)
    return np.empty((0, molecule.n_atoms, 3))


def _in_order(molecule: Molecule) -> Chem.Mol | None:
    """The molecule of the SMILES in the atom order of the record, without stereo; None if the two do not match."""
    mol = Chem.AddHs(Chem.MolFromSmiles(molecule.smiles))
    Chem.RemoveStereochemistry(mol)
    record = Chem.RWMol()
    for number in molecule.atomic_numbers:
        record.AddAtom(Chem.Atom(number))
    for i, j in molecule.bonds:
        record.AddBond(i, j, Chem.BondType.SINGLE)
    match = bare_graph(mol).GetSubstructMatch(record)  # the record has no bond orders
    return Chem.RenumberAtoms(mol, match) if len(match) == mol.GetNumAtoms() else None


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


def _has_cis_amide(mol: Chem.Mol, reference: np.ndarray) -> bool:
    """Whether H and O of a secondary amide stand on one side."""
    matches = mol.GetSubstructMatches(_CIS_AMIDE)
    return any((reference[o] - reference[c]) @ (reference[h] - reference[n]) > 0.0 for o, c, n, h in matches)
