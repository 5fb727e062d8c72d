"""A synthetic dipeptide: five atoms whose (φ, ψ) come from a mixture with known target and proposal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import i0

from boltzgen.molecule import Molecule

CENTRES = np.radians([[-150, 155], [-70, 150], [-70, -30], [55, 40], [70, -50]])
CONCENTRATION = 12.0
TARGET = np.array([0.20, 0.35, 0.40, 0.04, 0.01])
PROPOSAL = np.array([0.25, 0.25, 0.30, 0.10, 0.10])


@dataclass(frozen=True)
class Ensemble:
    molecule: Molecule
    positions: np.ndarray
    log_w: np.ndarray
    reduced_potential: np.ndarray
    phi: np.ndarray
    psi: np.ndarray

    def target_density(self, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
        return density(phi, psi, TARGET)


def density(phi: np.ndarray, psi: np.ndarray, shares: np.ndarray) -> np.ndarray:
    exponent = CONCENTRATION * sum(
        np.cos(angle[:, None] - centre) for angle, centre in zip((phi, psi), CENTRES.T, strict=True)
    )
    return np.exp(exponent) @ shares / (2 * np.pi * i0(CONCENTRATION)) ** 2


def backbone(phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Positions (n, 5, 3) in nm of C, N, CA, C, N with the given torsions."""
    n = phi.size
    atoms = [np.tile(xyz, (n, 1)) for xyz in ([0.0, 0.0, 0.0], [0.133, 0.0, 0.0], [0.21, 0.12, 0.0])]
    for torsion, length, angle in ((phi, 0.152, 1.94), (psi, 0.133, 2.03)):
        axis = atoms[-1] - atoms[-2]
        axis /= np.linalg.norm(axis, axis=1, keepdims=True)
        normal = np.cross(atoms[-2] - atoms[-3], axis)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        local = length * np.stack(
            [
                np.full(n, -np.cos(angle)),
                np.sin(angle) * np.cos(torsion),
                np.sin(angle) * np.sin(torsion),
            ]
        )
        frame = np.stack([axis, np.cross(normal, axis), normal])
        atoms.append(atoms[-1] + np.einsum("kn,knd->nd", local, frame))
    return np.stack(atoms, axis=1)


@pytest.fixture(scope="session")
def ensemble() -> Ensemble:
    rng = np.random.default_rng(11)
    n = 20_000
    state = rng.choice(5, n, p=PROPOSAL)
    phi, psi = (rng.vonmises(centre[state], CONCENTRATION) for centre in CENTRES.T)
    noise = 0.3 * rng.normal(size=n)
    log_w = np.log(density(phi, psi, TARGET) / density(phi, psi, PROPOSAL)) + noise
    reduced_potential = -np.log(density(phi, psi, TARGET)) - noise
    log_w[:3], reduced_potential[:3] = -np.inf, np.inf
    molecule = Molecule(
        atomic_numbers=(6, 7, 6, 6, 7),
        masses=(12.0, 14.0, 12.0, 12.0, 14.0),
        atom_names=("C", "N", "CA", "C", "N"),
        residue_of_atom=(0, 1, 1, 1, 2),
        residue_names=("ACE", "ALA", "NME"),
        residue_numbers=(1, 2, 3),
        bonds=((0, 1), (1, 2), (2, 3), (3, 4)),
        rigid_bonds=(),
        planar_atoms=(),
        torsions={"phi:ALA2": (0, 1, 2, 3), "psi:ALA2": (1, 2, 3, 4)},
        smiles="",
        formula="C3N2",
        charge=0,
    )
    return Ensemble(molecule, backbone(phi, psi), log_w, reduced_potential, phi, psi)
