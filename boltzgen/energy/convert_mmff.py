"""Recognition of MMFF's custom forces: by the exact text of their expressions and the names of their parameters."""

from __future__ import annotations

import numpy as np
import openmm
import torch

from boltzgen.energy.mmff import (
    MMFFAngle,
    MMFFBond,
    MMFFLinearAngle,
    MMFFNonbonded,
    MMFFOutOfPlane,
    MMFFStretchBend,
    MMFFTorsion,
)
from boltzgen.energy.mmff_expressions import FORMS, CustomForm
from boltzgen.energy.terms import Term

_TERMS = {
    FORMS[term.__name__]: term
    for term in (
        MMFFBond,
        MMFFAngle,
        MMFFLinearAngle,
        MMFFStretchBend,
        MMFFOutOfPlane,
        MMFFTorsion,
        MMFFNonbonded,
    )
}

_INTERACTION = {
    "CustomBondForce": "Bond",
    "CustomAngleForce": "Angle",
    "CustomTorsionForce": "Torsion",
    "CustomCompoundBondForce": "Bond",
}
"""What OpenMM calls one interaction of a force in the names of its methods."""


def recognise(force: openmm.Force, n: int, dtype: torch.dtype) -> list[Term] | None:
    """Return the MMFF term of a force, no terms for a force without interactions, or None if it is no MMFF force."""
    form = _form(force)
    if form not in _TERMS or force.usesPeriodicBoundaryConditions():
        return None
    atoms, values = _interactions(force)
    if not len(atoms):
        return []
    return [_TERMS[form](n, dtype, atoms=atoms, **dict(zip(form.parameters, values.T, strict=True)))]


def _form(force: openmm.Force) -> CustomForm | None:
    kind = type(force).__name__
    if kind not in _INTERACTION:
        return None
    interaction = _INTERACTION[kind]
    if kind == "CustomCompoundBondForce":
        n_atoms = force.getNumParticlesPerBond()
    else:
        n_atoms = {"Bond": 2, "Angle": 3, "Torsion": 4}[interaction]
    count = getattr(force, f"getNumPer{interaction}Parameters")()
    name_of = getattr(force, f"getPer{interaction}ParameterName")
    return CustomForm(kind, n_atoms, force.getEnergyFunction(), tuple(name_of(index) for index in range(count)))


def _interactions(force: openmm.Force) -> tuple[np.ndarray, np.ndarray]:
    """Atoms ``(m, n_atoms)`` and parameters ``(m, n_parameters)`` in OpenMM's units."""
    interaction = _INTERACTION[type(force).__name__]
    get = getattr(force, f"get{interaction}Parameters")
    rows = [get(index) for index in range(getattr(force, f"getNum{interaction}s")())]
    if isinstance(force, openmm.CustomCompoundBondForce):
        atoms = [list(particles) for particles, _ in rows]
    else:
        atoms = [row[:-1] for row in rows]
    return np.asarray(atoms, dtype=np.int64), np.asarray([row[-1] for row in rows], dtype=np.float64)
