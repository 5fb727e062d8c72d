"""A reaction coordinate over which draws are to be spread evenly.

Source: Noé, Olsson, Köhler, Wu, Boltzmann generators, Science 365, eaaw1147 (2019), the loss "RC".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from boltzgen.coordinates.charts import wrap
from boltzgen.coordinates.internal import dihedral

N_BINS = 36
"""Places over the range at which the density is looked at; the kernel is as wide as they are apart."""


@dataclass(frozen=True)
class ReactionCoordinate:
    """A torsion of four atoms (radians) or a distance of two (nm), and the range to be filled."""

    atoms: tuple[int, ...]
    low: float
    high: float

    @property
    def is_circle(self) -> bool:
        """Whether the range is a whole turn of a torsion, which has no ends."""
        return len(self.atoms) == 4 and math.isclose(self.high - self.low, 2.0 * math.pi)

    def values(self, x: Tensor) -> Tensor:
        """The coordinate of positions ``(atoms, 3, batch)`` in nm, ``(batch,)``; a torsion within π of mid-range."""
        corners = [x[[atom]] for atom in self.atoms]
        if len(corners) == 2:
            return (corners[0] - corners[1])[0].norm(dim=0)
        middle = 0.5 * (self.low + self.high)
        return middle + wrap(dihedral(*corners)[0] - middle)


def spread_loss(values: Tensor, coordinate: ReactionCoordinate) -> Tensor:
    """KL of the density of ``values (batch,)`` in the range from the uniform one, Σ_b p_b ln(p_b B) ≥ 0; a scalar.

    p_b ∝ Σ_i exp(−(r_i − c_b)²/2h²) at the middles c_b of B bins of width h; on a circle 2(1 − cos) stands for the
    square, and at the ends of a range r_i is mirrored, so that in the limit of many values an even density has
    exactly zero. Values far outside the range do not count, and have no gradient.
    """
    low, high = coordinate.low, coordinate.high
    width = (high - low) / N_BINS
    middles = low + width * (torch.arange(N_BINS, device=values.device, dtype=values.dtype) + 0.5)
    if coordinate.is_circle:
        exponent = ((values[:, None] - middles).cos() - 1.0) / width**2
    else:
        inside = ((values >= low) & (values <= high))[:, None]
        images = [values, 2.0 * low - values, 2.0 * high - values]
        terms = [-0.5 * ((r[:, None] - middles) / width).square() for r in images]
        mirrored = [term.masked_fill(~inside, -math.inf) for term in terms[1:]]
        exponent = torch.cat([terms[0], *mirrored])
    log_p = torch.log_softmax(torch.logsumexp(exponent, dim=0), dim=0)
    return (log_p.exp() * (log_p + math.log(N_BINS))).sum()
