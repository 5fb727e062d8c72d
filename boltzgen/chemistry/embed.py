"""A starting structure for a molecule that comes without coordinates."""

from __future__ import annotations

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdCIPLabeler, rdDistGeom, rdForceFieldHelpers
from rdkit.rdBase import BlockLogs

from boltzgen.chemistry.structure import check_geometry
from boltzgen.errors import InputError, UnsupportedError

N_CONFORMERS = 10
MAX_ATTEMPTS = 30

PREFERENCES = ((False, True), (True, True), (True, False))
"""What is tried in turn: whether to start at random, and whether torsions are known. Strained rings, such as those
with an alkyne, need the last: distances alone."""


def embed(mol: Chem.Mol, where: str, seed: int = 0) -> Chem.Mol:
    """Return the molecule with one conformer, the lowest in MMFF94s of ten from ETKDG, its stereo as declared.

    Reproducible for equal seeds. Source: ETKDGv3, Wang et al., J. Chem. Inf. Model. 60, 2044 (2020).

    Raises
    ------
    UnsupportedError
        If no structure with the declared stereo is found.
    """
    for random_start, knowledge in PREFERENCES:
        trial = Chem.Mol(mol)
        with BlockLogs():  # it complains about charged nitrogens, which the embedding handles well
            rdDistGeom.EmbedMultipleConfs(
                trial,
                numConfs=N_CONFORMERS,
                maxAttempts=MAX_ATTEMPTS,
                randomSeed=seed + 1,  # RDKit reads −1 as no seed
                useMacrocycleTorsions=True,
                ETversion=2,
                useRandomCoords=random_start,
                useExpTorsionAnglePrefs=knowledge,
                useBasicKnowledge=knowledge,
            )
            energies = _minimised(trial)
        for _, number in sorted(energies):
            found = Chem.Mol(mol)
            found.RemoveAllConformers()
            found.AddConformer(trial.GetConformer(number), assignId=True)
            if has_declared_stereo(found, mol) and is_sound(found):
                return found
    raise UnsupportedError(f"{where}: no 3D structure was found by embedding. Give a file with coordinates.")


def has_declared_stereo(embedded: Chem.Mol, declared: Chem.Mol) -> bool:
    """Whether the coordinates have the configurations that the graph declares."""
    actual = Chem.Mol(embedded)
    Chem.AssignStereochemistryFrom3D(actual)
    wanted = configurations(declared)
    return all(configurations(actual).get(key) == code for key, code in wanted.items())


def configurations(mol: Chem.Mol) -> dict[tuple[int, ...], str]:
    """Return the CIP code of every atom ``(i,)`` and double bond ``(i, j)`` that has one."""
    labelled = Chem.Mol(mol)
    rdCIPLabeler.AssignCIPLabels(labelled)
    codes: dict[tuple[int, ...], str] = {
        (atom.GetIdx(),): atom.GetProp("_CIPCode") for atom in labelled.GetAtoms() if atom.HasProp("_CIPCode")
    }
    for bond in labelled.GetBonds():
        if bond.HasProp("_CIPCode"):
            i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
            codes[i, j] = bond.GetProp("_CIPCode")
    return codes


def is_sound(mol: Chem.Mol) -> bool:
    """Whether no bond is torn or crushed and no atoms lie on each other."""
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
    nowhere = [""] * mol.GetNumAtoms()
    try:
        check_geometry([a.GetSymbol() for a in mol.GetAtoms()], bonds, positions_of(mol), nowhere, nowhere)
    except InputError:
        return False
    return True


def positions_of(mol: Chem.Mol) -> np.ndarray:
    """Return the coordinates of the only conformer, ``(atoms, 3)``, nm."""
    return mol.GetConformer().GetPositions() / 10.0


def _minimised(mol: Chem.Mol) -> list[tuple[float, int]]:
    """MMFF94s energies and numbers of the conformers, minimised in place; energy 0 where there are no parameters."""
    numbers = [conformer.GetId() for conformer in mol.GetConformers()]
    if not numbers or not rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        return [(0.0, number) for number in numbers]
    results = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol, maxIters=2000, mmffVariant="MMFF94s")
    return [(energy, number) for number, (_, energy) in zip(numbers, results, strict=True)]
