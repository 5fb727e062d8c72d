"""A model as a target: an energy in kT, one map for each coordinate, and how these make a configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from boltzgen.models.columns import Column


class Arrangement(Protocol):
    """A bijection between the coordinates ``(n, batch)`` of the columns and ``(sites, components, batch)``."""

    @property
    def shape(self) -> tuple[int, int]:
        """Sites and components."""

    def place(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """A configuration, and ln |det| ``(batch,)``."""

    def read(self, x: Tensor) -> Tensor:
        """The coordinates of a configuration."""


@dataclass(frozen=True)
class Separate:
    """Each coordinate a component of a site."""

    shape: tuple[int, int]

    def place(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Reshape."""
        return values.unflatten(0, self.shape), values.new_zeros(values.shape[-1])

    def read(self, x: Tensor) -> Tensor:
        """Flatten."""
        return x.flatten(0, 1)


class ModelCoordinates:
    """One chart of circles and lines, in the order of the columns; nothing is symmetric."""

    levers = ()
    n_charts = 1

    def __init__(
        self,
        columns: Sequence[Column],
        arrangement: Arrangement,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.columns, self.arrangement, self.dtype, self.device = tuple(columns), arrangement, dtype, device
        self.n_torsions = sum(column.is_circle for column in columns)
        self.n_slow = self.n_torsions
        self.n_stiff = len(columns) - self.n_torsions

    @property
    def shape(self) -> tuple[int, int]:
        """Sites and components of a configuration."""
        return self.arrangement.shape

    @property
    def charts(self) -> tuple[ModelCoordinates]:
        """This one."""
        return (self,)

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> ModelCoordinates:
        """The same coordinates in another precision, on another device."""
        return ModelCoordinates(self.columns, self.arrangement, dtype, device)

    def to_cartesian(self, label: Tensor, torsions: Tensor, stiff: Tensor) -> tuple[Tensor, Tensor]:
        """Configurations ``(sites, components, batch)`` and ln |det| ``(batch,)``; there is one label."""
        circles, lines = iter(torsions.unbind(1)), iter(stiff.unbind(1))
        pairs = [column.value(next(circles if column.is_circle else lines)) for column in self.columns]
        values, log_slopes = (torch.stack(part) for part in zip(*pairs, strict=True))
        x, log_det = self.arrangement.place(values)
        return x, log_slopes.sum(0) + log_det

    def from_cartesian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Circles ``(batch, n_torsions)``, lines ``(batch, n_stiff)`` and ln |det| ``(batch,)``."""
        values = self.arrangement.read(x)
        latents = [column.inverse(value) for column, value in zip(self.columns, values, strict=True)]
        empty = values.new_empty(0, values.shape[-1])
        torsions, stiff = (
            torch.stack([z for z, column in zip(latents, self.columns, strict=True) if column.is_circle == circle])
            if count
            else empty
            for circle, count in ((True, self.n_torsions), (False, self.n_stiff))
        )
        torsions, stiff = torsions.T.contiguous(), stiff.T.contiguous()
        return torsions, stiff, self.to_cartesian(torch.zeros(len(torsions)), torsions, stiff)[1]

    def reaches(self, x: Tensor) -> Tensor:
        """Whether configurations lie in the support, ``(batch,)``."""
        return torch.isfinite(torch.cat([*self.from_cartesian(x)[:2]], dim=1)).all(1)

    def log_shares(self, x: Tensor) -> Tensor:
        """Of one chart, the whole: zeros ``(1, batch)``."""
        return x.new_zeros(1, x.shape[-1])

    def log_share(self, x: Tensor, label: Tensor) -> Tensor:
        """Of one chart, the whole: zeros ``(batch,)``."""
        return x.new_zeros(x.shape[-1])

    def random_images(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """No configuration has an image."""
        return x


class ModelTarget:
    """An energy in kT at a nominal temperature of 300 K: at another one it is multiplied by 300 K/T.

    ``energy`` takes configurations ``(sites, components, batch)`` to ``(batch,)``.
    """

    temperature = 300.0

    def __init__(self, energy: Callable[[Tensor], Tensor], coordinates: ModelCoordinates) -> None:
        self.energy, self.coordinates = energy, coordinates

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> ModelTarget:
        """The same target in another precision, on another device."""
        return ModelTarget(self.energy, self.coordinates.to(dtype, device))

    def reduced_potential(self, x: Tensor, temperature: float | None = None, softening: float | None = None) -> Tensor:
        """u ``(batch,)``; +inf where it is not a number. There are no pairs to soften."""
        u = self.energy(x) * (self.temperature / (temperature or self.temperature))
        return torch.nan_to_num(u, nan=math.inf, posinf=math.inf)
