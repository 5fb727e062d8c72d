"""The ring of classical XY spins: E/kT = −K Σ cos(φ_i − φ_{i+1}), closed. ln Z from the transfer matrix."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import ive
from torch import Tensor

from boltzgen.coordinates.charts import wrap
from boltzgen.models.columns import Angle
from boltzgen.models.model import ModelCoordinates, ModelTarget

ORDERS = np.arange(-60, 61)
"""Fourier components of e^{K cos φ} that are summed: far more than count up to K = 20."""


class Turns:
    """φ_i = δ_0 + … + δ_i modulo 2π: the first angle, and the turns from each to the next. Volume is kept."""

    def __init__(self, n: int) -> None:
        self.shape = (n, 1)

    def place(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Angles in [−π, π)."""
        return wrap(values.cumsum(0))[:, None], values.new_zeros(values.shape[-1])

    def read(self, x: Tensor) -> Tensor:
        """Turns in [−π, π)."""
        angles = x[:, 0]
        return torch.cat([angles[:1], wrap(angles.diff(dim=0))])


class XYRing:
    """N spins with coupling K = J/kT."""

    def __init__(self, n: int, coupling: float) -> None:
        self.n, self.coupling = n, coupling

    def energy(self, x: Tensor) -> Tensor:
        """E/kT of angles ``(n, 1, batch)``."""
        angles = x[:, 0]
        return -self.coupling * (angles - angles.roll(1, dims=0)).cos().sum(0)

    def target(self) -> ModelTarget:
        """Circles alone."""
        return ModelTarget(self.energy, ModelCoordinates([Angle()] * self.n, Turns(self.n)))

    def log_z(self, coupling: float | None = None) -> float:
        """ln (2π)^N Σ_m I_m(K)^N."""
        coupling = self.coupling if coupling is None else coupling
        scaled = np.sum(ive(ORDERS, coupling) ** self.n)  # of e^{−K} I_m(K)
        return self.n * (math.log(2.0 * math.pi) + coupling) + math.log(scaled)

    def mean_cosine(self, distance: int) -> float:
        """⟨cos(φ_0 − φ_d)⟩ = Σ_m I_m^{N−d} I_{m+1}^d / Σ_m I_m^N."""
        K, N = self.coupling, self.n
        over = np.sum(ive(ORDERS, K) ** (N - distance) * ive(ORDERS + 1, K) ** distance)
        return float(over / np.sum(ive(ORDERS, K) ** N))
