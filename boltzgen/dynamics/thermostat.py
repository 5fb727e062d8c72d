"""Temperature in molecular dynamics: thermal velocities, and friction with noise that keeps them thermal.

Units: nm, ps, dalton, kJ/mol, K, in which 1 kJ/mol = 1 dalton nm²/ps²; time steps in fs. Arrays are
``(atoms, 3, batch)``. Temperatures are one number, or one per walker.
"""

from __future__ import annotations

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from boltzgen.constants import GAS_CONSTANT
from boltzgen.errors import InputError


def mass_column(masses: ArrayLike, like: Tensor) -> Tensor:
    """Masses in dalton as ``(atoms, 1, 1)``, of the type and device of ``like (atoms, 3, batch)``.

    Raises
    ------
    InputError
        If there is not one positive mass per atom.
    """
    column = torch.as_tensor(masses, dtype=like.dtype, device=like.device).reshape(-1, 1, 1)
    if column.shape[0] != like.shape[0] or not bool((column > 0).all()):
        raise InputError(f"{column.shape[0]} masses for {like.shape[0]} atoms, or one that is not positive.")
    return column


def maxwell_boltzmann(
    like: Tensor, masses: ArrayLike, temperature: float | Tensor, generator: torch.Generator
) -> Tensor:
    """Velocities in nm/ps of thermal equilibrium, each N(0, RT/m), in the shape of ``like (atoms, 3, batch)``."""
    spread = (GAS_CONSTANT * _temperatures(temperature, like) / mass_column(masses, like).double()).sqrt()
    noise = torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    return noise * spread.to(like.dtype)


class NormalNoise:
    """Standard normal numbers in a buffer of fixed shape, in half the time of ``Tensor.normal_`` or less.

    ξ = Φ⁻¹((i + ½)/65536)/s with i from 16 random bits and s such that the variance is one: 65,536 equally likely
    values within ±4.33, kurtosis 2.9992. It is meant for the kicks of a thermostat, of which a velocity sums about
    1/(γΔt); their sum is normal to more digits than any simulation resolves.
    """

    def __init__(self, like: Tensor, generator: torch.Generator) -> None:
        self.generator = generator
        quantiles = torch.special.ndtri((torch.arange(65536, dtype=torch.float64) + 0.5) / 65536)
        self.table = (quantiles / quantiles.square().mean().sqrt()).to(like.device, like.dtype)
        self.noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        n = like.numel()
        self._bits = torch.empty(-(-n // 4), dtype=torch.int64, device=like.device)
        self._index = torch.empty(n, dtype=torch.int32, device=like.device)

    def draw(self) -> Tensor:
        """Fill the buffer anew and return it."""
        self._bits.random_(-(2**63), None, generator=self.generator)
        self._index.copy_(self._bits.view(torch.uint16)[: self._index.numel()])
        torch.index_select(self.table, 0, self._index, out=self.noise.view(-1))
        return self.noise


class OrnsteinUhlenbeck:
    """The exact solution of friction and noise over one time step.

    v ← c v + √(1 − c²) √(RT/m) ξ with c = exp(−γΔt), friction γ in 1/ps, Δt in fs, ξ standard normal. The temperature
    may be set anew at any time.
    """

    def __init__(
        self,
        like: Tensor,
        masses: ArrayLike,
        temperature: float | Tensor,
        friction: float,
        timestep: float,
        generator: torch.Generator,
    ) -> None:
        if not (friction > 0 and timestep > 0):
            raise InputError(f"friction {friction:g} /ps and time step {timestep:g} fs must be positive.")
        exponent = friction * 1e-3 * timestep
        self.retained = math.exp(-exponent)
        # 1 − c² is about 2γΔt, often 1e-3: expm1 keeps its digits.
        self._spread = (-math.expm1(-2.0 * exponent) / mass_column(masses, like).double()).sqrt()
        self._noise = NormalNoise(like, generator)
        self.temperature = temperature

    @property
    def temperature(self) -> Tensor:
        """Temperatures in K, ``(1,)`` or ``(batch,)``, float64."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float | Tensor) -> None:
        noise = self._noise.noise
        self._temperature = _temperatures(value, noise)
        self._amplitude = (self._spread * (GAS_CONSTANT * self._temperature).sqrt()).to(noise.dtype)

    def apply(self, velocities: Tensor) -> None:
        """Advance velocities ``(atoms, 3, batch)`` by one time step, in place."""
        velocities.mul_(self.retained).addcmul_(self._noise.draw(), self._amplitude)


def _temperatures(value: float | Tensor, like: Tensor) -> Tensor:
    temperature = torch.as_tensor(value, dtype=torch.float64, device=like.device).reshape(-1)
    if temperature.numel() not in (1, like.shape[-1]) or not bool((temperature > 0).all()):
        raise InputError(
            f"{temperature.numel()} temperatures for {like.shape[-1]} walkers, or one that is not positive."
        )
    return temperature
