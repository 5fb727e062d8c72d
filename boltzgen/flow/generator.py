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

    def sample(self, n: int, generator: torch.Generator) -> Latent:
        """Draw ``n`` latents."""
        torsions, log_prob = self.sample_torsions(n, generator)
        stiff, log_conditional = self.sample_stiff(torsions, generator)
        return Latent(torsions, stiff, log_prob + log_conditional)

    def sample_torsions(
        self, n: int, generator: torch.Generator, uniform: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw torsions ``(n, n_torsions)`` with ln q(τ), ``(n,)``.

        ``uniform (n,)`` names for each draw a torsion that is drawn uniformly instead, or −1; the density is then that
        of the altered generator.
        """
        like = next(self.parameters())
        shape = (n, self.architecture.n_torsions)
        circles = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
        torsions, log_det = self.torsion_flow(2.0 * math.pi * circles - math.pi, uniform)
        return torsions, self._log_base_torsions - log_det

    def sample_stiff(self, torsions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw stiff coordinates ``(n, n_stiff)`` given torsions, with ln q(z | τ), ``(n,)``."""
        shape = (len(torsions), self.architecture.n_stiff)
        lines = torch.randn(shape, generator=generator, dtype=torsions.dtype, device=torsions.device)
        return self.push_stiff(lines, torsions)

    def push_stiff(self, lines: Tensor, torsions: Tensor) -> tuple[Tensor, Tensor]:
        """Map standard normal lines to stiff coordinates given torsions, with ln q(z | τ)."""
        context = circle_features(torsions)
        z, log_prob = lines, _log_normal(lines)
        for layer in self._stiff_layers():
            z, step = layer(z, context)
            log_prob = log_prob - step
        return z, log_prob

    def log_prob(self, torsions: Tensor, stiff: Tensor) -> Tensor:
        """ln q of latents, ``(batch,)``; NaN in, −inf out."""
        value = self.log_prob_torsions(torsions) + self.log_prob_stiff(stiff, torsions)
        return torch.nan_to_num(value, nan=-math.inf)

    def log_prob_torsions(self, torsions: Tensor) -> Tensor:
        """ln q(τ), ``(batch,)``."""
        _, log_det = self.torsion_flow.inverse(torsions)
        return self._log_base_torsions + log_det

    def log_prob_stiff(self, stiff: Tensor, torsions: Tensor) -> Tensor:
        """ln q(z | τ), ``(batch,)``."""
        context = circle_features(torsions)
        z, log_det = stiff, stiff.new_zeros(len(stiff))
        for layer in reversed(self._stiff_layers()):
            z, step = layer(z, context, inverse=True)
            log_det = log_det + step
        return _log_normal(z) + log_det

    def _stiff_layers(self) -> list[nn.Module]:
        return [*self.couplings, self.head]

    @property
    def _log_base_torsions(self) -> float:
        return -self.architecture.n_torsions * math.log(2.0 * math.pi)


def _log_normal(lines: Tensor) -> Tensor:
    """Standard normal log-density of each row."""
    return -0.5 * (lines.square().sum(1) + lines.shape[1] * math.log(2.0 * math.pi))


def _masks(n: int, count: int) -> Iterable[Tensor]:
    """Boolean masks of the kept coordinates: a fixed random half and its complement in turn."""
    generator = torch.Generator().manual_seed(0)
    for k in range(count if n > 1 else 0):
        if k % 2 == 0:
            mask = torch.zeros(n, dtype=torch.bool)
            mask[torch.randperm(n, generator=generator)[: n // 2]] = True
        yield mask
        mask = ~mask
