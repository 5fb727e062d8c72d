"""Energies of one and two dimensions with several wells, and blocks of them; all in kT."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.integrate import quad
from torch import Tensor

from boltzgen.models.columns import Column, Line, OpenedCircle
from boltzgen.models.model import ModelCoordinates, ModelTarget, Separate


@dataclass(frozen=True)
class Wells:
    """n blocks u = a x⁴ + b x² + c x + ½ y², each of two wells in x: 2ⁿ modes. Configurations ``(n, 2, batch)``."""

    n: int
    a: float
    b: float
    c: float

    def energy(self, x: Tensor) -> Tensor:
        """The sum over blocks, ``(batch,)``."""
        s, y = x[:, 0], x[:, 1]
        return (self.a * s**4 + self.b * s**2 + self.c * s + 0.5 * y**2).sum(0)

    def target(self) -> ModelTarget:
        """Each x an opened circle, each y a line, a little off: its width has to be learnt."""
        columns: list[Column] = [OpenedCircle(0.0, math.sqrt(-self.b / (2.0 * self.a))), Line(0.1, 0.8)]
        return ModelTarget(self.energy, ModelCoordinates(columns * self.n, Separate((self.n, 2))))

    def log_z(self, beta: float = 1.0) -> float:
        """ln ∫ e^{−βu} over all blocks."""
        return self.n * (math.log(self._integral(beta)) + 0.5 * math.log(2.0 * math.pi / beta))

    def population(self, below: float) -> float:
        """P(x < below) in each block."""
        return self._integral(1.0, high=below) / self._integral(1.0)

    def mean(self, power: int) -> float:
        """⟨x^power⟩ in each block."""
        return self._integral(1.0, power) / self._integral(1.0)

    @property
    def mean_u(self) -> float:
        """⟨u⟩."""
        return self.n * (self.a * self.mean(4) + self.b * self.mean(2) + self.c * self.mean(1) + 0.5)

    def _integral(self, beta: float, power: int = 0, high: float = 6.0) -> float:
        def density(s: float) -> float:
            return s**power * math.exp(-beta * (self.a * s**4 + self.b * s**2 + self.c * s))

        return quad(density, -6.0, high, limit=500, epsabs=0.0, epsrel=1e-11)[0]


MUELLER_BROWN = np.array(
    [
        [-200.0, -1.0, 0.0, -10.0, 1.0, 0.0],
        [-100.0, -1.0, 0.0, -10.0, 0.0, 0.5],
        [-170.0, -6.5, 11.0, -6.5, -0.5, 1.5],
        [15.0, 0.7, 0.6, 0.7, -1.0, 1.0],
    ]
)
"""A, a, b, c, x₀, y₀ of each term A exp(a (x − x₀)² + b (x − x₀)(y − y₀) + c (y − y₀)²)."""


@dataclass(frozen=True)
class MuellerBrown:
    """The surface of Müller and Brown (Theor. Chim. Acta 53, 75 (1979)) at a thermal energy in its units."""

    thermal_energy: float

    def energy(self, x: Tensor) -> Tensor:
        """u of ``(1, 2, batch)``."""
        A, a, b, c, x0, y0 = (torch.as_tensor(k, dtype=x.dtype, device=x.device)[:, None] for k in MUELLER_BROWN.T)
        dx, dy = x[:, 0] - x0, x[:, 1] - y0
        return (A * (a * dx**2 + b * dx * dy + c * dy**2).exp()).sum(0) / self.thermal_energy

    def target(self) -> ModelTarget:
        """Both coordinates opened circles around the middle of the wells."""
        columns = [OpenedCircle(0.7, 0.8), OpenedCircle(-0.2, 0.8)]
        return ModelTarget(self.energy, ModelCoordinates(columns, Flipped()))

    def integrals(self, y_above: float = 0.8, spacing: float = 0.004) -> tuple[float, float, float]:
        """ln Z, ⟨u⟩ and P(y > y_above) by the trapezoidal rule on [−4, 4] × [−3, 5], outside which is nothing."""
        x, y = (
            torch.arange(low, high + 0.5 * spacing, spacing, dtype=torch.float64) for low, high in ((-4, 4), (-3, 5))
        )
        total = u_sum = above = 0.0
        lowest = self.energy(torch.tensor([[[-0.558], [1.442]]], dtype=torch.float64)).item()
        for row in y.split(100):
            u = self.energy(torch.stack([x.repeat(len(row)), row.repeat_interleave(len(x))])[None])
            p = (lowest - u).exp()
            side = torch.heaviside(row - y_above, row.new_tensor(0.5)).where((row - y_above).abs() > 1e-9, 0.5)
            total += p.sum().item()
            u_sum += torch.where(p > 0, p * u, 0.0).sum().item()
            above += (p * side.repeat_interleave(len(x))).sum().item()
        log_z = math.log(total * spacing**2) - lowest
        return log_z, u_sum / total, above / total


class Flipped(Separate):
    """The second coordinate first: y tells the wells of the surface apart, and x follows."""

    def __init__(self) -> None:
        super().__init__((1, 2))

    def place(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Reorder."""
        return super().place(values.flip(0))

    def read(self, x: Tensor) -> Tensor:
        """Reorder."""
        return super().read(x).flip(0)


@dataclass(frozen=True)
class Mixture:
    """Normal distributions in the plane: shares, centres, and one covariance of each; ln Z = 0."""

    shares: tuple[float, ...] = (0.5, 0.3, 0.15, 0.05)
    centres: tuple[tuple[float, float], ...] = ((0.0, 0.0), (3.0, 1.0), (-2.0, 3.0), (1.0, -3.0))
    widths: tuple[tuple[float, float], ...] = ((0.6, 0.3), (0.3, 0.5), (0.4, 0.4), (0.5, 0.25))
    correlations: tuple[float, ...] = (0.5, -0.7, 0.0, 0.3)

    def energy(self, x: Tensor) -> Tensor:
        """u = −ln Σ_k p_k N(x; μ_k, Σ_k) of ``(1, 2, batch)``."""
        p, centre, width, r = (
            torch.as_tensor(np.asarray(v), dtype=x.dtype, device=x.device)
            for v in (self.shares, self.centres, self.widths, self.correlations)
        )
        a, b = ((x[:, k] - centre[:, k, None]) / width[:, k, None] for k in (0, 1))
        r = r[:, None]
        exponent = -0.5 * (a**2 - 2.0 * r * a * b + b**2) / (1.0 - r**2)
        log_norm = p.log() - width.log().sum(1) - 0.5 * (1.0 - r[:, 0] ** 2).log() - math.log(2.0 * math.pi)
        return -torch.logsumexp(exponent + log_norm[:, None], dim=0)

    def target(self) -> ModelTarget:
        """Both coordinates opened circles."""
        return ModelTarget(self.energy, ModelCoordinates([OpenedCircle(0.0, 2.0)] * 2, Separate((1, 2))))

    @property
    def mean(self) -> ArrayLike:
        """⟨x⟩, ``(2,)``."""
        return np.asarray(self.shares) @ np.asarray(self.centres)
