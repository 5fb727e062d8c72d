"""Configurations that dynamics at high temperatures leaves."""

from __future__ import annotations

import numpy as np
import torch

from boltzgen.coordinates.configuration import Configuration


def turned(positions, molecule, i, j, degrees):
    """Positions ``(atoms, 3)`` with everything behind the bond i–j turned about it."""
    neighbours = {
        a: [*(q for p, q in molecule.bonds if p == a), *(p for p, q in molecule.bonds if q == a)]
        for a in range(molecule.n_atoms)
    }
    behind, queue = {j}, [j]
    while queue:
        for b in neighbours[queue.pop()]:
            if b not in behind and b != i:
                behind.add(b)
                queue.append(b)
    axis = (positions[j] - positions[i]) / np.linalg.norm(positions[j] - positions[i])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.deg2rad(degrees)
    rotation = np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
    moved = positions.copy()
    rows = sorted(behind)
    moved[rows] = (positions[rows] - positions[i]) @ rotation.T + positions[i]
    return moved


def kept(configuration, *structures):
    return configuration.is_kept(torch.as_tensor(np.stack(structures, axis=-1))).tolist()


def test_amides_and_stereocentres_are_held_and_nothing_else(dipeptide):
    molecule, x = dipeptide.molecule, dipeptide.positions
    configuration = Configuration(molecule, x)
    omega, phi = molecule.torsions["omega:ALA2"], molecule.torsions["phi:ALA2"]
    assert kept(configuration, x, turned(x, molecule, omega[1], omega[2], 60.0)) == [True, True]
    assert kept(configuration, turned(x, molecule, omega[1], omega[2], 180.0), -x) == [False, False]
    assert kept(configuration, turned(x, molecule, phi[1], phi[2], 120.0)) == [True]
    assert configuration.is_kept(torch.as_tensor(x, dtype=torch.float32)[..., None]).tolist() == [True]


def test_exchanging_equal_atoms_is_no_change_and_a_molecule_may_hold_nothing():
    from boltzgen.chemistry.build import build
    from boltzgen.chemistry.read import read_input

    acetamide = build(read_input(smiles="CC(=O)N"))
    molecule, x = acetamide.molecule, acetamide.positions
    carbon, nitrogen = next(pair for pair in molecule.rigid_bonds)
    if molecule.atomic_numbers[carbon] == 8 or molecule.atomic_numbers[nitrogen] == 8:
        carbon, nitrogen = molecule.rigid_bonds[1]
    assert kept(Configuration(molecule, x), x, turned(x, molecule, carbon, nitrogen, 180.0)) == [True, True]
