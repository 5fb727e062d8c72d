"""Small energies whose answers are known, for tests of sampling: anything with ``evaluate`` is an energy."""

from __future__ import annotations

import math

import openmm
import torch
from torch import Tensor

from boltzgen.energy.potential import Evaluation


class Harmonic:
    """U = ½ Σ k x², ``k (atoms,)`` in kJ/mol/nm²."""

    def __init__(self, k: list[float]) -> None:
        self.k = torch.tensor(k, dtype=torch.float64)[:, None, None]

    def evaluate(self, x: Tensor, /) -> Evaluation:
        gradient = self.k.to(x.dtype) * x
        return Evaluation((0.5 * gradient * x).sum(dim=(0, 1)), gradient)


class DoubleWell:
    """One atom; U = h (x²/a² − 1)² + t x/a + ½ k (y² + z²), in kJ/mol and nm: two wells, the left one deeper."""

    height, tilt, a, k = 6.0, 1.5, 0.1, 1000.0

    def profile(self, x: Tensor) -> Tensor:
        return self.height * ((x / self.a) ** 2 - 1.0) ** 2 + self.tilt * x / self.a

    def evaluate(self, x: Tensor, /) -> Evaluation:
        first, rest = x[0, 0], x[0, 1:]
        slope = 4.0 * self.height * ((first / self.a) ** 2 - 1.0) * first / self.a**2 + self.tilt / self.a
        energy = self.profile(first) + 0.5 * self.k * rest.square().sum(0)
        return Evaluation(energy, torch.cat([slope[None], self.k * rest])[None])


class Wall(Harmonic):
    """A harmonic energy that cannot be computed where any coordinate exceeds ``edge`` nm."""

    def __init__(self, k: list[float], edge: float) -> None:
        super().__init__(k)
        self.edge = edge

    def evaluate(self, x: Tensor, /) -> Evaluation:
        energy, gradient = super().evaluate(x)
        beyond = ~(x <= self.edge).all(dim=0).all(dim=0)
        return Evaluation(energy.masked_fill(beyond, math.inf), gradient.masked_fill(beyond, 0.0))


TORSION = ((1, 2.5, 0.6), (3, 4.0, 0.0))
"""Periodicity, k in kJ/mol and phase in radians of the torsion of :func:`chain_system`."""


def chain_system() -> openmm.System:
    """Four atoms with harmonic bonds and angles, and one torsion, whose angle has density ∝ exp(−βU(φ)) exactly."""
    system = openmm.System()
    bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for _ in range(4):
        system.addParticle(12.0)
    for i in range(3):
        bonds.addBond(i, i + 1, 0.15, 5e4)
    for i in range(2):
        angles.addAngle(i, i + 1, i + 2, 1.95, 400.0)
    for periodicity, k, phase in TORSION:
        torsions.addTorsion(0, 1, 2, 3, periodicity, phase, k)
    for force in (bonds, angles, torsions):
        system.addForce(force)
    return system


CHAIN = [[0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.205, 0.139, 0.0], [0.355, 0.139, 0.02]]
"""A structure of the chain in nm, close to its minimum."""
