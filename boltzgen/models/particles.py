"""Two Lennard-Jones particles: the vector between them within a sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.integrate import quad
from torch import Tensor

from boltzgen.models.columns import Angle, Column, Interval
from boltzgen.models.model import ModelCoordinates, ModelTarget

CUTOFF = 3.0
"""Largest distance, in σ."""


class Spherical:
    """(r, cos θ, φ) ↔ one vector, with the volume element r² dr dcos θ dφ."""

    shape = (1, 3)

    def place(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The vector."""
        r, cosine, phi = values
        rho = r * ((1.0 - cosine) * (1.0 + cosine)).sqrt()
        return torch.stack([rho * phi.cos(), rho * phi.sin(), r * cosine])[None], 2.0 * r.log()

    def read(self, x: Tensor) -> Tensor:
        """Its spherical coordinates."""
        r = x[0].norm(dim=0)
        return torch.stack([r, x[0, 2] / r, torch.atan2(x[0, 1], x[0, 0])])


@dataclass(frozen=True)
class SquareWellPair:
    """E = ∞ for r < 1, −ε up to ``reach``, else 0 up to :data:`CUTOFF`; ``depth`` = ε/kT."""

    depth: float
    reach: float = 1.8

    def energy(self, x: Tensor) -> Tensor:
        """E/kT of vectors ``(1, 3, batch)``."""
        r = x[0].norm(dim=0)
        inside = torch.where(r < self.reach, -self.depth, 0.0).to(r.dtype)
        return torch.where(r < 1.0, math.inf, inside)

    def target(self) -> ModelTarget:
        """Circles alone, as of the other pair."""
        columns: list[Column] = [Interval(0.0, CUTOFF), Interval(-1.0, 1.0), Angle()]
        return ModelTarget(self.energy, ModelCoordinates(columns, Spherical()))

    def volumes(self) -> tuple[float, float]:
        """Those of the well and of what is beyond, in σ³."""
        return 4.0 / 3.0 * math.pi * (self.reach**3 - 1.0), 4.0 / 3.0 * math.pi * (CUTOFF**3 - self.reach**3)

    def log_z(self, beta: float = 1.0) -> float:
        """ln of the volumes with their Boltzmann factors."""
        well, beyond = self.volumes()
        return math.log(well * math.exp(beta * self.depth) + beyond)

    @property
    def bound(self) -> float:
        """P(r < reach)."""
        return self.volumes()[0] * math.exp(self.depth - self.log_z())


@dataclass(frozen=True)
class LennardJonesPair:
    """E = 4ε (r⁻¹² − r⁻⁶) with r in σ, at a temperature T* = kT/ε, within :data:`CUTOFF`."""

    temperature: float

    def energy(self, x: Tensor) -> Tensor:
        """E/kT of vectors ``(1, 3, batch)``."""
        s6 = x[0].square().sum(0) ** -3
        return 4.0 * (s6 * s6 - s6) / self.temperature

    def target(self) -> ModelTarget:
        """Circles alone."""
        columns: list[Column] = [Interval(0.0, CUTOFF), Interval(-1.0, 1.0), Angle()]
        return ModelTarget(self.energy, ModelCoordinates(columns, Spherical()))

    def integral(self, power: int = 0, beta: float = 1.0) -> float:
        """4π ∫ r² rᵖ e^{−βu} dr."""

        def density(r: float) -> float:
            s6 = r**-6
            return r ** (2 + power) * math.exp(-beta * 4.0 * (s6 * s6 - s6) / self.temperature)

        return 4.0 * math.pi * quad(density, 0.3, CUTOFF, points=[1.0, 1.2], limit=500, epsrel=1e-11)[0]
