"""The generator: a density on the latent blocks, slow coordinates first, stiff coordinates given them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from boltzgen.coordinates.atlas import Atlas
from boltzgen.flow.coupling import AffineHead, Constant, StiffCoupling, TorsionFlow, circle_features


@dataclass(frozen=True)
class Architecture:
    """Sizes of a generator."""

    n_torsions: int
    n_stiff: int
    n_charts: int = 1
    n_bins: int = 16
    torsion_hidden: int = 64
    stiff_hidden: int = 128
    n_couplings: int = 5

    @classmethod
    def of(cls, atlas: Atlas, **sizes: int) -> Architecture:
        """The architecture for the coordinates of a molecule; ``sizes`` replace the defaults."""
        return cls(atlas.n_torsions, atlas.n_stiff, atlas.n_charts, **sizes)

    def to_dict(self) -> dict[str, int]:
        """Plain dictionary, to be stored."""
        return asdict(self)


@dataclass(frozen=True)
class Slow:
    """The slow coordinates: ``label (batch,)`` of the chart, an integer, and ``torsions (batch, n_torsions)``."""

    label: Tensor
    torsions: Tensor

    def __getitem__(self, index: Tensor) -> Slow:
        return Slow(self.label[index], self.torsions[index])


@dataclass(frozen=True)
class Latent:
    """Draws of a generator: slow coordinates, ``stiff (batch, n_stiff)``, ``log_prob (batch,)``."""

    slow: Slow
    stiff: Tensor
    log_prob: Tensor


class Generator(nn.Module):
    """q(k, τ, z) = q(k) q(τ | k) q(z | τ, k): a label, autoregressive circular splines, couplings and an affine head.

    Base: uniform circles and standard normal lines. ``log_prob`` is with respect to dτ dz.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        n_label = a.n_charts if a.n_charts > 1 else 0
        n_context = 4 * a.n_torsions + n_label
        self.label_logits = Constant(a.torsion_hidden, n_label) if n_label else None
        self.torsion_flow = TorsionFlow(a.n_torsions, a.n_bins, a.torsion_hidden, n_label)
        masks = _masks(a.n_stiff, a.n_couplings)
        self.couplings = nn.ModuleList(StiffCoupling(mask, n_context, a.stiff_hidden) for mask in masks)
        self.head = AffineHead(a.n_stiff, n_context, a.stiff_hidden)

    def sample(self, n: int, generator: torch.Generator) -> Latent:
        """Draw ``n`` latents."""
        slow, log_prob = self.sample_slow(n, generator)
        stiff, log_conditional = self.sample_stiff(slow, generator)
        return Latent(slow, stiff, log_prob + log_conditional)

    def sample_slow(self, n: int, generator: torch.Generator, uniform: Tensor | None = None) -> tuple[Slow, Tensor]:
        """Draw labels and torsions with ln q(k, τ), ``(n,)``.

        ``uniform (n,)`` names for each draw a coordinate that is drawn broadly instead: a torsion, by its place,
        uniformly; the label, by the number of torsions, from √q(k); none by −1. The density is that of the altered
        generator.
        """
        label, log_label = self._sample_label(n, generator, uniform)
        torsions, log_det = self.torsion_flow(self._sample_circles(n, generator), self._one_hot(label), uniform)
        return Slow(label, torsions), log_label + self._log_base_torsions - log_det

    def sample_base(self, n: int, generator: torch.Generator) -> Slow:
        """Draw labels, and uniform base circles in the place of torsions, for :meth:`push_slow`."""
        label, _ = self._sample_label(n, generator, None)
        return Slow(label, self._sample_circles(n, generator))

    def push_slow(self, base: Slow) -> tuple[Slow, Tensor]:
        """Map base circles to torsions, labels as they are, with ln q(k, τ), ``(n,)``."""
        torsions, log_det = self.torsion_flow(base.torsions, self._one_hot(base.label))
        return Slow(base.label, torsions), self._log_labels()[base.label] + self._log_base_torsions - log_det

    def sample_stiff(self, slow: Slow, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw stiff coordinates ``(n, n_stiff)`` given slow ones, with ln q(z | τ, k), ``(n,)``."""
        like = slow.torsions
        shape = (len(like), self.architecture.n_stiff)
        lines = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
        return self.push_stiff(lines, slow)

    def push_stiff(self, lines: Tensor, slow: Slow) -> tuple[Tensor, Tensor]:
        """Map standard normal lines to stiff coordinates given slow ones, with ln q(z | τ, k)."""
        context = self._context(slow)
        z, log_prob = lines, _log_normal(lines)
        for layer in self._stiff_layers():
            z, step = layer(z, context)
            log_prob = log_prob - step
        return z, log_prob

    def log_prob(self, slow: Slow, stiff: Tensor) -> Tensor:
        """ln q(k, τ, z) of latents, ``(batch,)``; NaN in, −inf out."""
        value = self.log_prob_slow(slow) + self.log_prob_stiff(stiff, slow)
        return value.masked_fill(value.isnan(), -math.inf)

    def log_prob_slow(self, slow: Slow) -> Tensor:
        """ln q(k, τ), ``(batch,)``."""
        _, log_det = self.torsion_flow.inverse(slow.torsions, self._one_hot(slow.label))
        return self.log_prob_label(slow.label) + self._log_base_torsions + log_det

    def log_prob_label(self, label: Tensor) -> Tensor:
        """ln q(k), ``(batch,)``."""
        return self._log_labels()[label]

    def log_prob_stiff(self, stiff: Tensor, slow: Slow) -> Tensor:
        """ln q(z | τ, k), ``(batch,)``."""
        context = self._context(slow)
        z, log_det = stiff, stiff.new_zeros(len(stiff))
        for layer in reversed(self._stiff_layers()):
            z, step = layer(z, context, inverse=True)
            log_det = log_det + step
        return _log_normal(z) + log_det

    def _sample_label(self, n: int, generator: torch.Generator, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        log_labels = self._log_labels()
        n_charts = len(log_labels)
        if n_charts == 1:
            label = torch.zeros(n, dtype=torch.int64, device=log_labels.device)
            return label, log_labels[label]
        label = torch.multinomial(log_labels.exp(), n, replacement=True, generator=generator)
        log_label = log_labels[label]
        if uniform is not None:
            log_broad = torch.log_softmax(0.5 * log_labels, dim=0)
            broad = torch.multinomial(log_broad.exp(), n, replacement=True, generator=generator)
            chosen = uniform == self.architecture.n_torsions
            label = torch.where(chosen, broad, label)
            log_label = torch.where(chosen, log_broad[label], log_labels[label])
        return label, log_label

    def _sample_circles(self, n: int, generator: torch.Generator) -> Tensor:
        like = next(self.parameters())
        shape = (n, self.architecture.n_torsions)
        circles = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
        return 2.0 * math.pi * circles - math.pi

    def _log_labels(self) -> Tensor:
        """ln q(k), ``(n_charts,)``."""
        if self.label_logits is None:
            return next(self.parameters()).new_zeros(1)
        return torch.log_softmax(self.label_logits.value()[0], dim=0)

    def _one_hot(self, label: Tensor) -> Tensor:
        """``(batch, n_charts)``, and of no width where there is one chart."""
        n_charts, dtype = self.architecture.n_charts, next(self.parameters()).dtype
        if n_charts == 1:
            return torch.zeros((len(label), 0), dtype=dtype, device=label.device)
        return nn.functional.one_hot(label, n_charts).to(dtype)

    def _context(self, slow: Slow) -> Tensor:
        features = circle_features(slow.torsions.T).flatten(0, 1)
        return torch.cat([features, self._one_hot(slow.label).T]).T

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
