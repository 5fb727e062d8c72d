"""Flows that are damaged on purpose, exactly: one state of a trained generator shrunk, removed, or shifted.

A damaged flow has samples and a density as any other, and nothing else tells of its damage: q'(x) ∝ q(x) f(x) with
f < 1 in the state and 1 elsewhere, or the draws of a state are moved by a map that keeps volumes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from boltzgen.sampling.draw import BoltzmannGenerator, Samples
from boltzgen.statistics.weights import kish_ess

SHARE_DRAWS = 200_000
"""Draws from which the share of the state is counted: ln of the normalisation is then known to 0.0012 and better."""

BATCH = 20_000

Members = Callable[[NDArray], NDArray[np.bool_]]
"""Which structures ``(n, sites, components)`` are in the state."""

Map = Callable[[NDArray], NDArray]
"""A bijection of structures that keeps the volume element."""


class Damage(Protocol):
    """What is done to a generator."""

    def draw(self, generator: BoltzmannGenerator, n: int, seed: list[int], batch_size: int) -> Samples:
        """``n`` draws of the damaged flow."""

    def log_prob(self, generator: BoltzmannGenerator, positions: NDArray) -> NDArray[np.float64]:
        """Its density."""


class DamagedGenerator:
    """Samples and density of a damaged flow, under the names that a :class:`BoltzmannGenerator` has."""

    def __init__(self, generator: BoltzmannGenerator, damage: Damage) -> None:
        self._generator, self._damage = generator, damage
        self.target, self.device = generator.target, generator.device

    def sample(self, n: int, *, seed: int | list[int] = 0, batch_size: int = 2048) -> Samples:
        """Draw ``n`` independent samples."""
        return self._damage.draw(self._generator, n, [seed] if isinstance(seed, int) else list(seed), batch_size)

    def log_prob(self, positions: NDArray) -> NDArray[np.float64]:
        """ln q' of structures."""
        return self._damage.log_prob(self._generator, np.asarray(positions, dtype=np.float64))

    def reduced_potential(self, positions: NDArray) -> NDArray[np.float64]:
        """u of structures."""
        return self._generator.reduced_potential(positions)


@dataclass(frozen=True)
class Shrunk:
    """q' = q f/c with f = ``factor`` in the state, and c = 1 − s (1 − f) of the state's share s of q."""

    members: Members
    factor: float
    share: float

    @classmethod
    def of(cls, generator: BoltzmannGenerator, members: Members, factor: float, seed: int = 0) -> Shrunk:
        """With the share counted."""
        parts = [generator.sample(BATCH, seed=[seed, 101, k]).positions for k in range(SHARE_DRAWS // BATCH)]
        return cls(members, factor, float(np.mean([members(part).mean() for part in parts])))

    @property
    def log_norm(self) -> float:
        """ln c."""
        return float(np.log1p(-self.share * (1.0 - self.factor)))

    def draw(self, generator: BoltzmannGenerator, n: int, seed: list[int], batch_size: int) -> Samples:
        """By rejection."""
        rng = np.random.default_rng([*seed, 102])
        parts: list[Samples] = []
        left = n
        while left > 0:
            drawn = generator.sample(max(left, 256), seed=[*seed, 103, len(parts)], batch_size=batch_size)
            inside = self.members(drawn.positions)
            kept = np.flatnonzero(~inside | (rng.random(len(inside)) < self.factor))[:left]
            log_prob = drawn.log_prob[kept] + self._log_factor(inside[kept]) - self.log_norm
            parts.append(rows(drawn, kept, log_prob))
            left -= len(kept)
        return joined(parts)

    def log_prob(self, generator: BoltzmannGenerator, positions: NDArray) -> NDArray[np.float64]:
        """ln q + ln f − ln c."""
        return generator.log_prob(positions) + self._log_factor(self.members(positions)) - self.log_norm

    def _log_factor(self, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):
            return np.where(inside, np.log(self.factor), 0.0)


@dataclass(frozen=True)
class Shifted:
    """Draws of the state are moved, all but a share ε: q'(y) = q(y) (ε if y ∈ S else 1) + (1 − ε) q(T⁻¹y) [T⁻¹y ∈ S].

    With ε = 0 the density would be zero where the state has been, which that of no trained flow is.
    """

    members: Members
    forth: Map
    back: Map
    left: float = 1e-6

    def draw(self, generator: BoltzmannGenerator, n: int, seed: list[int], batch_size: int) -> Samples:
        """By moving."""
        drawn = generator.sample(n, seed=[*seed, 104], batch_size=batch_size)
        rng = np.random.default_rng([*seed, 105])
        inside = self.members(drawn.positions) & (rng.random(n) >= self.left)
        x = np.asarray(drawn.positions, dtype=np.float64).copy()
        x[inside] = self.forth(x[inside])
        u = drawn.reduced_potential.copy()
        u[inside] = generator.reduced_potential(x[inside])
        moved = replace(drawn, positions=x, reduced_potential=u)
        return rows(moved, np.arange(n), self.log_prob(generator, x))

    def log_prob(self, generator: BoltzmannGenerator, positions: NDArray) -> NDArray[np.float64]:
        """ln of the sum of both."""
        before = self.back(positions)
        with np.errstate(divide="ignore"):
            stayed = generator.log_prob(positions) + np.where(self.members(positions), np.log(self.left), 0.0)
        came = np.where(self.members(before), generator.log_prob(before) + np.log1p(-self.left), -np.inf)
        return np.logaddexp(stayed, came)


def rows(samples: Samples, kept: NDArray[np.intp], log_prob: NDArray[np.float64]) -> Samples:
    """Some samples, with another density ``(len(kept),)``; as many energies as draws that are kept."""
    u = samples.reduced_potential[kept]
    log_weight = np.where(np.isfinite(u), -u - log_prob, -np.inf)
    return Samples(samples.positions[kept], log_prob, u, log_weight, len(kept), 0, kish_ess(log_weight) / len(kept))


def joined(parts: list[Samples]) -> Samples:
    """Samples of one density, one after the other."""
    columns = ("positions", "log_prob", "reduced_potential", "log_weight")
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
    n = len(whole["log_weight"])
    return Samples(
        **whole, n_energy_evaluations=n, n_force_evaluations=0, flow_ess_fraction=kish_ess(whole["log_weight"]) / n
    )


def turned(positions: NDArray, axis: tuple[int, int], branch: NDArray[np.intp], angle: float) -> NDArray:
    """Atoms ``branch`` turned by ``angle`` (radians) about the bond ``axis``, towards larger torsions of it.

    A turn keeps all bonds and angles, the volume element, and every torsion but those about the bond.
    """
    x = np.array(positions, dtype=np.float64)
    origin = x[:, [axis[1]]]
    along = x[:, [axis[1]]] - x[:, [axis[0]]]
    along /= np.linalg.norm(along, axis=2, keepdims=True)
    v = x[:, branch] - origin
    dot = np.sum(v * along, axis=2, keepdims=True)
    x[:, branch] = origin + v * np.cos(angle) + np.cross(along, v) * np.sin(angle) + along * dot * (1.0 - np.cos(angle))
    return x


def branch_of(bonds: tuple[tuple[int, int], ...], axis: tuple[int, int]) -> NDArray[np.intp]:
    """Atoms beyond the second one of the bond ``axis``; ValueError if the bond is part of a ring."""
    neighbours: dict[int, set[int]] = {}
    for i, j in bonds:
        neighbours.setdefault(i, set()).add(j)
        neighbours.setdefault(j, set()).add(i)
    found, stack = {axis[1]}, [axis[1]]
    while stack:
        atom = stack.pop()
        for other in neighbours[atom] - found:
            if (atom, other) == (axis[1], axis[0]):
                continue
            found.add(other)
            stack.append(other)
    if axis[0] in found:
        raise ValueError(f"the bond {axis} is part of a ring.")
    return np.array(sorted(found - {axis[1]}))
