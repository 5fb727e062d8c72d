"""Recent draws with their weights: what the torsions learn from, at no further energies."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from boltzgen.training.objectives import Scored

ESS_FLOOR = 0.2
"""Weights are tempered, w^λ, so that the effective share of the pool does not fall below this."""


@dataclass(frozen=True)
class Pool:
    """Torsions ``(n, n_torsions)`` and their normalised weights ``(n,)``, tempered by the power λ."""

    torsions: Tensor
    weights: Tensor
    tempering: float

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """Resample torsions ``(n, n_torsions)`` by weight, with replacement."""
        return self.torsions[torch.multinomial(self.weights, n, replacement=True, generator=rng)]


class Replay:
    """The last ``capacity`` scored batches. Each keeps the density it was drawn from, so its weights stay right."""

    def __init__(self, capacity: int) -> None:
        self._batches: deque[tuple[Tensor, Tensor]] = deque(maxlen=capacity)

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, scored: Scored) -> None:
        """Remember a batch of detached draws; those whose weight is not finite are left out."""
        good = scored.select(torch.isfinite(scored.log_weight))
        self._batches.append((good.torsions, good.log_weight))

    def clear(self) -> None:
        """Forget everything: the target has changed."""
        self._batches.clear()

    def pool(self) -> Pool:
        """Everything remembered, with weights tempered to an effective share of at least ``ESS_FLOOR``."""
        torsions, log_weight = (torch.cat(parts) for parts in zip(*self._batches, strict=True))
        tempering = _tempering(log_weight.double())
        return Pool(torsions, torch.softmax(tempering * log_weight.double(), dim=0), tempering)


def _tempering(log_weight: Tensor) -> float:
    """Largest λ ≤ 1 whose weights w^λ keep the effective share above the floor, by bisection."""

    def share(power: float) -> float:
        weights = torch.softmax(power * log_weight, dim=0)
        return 1.0 / (weights.square().sum().item() * len(weights))

    if share(1.0) >= ESS_FLOOR:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if share(middle) >= ESS_FLOOR else (low, middle)
    return low
