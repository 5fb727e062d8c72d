"""Recent draws with their weights: what the slow coordinates learn from, at no further energies."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boltzgen.flow.generator import Slow
from boltzgen.training.objectives import Scored

ESS_FLOOR = 0.2
"""Weights are tempered, w^λ, so that the effective share of the pool does not fall below this."""


@dataclass(frozen=True)
class Pool:
    """Slow coordinates of n draws and their normalised weights ``(n,)``, tempered by the power λ.

    ``ess_fraction`` is the effective share of the weights before that.
    """

    slow: Slow
    weights: Tensor
    tempering: float
    ess_fraction: float

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        numbers = {"tempering": self.tempering, "ess_fraction": self.ess_fraction}
        return {**_slow_to_tree(self.slow), "weights": self.weights.cpu().numpy(), **numbers}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], device: torch.device) -> Pool:
        """Build from what :meth:`to_tree` returned."""
        weights = torch.as_tensor(tree["weights"], device=device)
        return cls(_slow_from_tree(tree, device), weights, tree["tempering"], tree["ess_fraction"])

    def draw(self, n: int, rng: torch.Generator) -> Slow:
        """Resample ``n`` by weight, with replacement."""
        return self.slow[torch.multinomial(self.weights, n, replacement=True, generator=rng)]


class Replay:
    """The last ``capacity`` draws, about. Each keeps the density it was drawn from, so its weight stays right."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._batches: deque[tuple[Slow, Tensor]] = deque()

    def __len__(self) -> int:
        return sum(len(log_weight) for _, log_weight in self._batches)

    def add(self, scored: Scored) -> None:
        """Remember a batch of detached draws; those whose weight is not finite are left out."""
        good = scored.select(torch.isfinite(scored.log_weight))
        self._batches.append((good.slow, good.log_weight))
        while len(self) > self._capacity:
            self._batches.popleft()

    def to_tree(self) -> dict[str, Any]:
        """The batches as nested arrays, to be stored."""
        return {
            str(k): {**_slow_to_tree(slow), "log_weight": log_weight.cpu().numpy()}
            for k, (slow, log_weight) in enumerate(self._batches)
        }

    def load_tree(self, tree: Mapping[str, Any], device: torch.device) -> None:
        """Remember what :meth:`to_tree` returned instead."""
        batches = (tree[key] for key in sorted(tree, key=int))
        self._batches = deque(
            (_slow_from_tree(b, device), torch.as_tensor(b["log_weight"], device=device)) for b in batches
        )

    def clear(self) -> None:
        """Forget everything: the target has changed."""
        self._batches.clear()

    def pool(self) -> Pool | None:
        """Everything remembered, weights tempered to an effective share of at least ``ESS_FLOOR``; None if empty."""
        if not len(self):
            return None
        slow = Slow(*(torch.cat([getattr(s, name) for s, _ in self._batches]) for name in ("label", "torsions")))
        log_weight = torch.cat([w for _, w in self._batches]).double()
        tempering = _tempering(log_weight)
        return Pool(slow, torch.softmax(tempering * log_weight, dim=0), tempering, effective_share(log_weight))


def _slow_to_tree(slow: Slow) -> dict[str, Any]:
    return {name: value.cpu().numpy() for name, value in vars(slow).items()}


def _slow_from_tree(tree: Mapping[str, Any], device: torch.device) -> Slow:
    return Slow(*(torch.as_tensor(tree[name], device=device) for name in ("label", "torsions")))


def effective_share(log_weight: Tensor) -> float:
    """Kish's effective share of weights."""
    weights = torch.softmax(log_weight, dim=0)
    return 1.0 / (weights.square().sum().item() * len(weights))


def _tempering(log_weight: Tensor) -> float:
    """Largest λ ≤ 1 whose weights w^λ keep the effective share above the floor, by bisection."""
    if effective_share(log_weight) >= ESS_FLOOR:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if effective_share(middle * log_weight) >= ESS_FLOOR else (low, middle)
    return low
