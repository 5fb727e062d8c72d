"""Recent draws with their weights: what the slow coordinates learn from, at no further energies."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boltzgen.flow.latents import Slow
from boltzgen.training.objectives import Scored

REPLAY_CAPACITY = 100_000
"""Draws that are remembered."""

HOT_CAPACITY = 0.2
"""Share of the capacity for draws at a temperature that has been passed."""

ESS_FLOOR = 0.2
"""Weights are tempered, w^λ, so that the effective share of the pool does not fall below this."""


@dataclass(frozen=True)
class Pool:
    """Slow coordinates of n draws and their normalised weights ``(n,)``, tempered by the power λ.

    ``ess_fraction`` is the effective share of the weights before that, ``log_z`` the logarithm
    of their mean.
    """

    slow: Slow
    weights: Tensor
    tempering: float
    ess_fraction: float
    log_z: float

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        numbers = {name: getattr(self, name) for name in ("tempering", "ess_fraction", "log_z")}
        return {**self.slow.to_tree(), "weights": self.weights.cpu().numpy(), **numbers}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], device: torch.device) -> Pool:
        """Build from what :meth:`to_tree` returned."""
        weights = torch.as_tensor(tree["weights"], device=device)
        return cls(Slow.from_tree(tree, device), weights, tree["tempering"], tree["ess_fraction"], tree["log_z"])

    def draw(self, n: int, rng: torch.Generator) -> Slow:
        """Resample ``n`` by weight, with replacement."""
        return self.slow[torch.multinomial(self.weights, n, replacement=True, generator=rng)]


class Replay:
    """The last draws at each temperature. Each keeps the density it was drawn from, so its weight stays right.

    About ``capacity`` are kept at the coldest temperature, and ``HOT_CAPACITY`` of that at every other.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rungs: dict[float, deque[tuple[Slow, Tensor]]] = {}

    def add(self, scored: Scored) -> None:
        """Remember a batch of detached draws; those whose weight is not finite are left out."""
        good = scored.select(torch.isfinite(scored.log_weight))
        for heat in good.slow.heat.unique().tolist():
            of_rung = good.select(good.slow.heat == heat)
            self._rungs.setdefault(heat, deque()).append((of_rung.slow, of_rung.log_weight))
        for heat, batches in self._rungs.items():
            capacity = self._capacity * (1.0 if heat == min(self._rungs) else HOT_CAPACITY)
            while _size(batches) > capacity:
                batches.popleft()

    def to_tree(self) -> dict[str, Any]:
        """The draws as nested arrays, to be stored."""
        batches = [batch for rung in self._rungs.values() for batch in rung]
        return {
            str(k): {**slow.to_tree(), "log_weight": log_weight.cpu().numpy()}
            for k, (slow, log_weight) in enumerate(batches)
        }

    def load_tree(self, tree: Mapping[str, Any], device: torch.device) -> None:
        """Remember what :meth:`to_tree` returned instead."""
        self._rungs = {}
        for key in sorted(tree, key=int):
            slow = Slow.from_tree(tree[key], device)
            batch = slow, torch.as_tensor(tree[key]["log_weight"], device=device)
            self._rungs.setdefault(slow.heat[0].item(), deque()).append(batch)

    def pool(self, heat: float) -> Pool | None:
        """All draws at a temperature, weights tempered to an effective share of at least ``ESS_FLOOR``; None if none.

        ``heat`` is ln T/T₀ as the draws have it, in their precision.
        """
        batches = self._rungs.get(heat)
        if not batches:
            return None
        slow = Slow.cat([slow for slow, _ in batches])
        log_weight = torch.cat([w for _, w in batches]).double()
        tempering = _tempering(log_weight)
        weights = torch.softmax(tempering * log_weight, dim=0)
        log_z = torch.logsumexp(log_weight, dim=0).item() - math.log(len(log_weight))
        return Pool(slow, weights, tempering, effective_share(log_weight), log_z)


def _size(batches: deque[tuple[Slow, Tensor]]) -> int:
    return sum(len(log_weight) for _, log_weight in batches)


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
