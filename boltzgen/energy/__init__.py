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
from boltzgen.energy import bonded, nonbonded, solvent  # noqa: F401
from boltzgen.energy.potential import PotentialEnergy

if TYPE_CHECKING:
    import openmm

__all__ = ["PotentialEnergy", "from_openmm"]


def from_openmm(system: openmm.System, dtype: torch.dtype = torch.float64) -> PotentialEnergy:
    """Convert an OpenMM System, see :func:`boltzgen.energy.convert.from_openmm`; imports OpenMM only when called."""
    from boltzgen.energy.convert import from_openmm as convert

    return convert(system, dtype)
