"""Draws in the extended space of a chart's label and the base of the flow, and their weights there.

A configuration that several charts can make is told apart by the label k: the target of (k, x) is p(x) r_k(x) with the
partition of unity of :meth:`~boltzgen.coordinates.atlas.Atlas.log_share`, whose sum over k is p(x). Averages of f(x)
under both are therefore the same, and a density of one chart is all that a weight needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow
from boltzgen.target import AnyTarget


@dataclass(frozen=True)
class Draws:
    """Weighted draws, ``(batch,)`` each but ``x (atoms, 3, batch)`` in nm, rotors in their windows.

    ``u`` reduced potential; ``log_weight`` unnormalised, −inf where the energy fails; ``flow_log_weight`` the weight
    that the draw of the flow had before anything was done to it; ``log_prob`` ln q of that draw, finite.
    """

    x: Tensor
    u: Tensor
    log_weight: Tensor
    flow_log_weight: Tensor
    log_prob: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Draws:
        """The same function of every array, which acts on the batch, their last axis."""
        return Draws(*(change(column) for column in vars(self).values()))


class ExtendedTarget:
    """Weights in the extended space; counts energies and forces as they are computed."""

    def __init__(self, target: AnyTarget, flow: Generator) -> None:
        self.target, self.flow = target, flow
        self.n_energies = self.n_forces = 0

    def weigh(self, slow: Slow, log_slow: Tensor, lines: Tensor, of_levers: Tensor | None = None) -> Draws:
        """Push normal ``lines (batch, n_stiff)`` to configurations, given slow coordinates and their ln q(k, τ).

        ln W = −u(x) + ln r_k(x) + ln|det| − ln q(k, τ) − ln q(z | τ, k), differentiable in all that is continuous.
        For ``of_levers`` see :meth:`~boltzgen.flow.generator.Generator.push_stiff`.
        """
        atlas = self.target.coordinates
        stiff, log_conditional = self.flow.push_stiff(lines, slow, of_levers)
        x, log_det = atlas.to_cartesian(slow.label, slow.torsions, stiff)
        u = self.target.reduced_potential(x)
        self.n_energies += len(u)
        log_prob = log_slow + log_conditional - log_det
        log_weight = atlas.log_share(x, slow.label) - u - log_prob
        log_weight = log_weight.masked_fill(log_weight.isnan() | ~torch.isfinite(u), -math.inf)
        return Draws(x, u, log_weight, log_weight, torch.nan_to_num(log_prob, nan=0.0))

    def weigh_base(self, label: Tensor, y: Tensor) -> Draws:
        """The same from base points ``y (batch, n_torsions + n_stiff)``, circles first.

        There ln W is the density of the target over that of the base, which is uniform on circles and normal on lines.
        """
        n_torsions = self.target.coordinates.n_torsions
        return self.weigh(*self.flow.push_slow(Slow(label, y[:, :n_torsions])), y[:, n_torsions:])

    def gradient(self, label: Tensor, y: Tensor) -> tuple[Draws, Tensor]:
        """:meth:`weigh_base` with the gradient of ln W, shaped as ``y``, zero where it is not finite."""
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            draws = self.weigh_base(label, y)
            total = torch.where(torch.isfinite(draws.log_weight), draws.log_weight, 0.0).sum()
            (gradient,) = torch.autograd.grad(total, y)
        self.n_forces += len(y)
        return draws.map(Tensor.detach), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
