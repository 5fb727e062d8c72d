"""Configurations that rings allow: those of norbornane and cubane follow from the graph, those of decalin do not.

RDKit lists every atom as a stereocentre whose neighbours differ, bridgeheads of cages too. There the other
configuration often has a bond that points into the cage: no such molecule exists, and nobody would think of declaring
the one that does. Whether it exists is found by building it.
"""

from __future__ import annotations

from itertools import combinations

from rdkit import Chem

from boltzgen.chemistry.configuration import assign_stereo, has_isomer
from boltzgen.chemistry.embed import WAYS, conformers, minimised, number_of_conformers

SAMPLING = 2
"""How many times as many structures as conformers are built with open configurations: 20 of small molecules. The two
configurations of decalin come up about equally often."""

FLIP_ATTEMPTS = 10
"""Attempts at a structure with a given configuration; those that exist need one or two."""

WINDOW = 36.0
"""kcal/mol (150 kJ/mol) of MMFF94s above the lowest isomer, beyond which one is not thought to exist: in,out-bicyclo-
[3.3.1]nonane lies 313 kJ/mol above, trans-bicyclo[4.1.0]heptane, of which derivatives are known, 105 kJ/mol."""

MOST_CENTRES = 24
"""Open centres of one molecule that are looked into: pairs of them are inverted. Dodecahedrane has 20."""


def only_isomer(mol: Chem.Mol, undefined: list[Chem.StereoInfo]) -> Chem.Mol | None:
    """Return the molecule with its open configurations set, if rings leave a single choice, else None.

    Only atoms with three ring bonds or more are looked into; any other open centre or double bond has both
    configurations. Structures are embedded with the configurations left open; if all that are not strained are one
    molecule, every centre and every pair of them is inverted too, so that no rare isomer is missed. Enantiomers are
    two molecules.
    """
    centres = [info.centeredOn for info in undefined if info.type == Chem.StereoType.Atom_Tetrahedral]
    if len(centres) < len(undefined) or len(centres) > MOST_CENTRES or not all(_is_fused(mol, i) for i in centres):
        return None
    found = _unstrained(mol, SAMPLING * number_of_conformers(mol), seed=0)
    if not found:
        return None
    _, isomer = found[0]
    lowest = min(energy for energy, _ in found)
    if not all(has_isomer(other, isomer) for _, other in found):
        return None
    known = [isomer]
    for flipped in (*combinations(centres, 1), *combinations(centres, 2), tuple(centres)):
        other = Chem.Mol(isomer)
        for centre in flipped:
            other.GetAtomWithIdx(centre).InvertChirality()
        if any(has_isomer(other, one) for one in known):
            continue
        known.append(other)
        built = minimised(conformers(other, 1, seed=0, attempts=FLIP_ATTEMPTS))
        if any(energy < lowest + WINDOW for energy, _ in built):
            return None
    return isomer


def drawn_isomer(mol: Chem.Mol, seed: int) -> Chem.Mol | None:
    """Return one stereoisomer of those that can be embedded without large strain, drawn with the seed, or None."""
    found = _unstrained(mol, number_of_conformers(mol), seed)
    return found[0][1] if found else None


def _unstrained(mol: Chem.Mol, n: int, seed: int) -> list[tuple[float, Chem.Mol]]:
    """Energies and stereoisomers, in the order of drawing, of the structures in the window above the lowest."""
    for way in WAYS:
        trial = conformers(mol, n, seed, way)
        energies = minimised(trial)
        if energies:
            lowest = min(energies)[0]
            return [(energy, _configured(trial, k)) for energy, k in energies if energy < lowest + WINDOW]
    return []


def _configured(trial: Chem.Mol, number: int) -> Chem.Mol:
    """The graph with the configurations of a conformer, without coordinates."""
    isomer = Chem.Mol(trial, confId=number)
    assign_stereo(isomer)
    isomer.RemoveAllConformers()
    return isomer


def _is_fused(mol: Chem.Mol, atom: int) -> bool:
    return sum(bond.IsInRing() for bond in mol.GetAtomWithIdx(atom).GetBonds()) > 2
