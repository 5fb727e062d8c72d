"""Layers of the flow: autoregressive splines on circles, couplings and an affine head on lines.

Conditioners see circles only through cosines and sines of two harmonics, so that the density has no jump at ±π.
All layers start as the identity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from boltzgen.flow.spline import circular_spline, rotate, sinh_arcsinh

HARMONICS = 2


def circle_features(torsions: Tensor) -> Tensor:
    """cos and sin of two harmonics: ``(batch, n)`` radians → ``(batch, 4 n)``."""
    multiples = torch.cat([k * torsions for k in range(1, HARMONICS + 1)], dim=-1)
    return torch.cat([multiples.cos(), multiples.sin()], dim=-1)


def perceptron(n_in: int, n_hidden: int, n_out: int) -> nn.Sequential:
    """Two hidden layers; the last layer starts at zero, so that the bijection that it feeds starts as the identity."""
    last = nn.Linear(n_hidden, n_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_hidden), nn.SiLU(), last)


class TorsionFlow(nn.Module):
    """Autoregressive flow on a torus: p(τ₁) p(τ₂|τ₁) …, each factor two circular splines with a phase between."""

    N_SPLINES = 2

    def __init__(self, n_torsions: int, n_bins: int, n_hidden: int, n_context: int = 0) -> None:
        super().__init__()
        self.n_bins = n_bins
        n_out = self.N_SPLINES * (3 * n_bins + 1)
        self.conditioners = nn.ModuleList(
            perceptron_or_constant(4 * k + n_context, n_hidden, n_out) for k in range(n_torsions)
        )

    def forward(self, z: Tensor, context: Tensor, uniform: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Base circles ``(batch, n)`` given context ``(batch, n_context)`` → torsions and ln |det|, ``(batch,)``.

        ``uniform (batch,)`` names for each sample a torsion that is left as it is in the base, or −1 for none.
        """
        torsions: list[Tensor] = []
        log_det = z.new_zeros(z.shape[0])
        for k, conditioner in enumerate(self.conditioners):
            x, step = z[:, k], torch.zeros_like(log_det)
            for spline, phase in self._spline_parameters(conditioner, torsions, context):
                x, log_slope = circular_spline(x, spline)
                x = rotate(x, phase)
                step = step + log_slope
            if uniform is not None:
                left = uniform == k
                x, step = torch.where(left, z[:, k], x), torch.where(left, torch.zeros_like(step), step)
            log_det = log_det + step
            torsions.append(x)
        return (torch.stack(torsions, dim=1) if torsions else z), log_det

    def inverse(self, torsions: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Torsions → base circles and ln |det| of that map."""
        base: list[Tensor] = []
        log_det = torsions.new_zeros(torsions.shape[0])
        for k, conditioner in enumerate(self.conditioners):
            x = torsions[:, k]
            before = list(torsions[:, :k].unbind(1))
            for spline, phase in reversed(self._spline_parameters(conditioner, before, context)):
                x, log_slope = circular_spline(rotate(x, -phase), spline, inverse=True)
                log_det = log_det + log_slope
            base.append(x)
        return (torch.stack(base, dim=1) if base else torsions), log_det

    def _spline_parameters(
        self, conditioner: nn.Module, before: list[Tensor], context: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        if before:
            context = torch.cat([circle_features(torch.stack(before, dim=1)), context], dim=1)
        parts = conditioner(context).chunk(self.N_SPLINES, dim=-1)
        return [(part[:, :-1], math.pi * part[:, -1]) for part in parts]


def perceptron_or_constant(n_in: int, n_hidden: int, n_out: int) -> nn.Module:
    """A perceptron of the context, or :class:`Constant` where there is none."""
    return perceptron(n_in, n_hidden, n_out) if n_in else Constant(n_hidden, n_out)


class Constant(nn.Module):
    """Parameters that depend on nothing, as the output of a perceptron for a constant input.

    Bare parameters would move by at most the learning rate a step: too slow to move the mass between basins.
    """

    one: Tensor

    def __init__(self, n_hidden: int, n_out: int) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(1, 1), persistent=False)
        self.network = perceptron(1, n_hidden, n_out)

    def forward(self, context: Tensor) -> Tensor:
        """The parameters, once for each row of the context."""
        return self.value().expand(context.shape[0], -1)

    def value(self) -> Tensor:
        """The parameters, ``(1, n_out)``."""
        return self.network(self.one)


class StiffCoupling(nn.Module):
    """Coupling on whitened stiff coordinates: those in ``mask`` are kept, the others pass a sinh-arcsinh map."""

    N_PARAMETERS = 4
    kept: Tensor
    moved: Tensor
    restore: Tensor

    def __init__(self, mask: Tensor, n_context: int, n_hidden: int) -> None:
        super().__init__()
        kept, moved = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
        self.register_buffer("kept", kept)
        self.register_buffer("moved", moved)
        self.register_buffer("restore", torch.argsort(torch.cat([kept, moved])))
        self.conditioner = perceptron_or_constant(len(kept) + n_context, n_hidden, self.N_PARAMETERS * len(moved))

    def forward(self, z: Tensor, context: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """``(batch, n_stiff)`` given context ``(batch, n_context)`` → image and ln |det|, ``(batch,)``."""
        kept, moved = z.index_select(1, self.kept), z.index_select(1, self.moved)
        parameters = self.conditioner(torch.cat([kept, context], dim=1))
        parameters = parameters.view(len(z), self.N_PARAMETERS, -1).movedim(1, -1)
        image, log_slope = sinh_arcsinh(moved, parameters, inverse=inverse)
        return torch.cat([kept, image], dim=1).index_select(1, self.restore), log_slope.sum(1)


class AffineHead(nn.Module):
    """y = m(τ) + e^{s(τ)} z: mean and scale of every stiff coordinate given the torsions."""

    def __init__(self, n_stiff: int, n_context: int, n_hidden: int) -> None:
        super().__init__()
        self.conditioner = perceptron_or_constant(n_context, n_hidden, 2 * n_stiff)

    def forward(self, z: Tensor, context: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """``(batch, n_stiff)`` given context ``(batch, n_context)`` → image and ln |det|, ``(batch,)``."""
        shift, log_scale = self.conditioner(context).chunk(2, dim=1)
        if inverse:
            return (z - shift) * (-log_scale).exp(), -log_scale.sum(1)
        return shift + log_scale.exp() * z, log_scale.sum(1)
