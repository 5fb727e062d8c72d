"""Recent draws with their weights: what the slow coordinates learn from, at no further energies."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boltzgen.flow.latents import Slow
from boltzgen.training.objectives import Scored

REPLAY_CAPACITY = 100_000
"""Draws that are remembered."""

VISITS_CAPACITY = 20_000
"""Of those at slow coordinates of challengers."""

HOT_CAPACITY = 0.2
"""Share of the capacity for draws at a temperature that has been passed."""

ESS_FLOOR = 0.2
"""Weights are tempered, w^λ, so that the effective share of the pool does not fall below this."""


@dataclass(frozen=True)
class Recalled:
    """Slow coordinates of n earlier draws with what was found there, ``log_p (n,)``.

    That is ln p(k, τ) of the target, up to ln Z, as the one draw of stiff coordinates tells it: w q(k, τ).
    """

    slow: Slow
    log_p: Tensor

    def __getitem__(self, index: Tensor) -> Recalled:
        return Recalled(self.slow[index], self.log_p[index])

    @classmethod
    def cat(cls, parts: Sequence[Recalled]) -> Recalled:
        """Parts one after the other."""
        return cls(Slow.cat([part.slow for part in parts]), torch.cat([part.log_p for part in parts]))

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        return {**self.slow.to_tree(), "log_p": self.log_p.cpu().numpy()}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], device: torch.device) -> Recalled:
        """Build from what :meth:`to_tree` returned."""
        return cls(Slow.from_tree(tree, device), torch.as_tensor(tree["log_p"], device=device))


@dataclass(frozen=True)
class Pool:
    """Draws at one temperature and their normalised weights ``(n,)``, tempered by the power λ.

    ``ess_fraction`` is the effective share of the weights before that, ``log_z`` the logarithm
    of their mean.
    """

    draws: Recalled
    weights: Tensor
    tempering: float
    ess_fraction: float
    log_z: float

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        numbers = {name: getattr(self, name) for name in ("tempering", "ess_fraction", "log_z")}
        return {**self.draws.to_tree(), "weights": self.weights.cpu().numpy(), **numbers}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], device: torch.device) -> Pool:
        """Build from what :meth:`to_tree` returned."""
        weights = torch.as_tensor(tree["weights"], device=device)
        return cls(Recalled.from_tree(tree, device), weights, tree["tempering"], tree["ess_fraction"], tree["log_z"])

    def resample(self, n: int, rng: torch.Generator) -> Recalled:
        """``n`` draws by weight, with replacement."""
        return self.draws[torch.multinomial(self.weights, n, replacement=True, generator=rng)]


class Replay:
    """The last draws at each temperature. Each keeps the density it was drawn from, so its weight stays right.

    About ``capacity`` are kept at the coldest temperature, and ``HOT_CAPACITY`` of that at every other.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rungs: dict[float, deque[tuple[Recalled, Tensor]]] = {}

    def add(self, scored: Scored) -> None:
        """Remember a batch of detached draws; those whose weight is not finite are left out."""
        good = scored.select(torch.isfinite(scored.log_weight))
        for heat in good.slow.heat.unique().tolist():
            some = good.select(good.slow.heat == heat)
            draws = Recalled(some.slow, some.log_weight + some.log_prob_slow)
            self._rungs.setdefault(heat, deque()).append((draws, some.log_weight))
        for heat, batches in self._rungs.items():
            capacity = self._capacity * (1.0 if heat == min(self._rungs) else HOT_CAPACITY)
            while _size(batches) > capacity:
                batches.popleft()

    def to_tree(self) -> dict[str, Any]:
        """The draws as nested arrays, to be stored: all batches in one array of each kind, and their sizes."""
        batches = [batch for rung in self._rungs.values() for batch in rung]
        if not batches:
            return {}
        draws, log_weights = zip(*batches, strict=True)
        log_weight = torch.cat(log_weights).cpu().numpy()
        return {**Recalled.cat(draws).to_tree(), "log_weight": log_weight, "sizes": np.array([*map(len, log_weights)])}

    def load_tree(self, tree: Mapping[str, Any], device: torch.device) -> None:
        """Remember what :meth:`to_tree` returned instead."""
        self._rungs = {}
        if not tree:
            return
        draws, log_weight = Recalled.from_tree(tree, device), torch.as_tensor(tree["log_weight"], device=device)
        for rows in torch.arange(len(log_weight), device=device).split(tree["sizes"].tolist()):
            batch = draws[rows], log_weight[rows]
            self._rungs.setdefault(batch[0].slow.heat[0].item(), deque()).append(batch)

    def draws(self, heat: float) -> Recalled | None:
        """All draws at a temperature, see :meth:`pool`; None if none."""
        batches = self._rungs.get(heat)
        return Recalled.cat([draws for draws, _ in batches]) if batches else None

    def pool(self, heat: float) -> Pool | None:
        """All draws at a temperature, weights tempered to an effective share of at least ``ESS_FLOOR``; None if none.

        ``heat`` is ln T/T₀ as the draws have it, in their precision.
        """
        draws = self.draws(heat)
        if draws is None:
            return None
        log_weight = torch.cat([w for _, w in self._rungs[heat]]).double()
        tempering = _tempering(log_weight)
        weights = torch.softmax(tempering * log_weight, dim=0)
        log_z = torch.logsumexp(log_weight, dim=0).item() - math.log(len(log_weight))
        return Pool(draws, weights, tempering, effective_share(log_weight), log_z)


def _size(batches: deque[tuple[Recalled, Tensor]]) -> int:
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
