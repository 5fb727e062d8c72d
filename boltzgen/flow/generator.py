"""The generator: a density on the latent blocks, slow torsions first, stiff coordinates given them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from boltzgen.flow.coupling import AffineHead, StiffCoupling, TorsionFlow, circle_features


@dataclass(frozen=True)
class Architecture:
    """Sizes of a generator."""

    n_torsions: int
    n_stiff: int
    n_bins: int = 16
    torsion_hidden: int = 64
    stiff_hidden: int = 128
    n_couplings: int = 5

    def to_dict(self) -> dict[str, int]:
        """Plain dictionary, to be stored."""
        return asdict(self)


@dataclass(frozen=True)
class Latent:
    """Draws of a generator: torsions ``(batch, n_torsions)``, stiff ``(batch, n_stiff)``, log_prob ``(batch,)``."""

    torsions: Tensor
    stiff: Tensor
    log_prob: Tensor


class Generator(nn.Module):
    """q(τ, z) = q(τ) q(z | τ): autoregressive circular splines, then couplings and an affine head.

    Base: uniform circles and standard normal lines. ``log_prob`` is with respect to dτ dz.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        n_context = 4 * a.n_torsions
        self.torsion_flow = TorsionFlow(a.n_torsions, a.n_bins, a.torsion_hidden)
        masks = _masks(a.n_stiff, a.n_couplings)
        self.couplings = nn.ModuleList(StiffCoupling(mask, n_context, a.stiff_hidden) for mask in masks)
        self.head = AffineHead(a.n_stiff, n_context, a.stiff_hidden)

    def sample(self, n: int, generator: torch.Generator, uniform: Tensor | None = None) -> Latent:
        """Draw ``n`` latents; differentiable with respect to the weights.

        ``uniform (n,)`` names for each draw a torsion that is drawn uniformly instead, or −1; ``log_prob`` is then the
        density of that altered generator.
        """
        a, like = self.architecture, next(self.parameters())
        circles = torch.rand(n, a.n_torsions, generator=generator, dtype=like.dtype, device=like.device)
        lines = torch.randn(n, a.n_stiff, generator=generator, dtype=like.dtype, device=like.device)
        return self.push(2.0 * math.pi * circles - math.pi, lines, uniform)

    def push(self, circles: Tensor, lines: Tensor, uniform: Tensor | None = None) -> Latent:
        """Map base points to latents with their log_prob."""
        torsions, log_det = self.torsion_flow(circles, uniform)
        context = circle_features(torsions)
        z = lines
        for layer in self._stiff_layers():
            z, step = layer(z, context)
            log_det = log_det + step
        return Latent(torsions, z, self._log_base(lines) - log_det)

    def log_prob(self, torsions: Tensor, stiff: Tensor) -> Tensor:
        """ln q of latents, ``(batch,)``; NaN in, −inf out."""
        _, log_det = self.torsion_flow.inverse(torsions)
        context = circle_features(torsions)
        z = stiff
        for layer in reversed(self._stiff_layers()):
            z, step = layer(z, context, inverse=True)
            log_det = log_det + step
        return torch.nan_to_num(self._log_base(z) + log_det, nan=-math.inf)

    def _stiff_layers(self) -> list[nn.Module]:
        return [*self.couplings, self.head]

    def _log_base(self, lines: Tensor) -> Tensor:
        a = self.architecture
        constant = a.n_torsions * math.log(2.0 * math.pi) + 0.5 * a.n_stiff * math.log(2.0 * math.pi)
        return -0.5 * lines.square().sum(1) - constant


def _masks(n: int, count: int) -> Iterable[Tensor]:
    """Boolean masks of the kept coordinates: a fixed random half and its complement in turn."""
    generator = torch.Generator().manual_seed(0)
    for k in range(count if n > 1 else 0):
        if k % 2 == 0:
            mask = torch.zeros(n, dtype=torch.bool)
            mask[torch.randperm(n, generator=generator)[: n // 2]] = True
        yield mask
        mask = ~mask
