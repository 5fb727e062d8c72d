"""Tabulated functions of one to three arguments, as OpenMM defines them: splines and lookup tables."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class TabulatedFunction(nn.Module):
    """A function given by a table, called with one tensor per argument, all of shapes that broadcast."""

    arity: int

    @staticmethod
    def from_tree(tree: Mapping[str, Any], dtype: torch.dtype) -> TabulatedFunction:
        """Build from ``kind`` (``"discrete"`` or ``"continuous"``) and the arguments of that class."""
        if tree["kind"] == "discrete":
            return Discrete(tree["values"], dtype)
        return Continuous(tree["values"], tree["lower"], tree["upper"], bool(tree["periodic"]), dtype)


class Discrete(TabulatedFunction):
    """f(i, j, k) = table[i, j, k], each argument rounded to the nearest index and kept inside the table.

    ``values`` has one axis per argument. The gradient is zero. Halves round up.
    """

    values: Tensor

    def __init__(self, values: np.ndarray, dtype: torch.dtype) -> None:
        super().__init__()
        self.arity = np.ndim(values)
        self.register_buffer("values", _tensor(values, dtype))

    def forward(self, *arguments: Tensor) -> Tensor:
        """Look up, elementwise."""
        rounded = [torch.floor(t.detach() + 0.5).long() for t in arguments]
        index = [i.clamp(0, size - 1) for i, size in zip(rounded, self.values.shape, strict=True)]
        return _look_up(self.values, index)


class Continuous(TabulatedFunction):
    r"""Tensor-product cubic spline through evenly spaced points, zero outside their range.

    With t the argument in a cell of width h that starts at xₐ, u = (t − xₐ)/h, and the slopes f′ of the natural (or
    periodic) cubic spline through the points,

        f(t) = (1 + 2u)(1 − u)² fₐ + u(1 − u)² h f′ₐ + u²(3 − 2u) f_b − u²(1 − u) h f′_b

    in one dimension; in two and three the same basis is applied along each axis, with the mixed slopes ∂²f/∂x∂y and so
    on obtained by splines of slopes. ``values`` has one axis per argument, of at least two points (three if
    periodic); ``lower`` and ``upper``, one number per axis, are the first and last points. A periodic function takes
    every argument modulo its range, where its last value repeats its first.

    Twice continuously differentiable in one dimension, once across the cells in two and three; it jumps at the ends
    of its range unless it is zero there. This is the definition of OpenMM's ``Continuous{1,2,3}DFunction``.
    """

    lower: Tensor
    upper: Tensor
    slopes: Tensor

    def __init__(
        self, values: np.ndarray, lower: np.ndarray, upper: np.ndarray, periodic: bool, dtype: torch.dtype
    ) -> None:
        super().__init__()
        table = np.asarray(values, dtype=np.float64)
        self.arity = table.ndim
        self.periodic = periodic
        # All of them in units of the cell: then the basis needs no widths.
        mixed = []
        for orders in product((0, 1), repeat=table.ndim):
            slope = table
            for axis, order in enumerate(orders):
                slope = spline_slopes(slope, axis, periodic) if order else slope
            mixed.append(slope)
        self.register_buffer("slopes", _tensor(np.stack(mixed), dtype))
        self.register_buffer("lower", _tensor(lower, dtype))
        self.register_buffer("upper", _tensor(upper, dtype))

    def forward(self, *arguments: Tensor) -> Tensor:
        """Interpolate, elementwise."""
        outside = torch.zeros((), dtype=torch.bool, device=arguments[0].device)
        cells: list[Tensor] = []
        bases: list[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]] = []
        for axis, t in enumerate(torch.broadcast_tensors(*arguments)):
            n_cells = self.slopes.shape[1 + axis] - 1
            s = (t - self.lower[axis]) / (self.upper[axis] - self.lower[axis])
            if self.periodic:
                s = s - torch.floor(s.detach())
            else:
                outside = outside | (s < 0.0) | (s > 1.0)
                s = s.clamp(0.0, 1.0)
            s = s * n_cells
            cell = torch.floor(s.detach()).long().clamp(0, n_cells - 1)
            cells.append(cell)
            bases.append(_hermite(s - cell))
        value = torch.zeros((), dtype=self.slopes.dtype, device=arguments[0].device)
        for row, orders in enumerate(product((0, 1), repeat=self.arity)):
            for sides in product((0, 1), repeat=self.arity):
                index = [cell + side for cell, side in zip(cells, sides, strict=True)]
                term = _look_up(self.slopes[row], index)
                for basis, order, side in zip(bases, orders, sides, strict=True):
                    term = term * basis[order][side]
                value = value + term
        return torch.where(outside, torch.zeros_like(value), value)


def _look_up(table: Tensor, index: list[Tensor]) -> Tensor:
    """Entries of a table at one index per axis, of shapes that broadcast, also without an axis."""
    flat = index[0]
    for size, further in zip(table.shape[1:], index[1:], strict=True):
        flat = flat * size + further
    return table.reshape(-1).index_select(0, flat.reshape(-1)).reshape(flat.shape)


def _tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(np.array(array, dtype=np.float64)).to(dtype)


REACH = 40
"""Points whose values count for the slope of a spline at one point: the weight of the next is 1e-23."""


def spline_slopes(values: np.ndarray, axis: int, periodic: bool) -> np.ndarray:
    """Slopes at the points of the cubic spline along one axis, per cell: natural (f″ = 0 at the ends) or periodic.

    The spline solves m_{i−1} + 4 m_i + m_{i+1} = 3 d_i with d_i = f_{i+1} − f_{i−1}, on values continued periodically
    or, for the natural spline, by reflection at the end points. Hence m_i = Σ_k z^|k| 3 d_{i+k}/√12, z = √3 − 2, which
    a large value elsewhere in the table does not disturb.
    """
    f = np.moveaxis(values, axis, -1)
    if periodic:
        d = np.roll(f[..., :-1], -1, axis=-1) - np.roll(f[..., :-1], 1, axis=-1)
        continued = np.pad(d, [(0, 0)] * (f.ndim - 1) + [(REACH, REACH + 1)], mode="wrap")
    else:
        steps = np.diff(f, axis=-1)
        d = np.concatenate([2.0 * steps[..., :1], steps[..., 1:] + steps[..., :-1], 2.0 * steps[..., -1:]], axis=-1)
        continued = np.pad(d, [(0, 0)] * (f.ndim - 1) + [(REACH, REACH)], mode="reflect")
    weights = (np.sqrt(3.0) - 2.0) ** np.abs(np.arange(-REACH, REACH + 1)) * 3.0 / np.sqrt(12.0)
    slopes = np.lib.stride_tricks.sliding_window_view(continued, 2 * REACH + 1, axis=-1) @ weights
    return np.moveaxis(slopes, -1, axis)


def _hermite(u: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Weights of the values, then of the slopes, at the start and the end of a cell, u in [0, 1]."""
    v = 1.0 - u
    return (v * v * (1.0 + 2.0 * u), u * u * (3.0 - 2.0 * u)), (u * v * v, -u * u * v)
