"""Configurations of atoms and double bonds: read from coordinates, labelled, and compared."""

from __future__ import annotations

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdCIPLabeler

CIP_LIMIT = 250_000
"""Comparisons of substituents for CIP codes, 0.2 s; most molecules need fewer than 10,000."""

FLAT = 0.1
"""Volume of three unit bonds below which a centre counts as flat; three at right angles have 1."""


def assign_stereo(mol: Chem.Mol) -> None:
    """Set all configurations of a molecule from its coordinates, in place.

    RDKit leaves out phosphorus and arsenic with three neighbours, which keep their configuration at 300 K: their
    barriers are above 100 kJ/mol (Baechler, Mislow, J. Am. Chem. Soc. 92, 3090 (1970)).
    """
    Chem.AssignStereochemistryFrom3D(mol)
    pyramids = [atom for atom in mol.GetAtoms() if atom.GetSymbol() in ("P", "As") and atom.GetDegree() == 3]
    for atom in pyramids:
        volume = bond_volume(atom)
        tags = Chem.ChiralType.CHI_TETRAHEDRAL_CCW, Chem.ChiralType.CHI_TETRAHEDRAL_CW
        atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED if abs(volume) < FLAT else tags[volume < 0])
    if pyramids:
        Chem.AssignStereochemistry(mol, cleanIt=True, force=True)  # where two neighbours are alike there is nothing


def bond_volume(atom: Chem.Atom) -> float:
    """Return b1 · (b2 × b3) of the first three bonds of an atom as unit vectors, in the order of its bonds."""
    x = atom.GetOwningMol().GetConformer().GetPositions()
    bonds = np.array([x[neighbour.GetIdx()] - x[atom.GetIdx()] for neighbour in atom.GetNeighbors()][:3])
    return float(np.linalg.det(bonds / np.linalg.norm(bonds, axis=1, keepdims=True)))


def has_declared_stereo(embedded: Chem.Mol, declared: Chem.Mol) -> bool:
    """Whether the coordinates have the configurations that the graph declares."""
    actual = Chem.Mol(embedded)
    assign_stereo(actual)
    wanted, found = configurations(declared), configurations(actual)
    return all(found.get(key) == code for key, code in wanted.items()) and has_isomer(actual, declared)


def has_isomer(actual: Chem.Mol, declared: Chem.Mol) -> bool:
    """Whether a molecule has the configurations that another declares, counting atoms alike that symmetry exchanges.

    Some of symmetric cages have no CIP code, and canonical SMILES leave them out.
    """
    return _heavy_graph(actual).HasSubstructMatch(_heavy_graph(declared), useChirality=True)


def _heavy_graph(mol: Chem.Mol) -> Chem.Mol:
    """The molecule without hydrogens; ends of one atom are numbered, or a search would try all their permutations."""
    graph = Chem.RemoveHs(mol)
    for atom in graph.GetAtoms():
        for number, end in enumerate((n for n in atom.GetNeighbors() if n.GetDegree() == 1), start=1):
            end.SetIsotope(number)
    return graph


def configurations(mol: Chem.Mol) -> dict[tuple[int, ...], str]:
    """Return the CIP code of every atom ``(i,)`` and double bond ``(i, j)`` that has one, if they can be found."""
    labelled = Chem.Mol(mol)
    try:
        rdCIPLabeler.AssignCIPLabels(labelled, maxRecursiveIterations=CIP_LIMIT)
    except RuntimeError:  # the labels of dodecahedrane would take forever
        return {}
    codes: dict[tuple[int, ...], str] = {
        (atom.GetIdx(),): atom.GetProp("_CIPCode") for atom in labelled.GetAtoms() if atom.HasProp("_CIPCode")
    }
    for bond in labelled.GetBonds():
        if bond.HasProp("_CIPCode"):
            i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
            codes[i, j] = bond.GetProp("_CIPCode")
    return codes
