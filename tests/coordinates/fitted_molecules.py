"""Molecules from SMILES with MMFF94s and fitted coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from boltzgen.chemistry.mmff import build_mmff_system
from boltzgen.chemistry.perception import planar_atoms, rigid_bonds
from boltzgen.constants import thermal_energy
from boltzgen.coordinates.fitting import Fitted, fit_coordinates
from boltzgen.coordinates.molecular import MolecularCoordinates
from boltzgen.coordinates.zmatrix import ZMatrix, build_zmatrix
from boltzgen.dynamics.minimise import minimise
from boltzgen.energy import from_openmm
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.molecule import Molecule
from boltzgen.target import Target

THERMAL_ENERGY = thermal_energy(300.0)


@dataclass(frozen=True)
class Case:
    """A molecule with coordinates."""

    mol: Chem.Mol
    potential: PotentialEnergy
    fitted: Fitted

    @property
    def coordinates(self) -> MolecularCoordinates:
        """The chart of the lowest basin."""
        return self.fitted.coordinates.charts[0]

    @property
    def conformer(self) -> torch.Tensor:
        """The lowest minimum, ``(atoms, 3, 1)``."""
        return torch.as_tensor(self.fitted.conformers[0])[..., None]

    def latent(self, n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Uniform torsions and standard normal stiff coordinates."""
        generator = torch.Generator().manual_seed(seed)
        circles = torch.rand(n, self.coordinates.n_torsions, generator=generator, dtype=torch.float64)
        stiff = torch.randn(n, self.coordinates.n_stiff, generator=generator, dtype=torch.float64)
        return 2.0 * math.pi * circles - math.pi, stiff


@cache
def embedded(smiles: str) -> Chem.Mol:
    """All hydrogens and one conformer."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=7) == 0
    return mol


def zmatrix_of(mol: Chem.Mol, with_positions: bool = True) -> ZMatrix:
    numbers = tuple(atom.GetAtomicNum() for atom in mol.GetAtoms())
    bonds = tuple((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds())
    positions = positions_of(mol) if with_positions else None
    return build_zmatrix(numbers, bonds, rigid_bonds(mol, planar_atoms(mol)), positions)


def positions_of(mol: Chem.Mol) -> np.ndarray:
    return 0.1 * mol.GetConformer().GetPositions()


@cache
def case(smiles: str, n_conformers: int = 2) -> Case:
    mol = embedded(smiles)
    potential = from_openmm(build_mmff_system(mol))
    fitted = fit_coordinates(
        zmatrix_of(mol),
        positions_of(mol),
        lambda x: potential.batch_last(x, 200.0) / THERMAL_ENERGY,
        planar_atoms(mol),
        n_conformers=n_conformers,
    )
    return Case(mol, potential, fitted)


def mirrored(mol: Chem.Mol) -> np.ndarray:
    """The mirror image of an achiral ring, hydrogens of each CH2 exchanged: another pucker of the same labelling."""
    x = positions_of(mol) * [1.0, 1.0, -1.0]
    for atom in mol.GetAtoms():
        hydrogens = [n.GetIdx() for n in atom.GetNeighbors() if n.GetAtomicNum() == 1]
        if len(hydrogens) == 2:
            x[hydrogens] = x[hydrogens[::-1]]
    return x


@cache
def two_puckers(smiles: str) -> Target:
    """A ring with two puckers that are mirror images: charts that overlap for four atoms, and do not for six."""
    mol = embedded(smiles)
    potential = from_openmm(build_mmff_system(mol))
    starts = torch.as_tensor(np.stack([positions_of(mol), mirrored(mol)])).permute(1, 2, 0).contiguous()
    fitted = fit_coordinates(
        zmatrix_of(mol),
        positions_of(mol),
        lambda x: potential.batch_last(x, 200.0) / THERMAL_ENERGY,
        planar_atoms(mol),
        conformers=minimise(potential, starts).positions.permute(2, 0, 1).numpy(),
        n_conformers=1,
    )
    numbers = tuple(atom.GetAtomicNum() for atom in mol.GetAtoms())
    n = len(numbers)
    molecule = Molecule(numbers, (12.0,) * n, ("X",) * n, (0,) * n, ("MOL",), (1,), (), (), (), {}, "", "", 0)
    return Target(molecule, potential, fitted.coordinates, 300.0)
