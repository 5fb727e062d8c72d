"""Stiff coordinates of least energy, given the slow ones: where their conditional density has its centre.

A network that has seen few torsions cannot tell where a clash or a contact pushes the stiff coordinates; the energy
can, at any torsions. A fixed number of evaluations of the energy and its gradient leads there from the centre of the
whitening. The result is a function of the slow coordinates like any other: a density around it is exact however far
the search has come.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Self

import torch
from torch import Tensor

from boltzgen.target import AnyTarget

PAIR_SOFTENING = 500.0
"""kJ/mol above which a non-bonded pair grows only logarithmically: atoms in a clash are still told the way out."""

MEMORY = 5
"""Pairs of steps and changes of gradient from which the curvature is known."""

FIRST_STEP = 0.5
"""Share of the gradient that is gone before the curvature is known; whitened coordinates have curvatures about one."""

LONGEST_STEP = 2.0
"""In whitened units."""

BACKTRACK = 0.25

HOPELESS = 1e30
"""Reduced potential that stands for one that cannot be computed."""

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points ``(n, d)`` → values ``(n,)`` and gradients ``(n, d)``."""


class Relaxation:
    """Relaxes stiff coordinates on a target, in any precision, and counts what it evaluates."""

    def __init__(self, target: AnyTarget) -> None:
        self._target = target
        self._copies: dict[tuple[torch.dtype, torch.device], AnyTarget] = {}
        self._lock = Lock()
        self._evaluations = 0

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def take(self) -> int:
        """Energies, each with its forces, since the last call."""
        with self._lock:
            taken, self._evaluations = self._evaluations, 0
        return taken

    @torch.no_grad()
    def __call__(self, label: Tensor, torsions: Tensor, start: Tensor, free: Tensor, evaluations: int) -> Tensor:
        """Stiff coordinates ``(n, n_stiff)`` of low u − ln|det| at the target's temperature, from ``start``.

        Given are labels ``(n,)`` and torsions ``(n, n_torsions)``; ``free`` are the indices of the coordinates that
        move. The number of evaluations is fixed.
        """
        key = torsions.dtype, torsions.device
        if key not in self._copies:
            self._copies[key] = self._target.to(*key)
        target = self._copies[key]

        def objective(point: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                moved = point.detach().requires_grad_()
                stiff = start.index_copy(1, free, moved)
                x, log_det = target.coordinates.to_cartesian(label, torsions, stiff)
                u = target.reduced_potential(x, softening=PAIR_SOFTENING) - log_det
                (gradient,) = torch.autograd.grad(u.sum(), moved)
            finite = torch.isfinite(u)
            return torch.where(finite, u.detach(), HOPELESS), torch.where(finite[:, None], gradient, 0.0)

        with self._lock:
            self._evaluations += len(start) * evaluations
        return start.index_copy(1, free, relax(objective, start.index_select(1, free), evaluations))


def relax(objective: Objective, start: Tensor, evaluations: int) -> Tensor:
    """Minimise every row of ``start (n, d)`` for itself, by L-BFGS with backtracking; the best points found.

    The number of evaluations is fixed, for all rows alike. Source: Nocedal and Wright, Numerical Optimization, 2nd
    ed., algorithm 7.4.
    """
    history = _Curvature()
    x = start
    value, gradient = objective(x)
    step = history.direction(gradient)
    for _ in range(evaluations - 1):
        trial = x - step
        new_value, new_gradient = objective(trial)
        history.add(trial - x, new_gradient - gradient)
        better = new_value < value
        x = torch.where(better[:, None], trial, x)
        gradient = torch.where(better[:, None], new_gradient, gradient)
        value = torch.where(better, new_value, value)
        step = torch.where(better[:, None], history.direction(gradient), BACKTRACK * step)
    return x


class _Curvature:
    """The latest steps s and changes of gradient y of every row, and products 1/s·y, 0 where that is not positive."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self._scale: Tensor | float = FIRST_STEP

    def add(self, s: Tensor, y: Tensor) -> None:
        product = (s * y).sum(1)
        positive = product > 1e-6
        self._pairs = [*self._pairs, (s, y, torch.where(positive, 1.0 / product.clamp(min=1e-6), 0.0))][-MEMORY:]
        newest = product / y.square().sum(1).clamp(min=1e-12)
        self._scale = torch.where(positive, newest, FIRST_STEP).clamp(0.02, 2.0)[:, None]

    def direction(self, gradient: Tensor) -> Tensor:
        """What is to be subtracted, ``(n, d)``: about H⁻¹ g, not longer than :data:`LONGEST_STEP`."""
        q, shares = gradient, []
        for s, y, inverse in reversed(self._pairs):
            share = (inverse * (s * q).sum(1))[:, None]
            shares.append(share)
            q = q - share * y
        q = self._scale * q
        for (s, y, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            q = q + (share - (inverse * (y * q).sum(1))[:, None]) * s
        return q * (LONGEST_STEP / q.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=1.0)
