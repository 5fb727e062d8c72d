"""Conversion of an OpenMM System to a torch potential."""

from __future__ import annotations

import openmm
import torch

from boltzgen.energy import convert_builtin, convert_gb
from boltzgen.energy.convert_builtin import Converter
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.energy.terms import Term
from boltzgen.errors import UnsupportedError

_CONVERTERS: dict[str, Converter] = {
    **convert_builtin.CONVERTERS,
    "GBSAOBCForce": convert_gb.convert_gbsa_obc,
    "CustomGBForce": convert_gb.convert_known_gb,
}


def from_openmm(system: openmm.System, dtype: torch.dtype = torch.float64) -> PotentialEnergy:
    """Convert an OpenMM System to a batched, differentiable torch energy.

    Forces known: HarmonicBond, HarmonicAngle, PeriodicTorsion, Nonbonded (NoCutoff), GBSAOBC, and the CustomGB of
    OpenMM's ``implicit/{hct,obc1,obc2,gbn,gbn2}.xml`` without salt.

    Raises
    ------
    UnsupportedError
        For constraints, virtual sites, periodic boxes, cutoffs or any other force; the message names it.
    """
    if system.getNumConstraints():
        raise UnsupportedError(
            f"the System has {system.getNumConstraints()} constraints. "
            "Build it with constraints=None and flexible water."
        )
    n = system.getNumParticles()
    if any(system.isVirtualSite(i) for i in range(n)):
        raise UnsupportedError("the System has virtual sites, which have no internal coordinates of their own.")
    if system.usesPeriodicBoundaryConditions():
        raise UnsupportedError("periodic boundary conditions are not supported: build the System without a box.")
    terms: list[Term] = []
    for force in system.getForces():
        if isinstance(force, openmm.CMMotionRemover):
            continue
        kind = type(force).__name__
        if kind not in _CONVERTERS:
            raise UnsupportedError(f"the System has a {kind}, which this version cannot convert.")
        terms.extend(_CONVERTERS[kind](force, n, dtype))
    return PotentialEnergy(terms)
