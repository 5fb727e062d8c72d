"""Conversion of OpenMM's built-in bonded and non-bonded forces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

from boltzgen.energy.bonded import HarmonicAngle, HarmonicBond, PeriodicTorsion, RBTorsion
from boltzgen.energy.cmap import CMAPTorsion
from boltzgen.energy.nonbonded import NonbondedPairs, ReactionField
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


def _rb_torsions(force: openmm.RBTorsionForce, n: int, dtype: torch.dtype) -> list[Term]:
    if not force.getNumTorsions():
        return []
    atoms, p = table(rows(force.getNumTorsions(), force.getTorsionParameters), 4)
    return [RBTorsion(n, dtype, atoms=atoms, coefficients=p)]


def _cmap_torsions(force: openmm.CMAPTorsionForce, n: int, dtype: torch.dtype) -> list[Term]:
    """One term for each size of grid; in OpenMM's grids the first torsion runs fastest."""
    torsions = np.asarray(rows(force.getNumTorsions(), force.getTorsionParameters), dtype=np.int64).reshape(-1, 9)
    maps = rows(force.getNumMaps(), force.getMapParameters)
    sizes = np.asarray([int(size) for size, _ in maps], dtype=np.int64)
    terms: list[Term] = []
    for size in np.unique(sizes[torsions[:, 0]]).tolist():
        same = np.flatnonzero(sizes == size)
        own = torsions[sizes[torsions[:, 0]] == size]
        grid = np.asarray([maps[k][1] for k in same]).reshape(-1, size, size).transpose(0, 2, 1).copy()
        terms.append(CMAPTorsion(n, dtype, atoms=own[:, 1:], map=np.searchsorted(same, own[:, 0]), grid=grid))
    return terms


def _nonbonded(force: openmm.NonbondedForce, n: int, dtype: torch.dtype) -> list[Term]:
    """All pairs by the combining rules, but exceptions as they are: those have neither cutoff nor reaction field."""
    method = force.getNonbondedMethod()
    if method not in (openmm.NonbondedForce.NoCutoff, openmm.NonbondedForce.CutoffNonPeriodic):
        raise UnsupportedError("the NonbondedForce is periodic. Build the System with nonbondedMethod=NoCutoff.")
    if not force.getIncludeDirectSpace():
        return []
    charge, sigma, epsilon = _particle_parameters(force).T
    excepted, special = _exceptions(force)
    i, j = np.triu_indices(n, 1)
    ordinary = np.ones((n, n), dtype=bool)
    ordinary[excepted[:, 0], excepted[:, 1]] = False
    i, j = i[ordinary[i, j]], j[ordinary[i, j]]
    combined = np.stack([charge[i] * charge[j], 0.5 * (sigma[i] + sigma[j]), np.sqrt(epsilon[i] * epsilon[j])], axis=1)
    pairs = np.stack([i, j], axis=1)
    if method == openmm.NonbondedForce.NoCutoff:
        return _pairs(NonbondedPairs, n, dtype, np.concatenate([pairs, excepted]), np.concatenate([combined, special]))
    cutoff = force.getCutoffDistance().value_in_unit(unit.nanometer)
    switching = (
        force.getSwitchingDistance().value_in_unit(unit.nanometer) if force.getUseSwitchingFunction() else cutoff
    )
    medium = {"cutoff": cutoff, "switching": switching, "dielectric": force.getReactionFieldDielectric()}
    return [
        *_pairs(ReactionField, n, dtype, pairs, combined, **medium),
        *_pairs(NonbondedPairs, n, dtype, excepted, special),
    ]


def _pairs(
    kind: type[Term], n: int, dtype: torch.dtype, pairs: np.ndarray, parameters: np.ndarray, **others: float
) -> list[Term]:
    """The pairs that interact, in ascending order."""
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, parameters = pairs[order], parameters[order]
    active = (parameters[:, 0] != 0.0) | (parameters[:, 2] != 0.0)
    if not active.any():
        return []
    qq, sigma, epsilon = parameters[active].T
    constants = {name: np.array([value]) for name, value in others.items()}
    return [kind(n, dtype, atoms=pairs[active], charge_product=qq, sigma=sigma, epsilon=epsilon, **constants)]


def _particle_parameters(force: openmm.NonbondedForce) -> np.ndarray:
    """Charge, σ and ε of every particle ``(n, 3)`` at the default values of the global parameters."""
    parameters = np.asarray(rows(force.getNumParticles(), force.getParticleParameters))
    for offset in range(force.getNumParticleParameterOffsets()):
        name, particle, *scales = force.getParticleParameterOffset(offset)
        parameters[particle] += _default(force, name) * np.asarray(scales)
    return parameters


def _exceptions(force: openmm.NonbondedForce) -> tuple[np.ndarray, np.ndarray]:
    """Excepted pairs ``(m, 2)``, lower index first, and their charge product, σ and ε ``(m, 3)`` at the defaults."""
    table = np.asarray(rows(force.getNumExceptions(), force.getExceptionParameters), dtype=np.float64).reshape(-1, 5)
    for offset in range(force.getNumExceptionParameterOffsets()):
        name, exception, *scales = force.getExceptionParameterOffset(offset)
        table[exception, 2:] += _default(force, name) * np.asarray(scales)
    return np.sort(table[:, :2].astype(np.int64), axis=1), table[:, 2:]


def _default(force: openmm.NonbondedForce, name: str) -> float:
    names = [force.getGlobalParameterName(index) for index in range(force.getNumGlobalParameters())]
    return force.getGlobalParameterDefaultValue(names.index(name))


CONVERTERS: dict[str, Converter] = {
    "HarmonicBondForce": _bonds,
    "HarmonicAngleForce": _angles,
    "PeriodicTorsionForce": _torsions,
    "RBTorsionForce": _rb_torsions,
    "CMAPTorsionForce": _cmap_torsions,
    "NonbondedForce": _nonbonded,
}
