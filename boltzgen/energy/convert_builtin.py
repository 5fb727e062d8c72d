"""Conversion of OpenMM's built-in bonded and non-bonded forces."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

from boltzgen.energy.bonded import HarmonicAngle, HarmonicBond, PeriodicTorsion
from boltzgen.energy.nonbonded import NonbondedPairs
from boltzgen.energy.terms import Term
from boltzgen.errors import UnsupportedError

Converter = Callable[[Any, int, torch.dtype], list[Term]]
"""From a force, the number of atoms and a precision to the terms that have its energy."""


def rows(count: int, get: Callable[[int], Any]) -> list[list[float]]:
    """Parameters of all interactions of a force in OpenMM's unit system (nm, kJ/mol, radian, e)."""
    system = unit.md_unit_system
    return [
        [v.value_in_unit_system(system) if unit.is_quantity(v) else v for v in get(index)] for index in range(count)
    ]


def table(rows: list[list[float]], n_index: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into atom indices ``(m, n_index)`` and parameters ``(m, ...)``."""
    array = np.asarray(rows, dtype=np.float64)
    return array[:, :n_index].astype(np.int64), array[:, n_index:]


def _bonds(force: openmm.HarmonicBondForce, n: int, dtype: torch.dtype) -> list[Term]:
    if not force.getNumBonds():
        return []
    atoms, p = table(rows(force.getNumBonds(), force.getBondParameters), 2)
    return [HarmonicBond(n, dtype, atoms=atoms, length=p[:, 0], k=p[:, 1])]


def _angles(force: openmm.HarmonicAngleForce, n: int, dtype: torch.dtype) -> list[Term]:
    if not force.getNumAngles():
        return []
    atoms, p = table(rows(force.getNumAngles(), force.getAngleParameters), 3)
    return [HarmonicAngle(n, dtype, atoms=atoms, angle=p[:, 0], k=p[:, 1])]


def _torsions(force: openmm.PeriodicTorsionForce, n: int, dtype: torch.dtype) -> list[Term]:
    if not force.getNumTorsions():
        return []
    atoms, p = table(rows(force.getNumTorsions(), force.getTorsionParameters), 4)
    used = p[:, 2] != 0.0
    if not used.any():
        return []
    atoms, p = atoms[used], p[used]
    return [PeriodicTorsion(n, dtype, atoms=atoms, periodicity=p[:, 0], phase=p[:, 1], k=p[:, 2])]


def _nonbonded(force: openmm.NonbondedForce, n: int, dtype: torch.dtype) -> list[Term]:
    if force.getNonbondedMethod() != openmm.NonbondedForce.NoCutoff:
        raise UnsupportedError("the NonbondedForce has a cutoff. Build the System with nonbondedMethod=NoCutoff.")
    if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
        raise UnsupportedError("the NonbondedForce has parameter offsets, which this version cannot convert.")
    charge, sigma, epsilon = np.asarray(rows(n, force.getParticleParameters)).T
    i, j = np.asarray(list(combinations(range(n), 2)), dtype=np.int64).reshape(-1, 2).T
    table = np.stack([charge[i] * charge[j], 0.5 * (sigma[i] + sigma[j]), np.sqrt(epsilon[i] * epsilon[j])], axis=1)
    row_of = {pair: row for row, pair in enumerate(zip(i.tolist(), j.tolist(), strict=True))}
    for a, b, *parameters in rows(force.getNumExceptions(), force.getExceptionParameters):
        table[row_of[min(int(a), int(b)), max(int(a), int(b))]] = parameters
    active = (table[:, 0] != 0.0) | (table[:, 2] != 0.0)
    if not active.any():
        return []
    qq, s, e = table[active].T
    pairs = np.stack([i, j], axis=1)[active]
    return [NonbondedPairs(n, dtype, atoms=pairs, charge_product=qq, sigma=s, epsilon=e)]


CONVERTERS: dict[str, Converter] = {
    "HarmonicBondForce": _bonds,
    "HarmonicAngleForce": _angles,
    "PeriodicTorsionForce": _torsions,
    "NonbondedForce": _nonbonded,
}
