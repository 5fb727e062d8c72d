"""Maps of one latent coordinate, a circle or a line, to one coordinate of a model.

A line on which the density has several modes cannot be learnt as a line, whose maps in the flow are monotone and nearly
linear. It is a circle instead, which a smooth bijection opens at ±π: the splines of circles hold any number of modes,
and a density that falls off fast enough at infinity is smooth, and zero, where the circle closes.

Every map takes ``(batch,)`` to a value and ln |slope|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from boltzgen.coordinates.charts import wrap


@dataclass(frozen=True)
class Angle:
    """A circle as it is, in [−π, π)."""

    is_circle = True

    def value(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """φ = z."""
        return z, torch.zeros_like(z)

    def inverse(self, x: Tensor) -> Tensor:
        """z = φ, wrapped."""
        return wrap(x)


@dataclass(frozen=True)
class OpenedCircle:
    """x = c + s tan(z/2): half of an even circle lies within s of c."""

    centre: float
    scale: float
    is_circle = True

    def value(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The image of the open circle, the whole line."""
        half = 0.5 * z
        return self.centre + self.scale * half.tan(), math.log(0.5 * self.scale) - 2.0 * half.cos().abs().log()

    def inverse(self, x: Tensor) -> Tensor:
        """z = 2 arctan((x − c)/s)."""
        return 2.0 * torch.atan((x - self.centre) / self.scale)


@dataclass(frozen=True)
class Interval:
    """x = (a + b)/2 + (b − a)/2 · sin(z/2): the density on the circle is zero where the ends of the interval meet."""

    low: float
    high: float
    is_circle = True

    def value(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The image of the open circle, the open interval."""
        half, width = 0.5 * z, self.high - self.low
        log_slope = half.cos().abs().log() + math.log(0.25 * width)
        return self.low + 0.5 * width * (1.0 + half.sin()), log_slope

    def inverse(self, x: Tensor) -> Tensor:
        """z = 2 arcsin((2x − a − b)/(b − a))."""
        return 2.0 * torch.asin((2.0 * x - self.low - self.high) / (self.high - self.low))


@dataclass(frozen=True)
class Line:
    """x = c + s z: a coordinate that is nearly normal given the circles, with mean c and width s."""

    centre: float
    scale: float
    is_circle = False

    def value(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The image of the line."""
        return self.centre + self.scale * z, torch.full_like(z, math.log(self.scale))

    def inverse(self, x: Tensor) -> Tensor:
        """z = (x − c)/s."""
        return (x - self.centre) / self.scale


Column = Angle | OpenedCircle | Interval | Line
