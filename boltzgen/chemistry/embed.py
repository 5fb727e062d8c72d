"""A starting structure for a molecule that comes without coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
from rdkit.rdBase import BlockLogs

from boltzgen.chemistry.configuration import has_declared_stereo
from boltzgen.chemistry.structure import check_geometry
from boltzgen.errors import InputError, UnsupportedError

N_CONFORMERS = 10
MANY_ATOMS = 100
"""Up to here ten conformers are made; beyond, fewer: the time of each grows with the square of the atoms."""

MAX_ATTEMPTS = 30
TIME_LIMIT = 10
"""Attempts, and seconds, that the first conformer may take in each way of embedding; later ones are as quick."""

MAX_STEPS = 500
"""Of the minimisation, which only tells good conformers from bad ones."""


@dataclass(frozen=True)
class Way:
    """A way of embedding: whether to start at random, and whether torsions and configurations are told."""

    random_start: bool = False
    torsions: bool = True
    stereo: bool = True


WAYS = (Way(), Way(random_start=True), Way(random_start=True, torsions=False), Way(stereo=False))
"""What is tried in turn. Strained rings, such as those with an alkyne, need the third: distances alone. The smallest
cages, such as bicyclobutane, need the last: their bridgeheads look flat to the embedding, and stereo is seen after."""


def embed(mol: Chem.Mol, where: str, seed: int = 0) -> Chem.Mol:
    """Return the molecule with one conformer, the lowest in MMFF94s of some from ETKDG, its stereo as declared.

    Reproducible for equal seeds. Source: ETKDGv3, Wang et al., J. Chem. Inf. Model. 60, 2044 (2020).

    Raises
    ------
    UnsupportedError
        If no structure with the declared stereo is found.
    """
    for way in WAYS:
        trial = conformers(mol, number_of_conformers(mol), seed, way)
        for _, number in sorted(minimised(trial)):
            found = Chem.Mol(mol)
            found.RemoveAllConformers()
            found.AddConformer(trial.GetConformer(number), assignId=True)
            if has_declared_stereo(found, mol) and is_sound(found):
                return found
    raise UnsupportedError(f"{where}: no 3D structure was found by embedding. Give a file with coordinates.")


def number_of_conformers(mol: Chem.Mol) -> int:
    """Return how many conformers are made of a molecule with all hydrogens."""
    return max(2, round(N_CONFORMERS * min(1.0, (MANY_ATOMS / mol.GetNumAtoms()) ** 2)))


def conformers(
    mol: Chem.Mol, n: int, seed: int, way: Way = Way(), attempts: int = MAX_ATTEMPTS, *, trans_amides: bool = True
) -> Chem.Mol:
    """Return the molecule with at most ``n`` conformers, none if the first is not found within the limits."""
    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed + 1  # RDKit reads −1 as no seed
    parameters.useRandomCoords = way.random_start
    parameters.useExpTorsionAnglePrefs = parameters.useBasicKnowledge = way.torsions
    parameters.enforceChirality = way.stereo
    parameters.forceTransAmides = trans_amides
    parameters.maxIterations, parameters.timeout = attempts, TIME_LIMIT
    trial = Chem.Mol(mol)
    trial.RemoveAllConformers()
    with BlockLogs():  # it complains about charged nitrogens, which the embedding handles well
        if rdDistGeom.EmbedMultipleConfs(trial, 1, parameters) and n > 1:
            rdDistGeom.EmbedMultipleConfs(trial, n, parameters)
    return trial


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


def minimised(mol: Chem.Mol) -> list[tuple[float, int]]:
    """Minimise the conformers in place; return MMFF94s energies, kcal/mol, and numbers: 0 without parameters."""
    numbers = [conformer.GetId() for conformer in mol.GetConformers()]
    if not numbers or not rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
        return [(0.0, number) for number in numbers]
    results = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol, maxIters=MAX_STEPS, mmffVariant="MMFF94s")
    return [(energy, number) for number, (_, energy) in zip(numbers, results, strict=True)]
