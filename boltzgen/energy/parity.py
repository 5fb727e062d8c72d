"""The check that a converted energy is the function that OpenMM evaluates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import openmm
import torch
from openmm import unit

from boltzgen.energy.openmm import OpenMMEnergy
from boltzgen.energy.potential import PotentialEnergy


@dataclass(frozen=True)
class Parity:
    """Largest deviations between torch and OpenMM Reference over jittered frames."""

    n_frames: int
    energy: float
    """max |ΔU| in kJ/mol, float64."""
    force: float
    """max |ΔF| in kJ/mol/nm, float64."""
    energy_float32: float
    """max |ΔU| in kJ/mol of the float32 evaluation used in training."""
    tolerance: float = 1e-4
    """kJ/mol, and tenfold in kJ/mol/nm; a missing or mistaken term is far above, rounding far below."""

    SINGLE_PRECISION: ClassVar[float] = 1e-2
    """The tolerance where OpenMM itself computes in single precision: 3e-4 kJ/mol was measured for 132 atoms."""

    @property
    def agrees(self) -> bool:
        """Whether both are the same function; NaN does not agree."""
        return self.energy < self.tolerance and self.force < 10.0 * self.tolerance


def openmm_energies(system: openmm.System, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies ``(n,)`` in kJ/mol and forces ``(n, atoms, 3)`` in kJ/mol/nm on OpenMM's Reference platform."""
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    energies, forces = [], []
    for frame in positions:
        context.setPositions(frame)
        state = context.getState(getEnergy=True, getForces=True)
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
        forces.append(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
    return np.asarray(energies), np.asarray(forces)


def check_parity(
    system: openmm.System,
    potential: PotentialEnergy,
    positions: np.ndarray,
    *,
    n_frames: int = 20,
    seed: int = 0,
) -> Parity:
    """Compare torch with OpenMM Reference on frames around a structure ``(atoms, 3)`` in nm.

    Frames are displaced by normal noise with standard deviations from 0 to 0.02 nm.
    """
    rng = np.random.default_rng(seed)
    width = np.linspace(0.0, 0.02, n_frames)[:, None, None]
    frames = positions[None] + width * rng.standard_normal((n_frames, *positions.shape))
    reference_energy, reference_force = openmm_energies(system, frames)
    energy, force = potential.energy_and_forces(torch.as_tensor(frames, dtype=torch.float64))
    single = PotentialEnergy.from_tree(potential.to_tree(), torch.float32)
    energy32 = single(torch.as_tensor(frames, dtype=torch.float32)).double()
    rounded = any(isinstance(term, OpenMMEnergy) and not term.is_double for term in potential.terms)
    return Parity(
        n_frames=n_frames,
        energy=float(np.abs(energy.numpy() - reference_energy).max()),
        force=float(np.abs(force.numpy() - reference_force).max()),
        energy_float32=float(np.abs(energy32.numpy() - reference_energy).max()),
        tolerance=Parity.SINGLE_PRECISION if rounded else Parity.tolerance,
    )
