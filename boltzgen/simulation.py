"""The plain record of a simulation by replica exchange that storage, analysis and workflow share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from boltzgen.constants import thermal_energy


@dataclass(frozen=True)
class Simulation:
    """W independent ladders of T rising temperatures, F frames each, all after the burn-in.

    Attributes
    ----------
    temperatures
        ``(T,)`` K; the first is that of the run.
    positions
        ``(W, F, atoms, 3)`` nm, float32, at the first temperature.
    energies
        ``(W, F, T)`` kJ/mol, float32.
    torsions
        ``(W, F, T)`` radians, float32, by names as in ``Molecule.torsions``.
    kept
        ``(W, F, T)``, whether the frame has the configuration of the input: its cis, trans and stereocentres.
    shapes
        ``(W, F, T)``, the chart of each frame, which is the shape of its rings, from 0.
    first_time, interval
        ps from the start of the dynamics to the first frame of each ladder, and between frames.
    """

    temperatures: np.ndarray
    positions: np.ndarray
    energies: np.ndarray
    torsions: dict[str, np.ndarray]
    kept: np.ndarray
    shapes: np.ndarray
    first_time: float
    interval: float

    @property
    def n_ladders(self) -> int:
        """W."""
        return self.energies.shape[0]

    @property
    def n_frames(self) -> int:
        """W·F, the frames at one temperature."""
        return self.energies.shape[0] * self.energies.shape[1]

    @property
    def reduced_potentials(self) -> np.ndarray:
        """U/kT of the frames at the first temperature, ``(W, F)`` float64."""
        return self.energies[..., 0].astype(np.float64) / thermal_energy(float(self.temperatures[0]))

    @property
    def times(self) -> np.ndarray:
        """ps, ``(F,)``."""
        return self.first_time + self.interval * np.arange(self.energies.shape[1])
