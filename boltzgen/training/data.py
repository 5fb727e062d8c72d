"""Frames of the ensemble as latents: what maximum likelihood learns from, and what is held out to judge it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow

HELD_OUT_BLOCKS = 50
"""Frames are cut into so many consecutive blocks, and each tenth is held out: neighbours in a trajectory are alike."""

MAX_HELD_OUT = 4096
"""Held-out frames that are looked at, evenly spaced."""


@dataclass(frozen=True)
class LatentFrames:
    """Latents of n frames, ``stiff (n, n_stiff)``, ``log_det (n,)`` of the map to positions, weights that sum to 1."""

    slow: Slow
    stiff: Tensor
    log_det: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def select(self, index: Tensor) -> LatentFrames:
        """The frames of a mask or of indices, with weights that sum to 1 again."""
        weights = self.weights[index]
        return LatentFrames(self.slow[index], self.stiff[index], self.log_det[index], weights / weights.sum())

    def to(self, dtype: torch.dtype, device: torch.device | str) -> LatentFrames:
        """In another precision, on another device; weights stay in float64."""
        slow = Slow(self.slow.label.to(device), self.slow.torsions.to(device, dtype), self.slow.heat.to(device, dtype))
        return LatentFrames(slow, self.stiff.to(device, dtype), self.log_det.to(device, dtype), self.weights.to(device))

    def draw(self, n: int, rng: torch.Generator) -> LatentFrames:
        """Resample ``n`` by weight, with replacement."""
        index = torch.multinomial(self.weights, n, replacement=True, generator=rng)
        even = torch.full_like(self.weights[:1], 1.0 / n).expand(n)
        return LatentFrames(self.slow[index], self.stiff[index], self.log_det[index], even)

    @property
    def ess(self) -> float:
        """Kish's effective number of frames, of their weights alone; correlation in time is not in it."""
        return 1.0 / self.weights.square().sum().item()


@dataclass(frozen=True)
class DataSet:
    """Frames to learn from and frames held out."""

    training: LatentFrames
    held_out: LatentFrames

    @classmethod
    def of(cls, frames: LatentFrames) -> DataSet:
        """Hold out a tenth of at least ten frames, in blocks."""
        n = len(frames)
        n_blocks = min(HELD_OUT_BLOCKS, 10 * (n // 10))
        held_out = (torch.arange(n) * n_blocks // n) % 10 == 9
        return cls(frames.select(~held_out), frames.select(held_out))

    def to(self, dtype: torch.dtype, device: torch.device | str) -> DataSet:
        """In another precision, on another device."""
        return DataSet(self.training.to(dtype, device), self.held_out.to(dtype, device))


def negative_log_likelihood(generator: Generator, frames: LatentFrames) -> Tensor:
    """−E ln q(k, τ, z) over the frames by weight, a scalar, with respect to dτ dz."""
    log_prob = generator.log_prob_slow(frames.slow) + generator.log_prob_stiff(frames.stiff, frames.slow)
    return -(frames.weights.to(log_prob.dtype) * log_prob).sum()


@torch.no_grad()
def held_out_loss(generator: Generator, frames: LatentFrames) -> float:
    """−E ln q(x) of frames, with respect to positions as ``log_prob`` of samples is: KL(p‖q) + E_p[u] + ln Z.

    Of the density of the frame's own chart, an upper bound where charts overlap.
    """
    if len(frames) > MAX_HELD_OUT:
        frames = frames.select(torch.linspace(0, len(frames) - 1, MAX_HELD_OUT).long())
    volume = (frames.weights.to(frames.log_det.dtype) * frames.log_det).sum()
    return (negative_log_likelihood(generator, frames) + volume).item()
