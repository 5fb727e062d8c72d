"""Layers of the flow: autoregressive splines on circles, couplings and an affine head on lines.

Conditioners see circles only through cosines and sines of two harmonics, so that the density has no jump at ±π.
All layers start as the identity.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from boltzgen.flow import compiled
from boltzgen.flow.spline import circular_splines, sinh_arcsinh
from boltzgen.native import Kernels

HARMONICS = 2


def circle_features(torsions: Tensor) -> Tensor:
    """cos and sin of two harmonics: ``(n, batch)`` radians → ``(4, n, batch)``."""
    multiples = torch.stack([k * torsions for k in range(1, HARMONICS + 1)])
    return torch.cat([multiples.cos(), multiples.sin()])


class Perceptron(nn.Sequential):
    """Two hidden layers; the last layer starts at zero, so that the bijection that it feeds starts as the identity."""

    def __init__(self, n_in: int, n_hidden: int, n_out: int) -> None:
        last = nn.Linear(n_hidden, n_out)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_hidden), nn.SiLU(), last)

    @property
    def weight(self) -> Tensor:
        """A weight, of the type and on the device of all."""
        return cast(nn.Linear, self[0]).weight

    def rows(self, kernels: Kernels, z: Tensor, kept: Tensor | None, context: Tensor) -> compiled.Rows:
        """The output for the rows ``kept`` (or all) of ``z (n, batch)`` and those of ``context``, by the kernels."""
        return compiled.perceptron(kernels, self, z, kept, context)


class TorsionFlow(nn.Module):
    """Autoregressive flow on a torus: p(τ₁) p(τ₂|τ₁) …, each factor two circular splines with a phase between."""

    N_SPLINES = 2

    def __init__(self, n_torsions: int, n_bins: int, n_hidden: int, n_context: int) -> None:
        super().__init__()
        self.n_bins = n_bins
        n_out = self.N_SPLINES * (3 * n_bins + 1)
        self.conditioners = nn.ModuleList(
            Perceptron(2 * HARMONICS * k + n_context, n_hidden, n_out) for k in range(n_torsions)
        )

    def forward(
        self, z: Tensor, context: Tensor, uniform: Tensor | None = None, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Base circles ``(batch, n)`` given context ``(batch, n_context)`` → torsions and ln |det|, ``(batch,)``.

        ``uniform (batch,)`` names for each sample a torsion that is left as it is in the base, or −1 for none.
        ``given (batch, m)`` are the first m torsions, which have no part in the determinant.
        """
        torsions: list[Tensor] = []
        features = [z.new_zeros((2 * HARMONICS, 0, len(z)))]
        log_det = z.new_zeros(z.shape[0])
        for k in range(len(self.conditioners)):
            if given is not None and k < given.shape[1]:
                torsions.append(given[:, k])
                features.append(circle_features(given[None, :, k]))
                continue
            x, step = self._spline(k, z[:, k], torch.cat(features, dim=1), context)
            if uniform is not None:
                left = uniform == k
                x, step = torch.where(left, z[:, k], x), torch.where(left, torch.zeros_like(step), step)
            log_det = log_det + step
            torsions.append(x)
            features.append(circle_features(x[None]))
        return (torch.stack(torsions, dim=1) if torsions else z), log_det

    def inverse(self, torsions: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Torsions → base circles and ln |det| of that map."""
        base: list[Tensor] = []
        features = circle_features(torsions.T)
        log_det = torsions.new_zeros(torsions.shape[0])
        for k in range(len(self.conditioners)):
            x, step = self._spline(k, torsions[:, k], features[:, :k], context, inverse=True)
            log_det = log_det + step
            base.append(x)
        return (torch.stack(base, dim=1) if base else torsions), log_det

    def _spline(
        self, k: int, x: Tensor, before: Tensor, context: Tensor, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Image and ln |dy/dx| of circle ``k``, ``(batch,)``, given the features of those before it."""
        conditioner = cast(Perceptron, self.conditioners[k])
        before = before.flatten(0, 1)
        kernels = compiled.kernels_for(x, before, context, conditioner.weight)
        if kernels is None:
            parameters = conditioner(torch.cat([before.T, context], dim=1))
            return circular_splines(x, parameters, self.N_SPLINES, inverse=inverse)
        rows = conditioner.rows(kernels, before, None, context.T)
        return compiled.circular_splines(kernels, x, rows, self.N_SPLINES, inverse=inverse)


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
        self.conditioner = Perceptron(len(kept) + n_context, n_hidden, self.N_PARAMETERS * len(moved))

    def forward(self, z: Tensor, context: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """``(batch, n_stiff)`` given context ``(batch, n_context)`` → image and ln |det|, ``(batch,)``."""
        kernels = compiled.kernels_for(z, context, self.conditioner.weight)
        if kernels is not None:
            rows = self.conditioner.rows(kernels, z.T, self.kept, context.T)
            image, log_det = compiled.sinh_arcsinh_rows(kernels, z.T, rows, self.kept, self.moved, inverse=inverse)
            return image.T, log_det
        kept, moved = z.index_select(1, self.kept), z.index_select(1, self.moved)
        parameters = self.conditioner(torch.cat([kept, context], dim=1))
        parameters = parameters.view(len(z), self.N_PARAMETERS, -1).movedim(1, -1)
        image, log_slope = sinh_arcsinh(moved, parameters, inverse=inverse)
        return torch.cat([kept, image], dim=1).index_select(1, self.restore), log_slope.sum(1)


class AffineHead(nn.Module):
    """y = m(τ) + e^{s(τ)} z: mean and scale of every stiff coordinate given the torsions."""

    def __init__(self, n_stiff: int, n_context: int, n_hidden: int) -> None:
        super().__init__()
        self.conditioner = Perceptron(n_context, n_hidden, 2 * n_stiff)

    def forward(self, z: Tensor, context: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """``(batch, n_stiff)`` given context ``(batch, n_context)`` → image and ln |det|, ``(batch,)``."""
        kernels = compiled.kernels_for(z, context, self.conditioner.weight)
        if kernels is not None:
            rows = self.conditioner.rows(kernels, context.T, None, context.T[:0])
            image, log_det = compiled.affine_rows(kernels, z.T, rows, inverse=inverse)
            return image.T, log_det
        shift, log_scale = self.conditioner(context).chunk(2, dim=1)
        if inverse:
            return (z - shift) * (-log_scale).exp(), -log_scale.sum(1)
        return shift + log_scale.exp() * z, log_scale.sum(1)
