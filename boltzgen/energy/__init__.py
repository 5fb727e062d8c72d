"""From an OpenMM System to a batched, differentiable torch energy.

::

    potential = boltzgen.energy.from_openmm(system)
    energies = potential(positions)                       # (batch, atoms, 3) nm -> (batch,) kJ/mol
    energies, forces = potential.energy_and_forces(positions)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

# Imported so that a stored potential finds its terms by name.
from boltzgen.energy import (  # noqa: F401
    bonded,
    cmap,
    custom_bonded,
    custom_gb,
    custom_nonbonded,
    mmff,
    nonbonded,
    solvent,
)
from boltzgen.energy.openmm import OpenMMEnergy
from boltzgen.energy.potential import PotentialEnergy

if TYPE_CHECKING:
    from openmm import System

__all__ = ["OpenMMEnergy", "PotentialEnergy", "from_openmm"]


def from_openmm(system: System, dtype: torch.dtype = torch.float64, *, fallback: bool = False) -> PotentialEnergy:
    """Convert an OpenMM System, see :func:`boltzgen.energy.convert.from_openmm`; imports OpenMM only when called."""
    from boltzgen.energy.convert import from_openmm as convert

    return convert(system, dtype, fallback=fallback)
