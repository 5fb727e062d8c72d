"""What a generator needs to know of the coordinates of any system, molecular or model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import torch
from torch import Tensor


class CoordinateChart(Protocol):
    """One chart: configurations ``(sites, components, batch)`` in its support → circles and lines."""

    def reaches(self, x: Tensor) -> Tensor:
        """Whether configurations, in any equivalent labelling, lie in the support, ``(batch,)``."""

    def from_cartesian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Circles, lines and ln |det ∂x/∂(circles, lines)| ``(batch,)``."""


class Coordinates(Protocol):
    """A label, circles and lines ↔ configurations ``(sites, components, batch)``: atoms and x, y, z of a molecule.

    Circles ``(batch, n_torsions)`` are slow, the first ``n_slow`` of them perhaps with many modes, the others
    symmetric; lines ``(batch, n_stiff)`` are nearly standard normal given them at the temperature of the target. The
    volume element is that of the system: of a molecule without rigid motion.
    """

    @property
    def n_torsions(self) -> int:
        """Number of circles."""

    @property
    def n_slow(self) -> int:
        """Number of circles, the first ones, that challengers lead and draws broaden; the others are symmetric."""

    @property
    def levers(self) -> tuple[int, ...]:
        """Lines whose width depends much on the circles; if there are any, all lines are centred by relaxation."""

    @property
    def n_stiff(self) -> int:
        """Number of lines."""

    @property
    def n_charts(self) -> int:
        """Number of charts."""

    @property
    def charts(self) -> Sequence[CoordinateChart]:
        """The charts by label."""

    @property
    def shape(self) -> tuple[int, int]:
        """Sites and components of a configuration."""

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Self:
        """The same coordinates in another precision, on another device."""

    def to_cartesian(self, label: Tensor, torsions: Tensor, stiff: Tensor) -> tuple[Tensor, Tensor]:
        """Configurations and ln |det ∂x/∂(circles, lines)| ``(batch,)``, by the charts of labels ``(batch,)``."""

    def log_shares(self, x: Tensor) -> Tensor:
        """ln r_k(x) of a smooth partition of unity among the charts, ``(n_charts, batch)``."""

    def log_share(self, x: Tensor, label: Tensor) -> Tensor:
        """ln r_k(x) of the chart ``label (batch,)`` that made x, among the charts that can make it; ``(batch,)``."""

    def random_images(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Each configuration in one of its equivalent labellings, all with equal probability."""
