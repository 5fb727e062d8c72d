"""Random systems whose answers are known exactly: mixtures of normals, networks of springs, rings of spins.

Each knows ln Z, averages, and populations of halves as well as of rare states, down to one in a thousand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import ive, ndtr, ndtri
from torch import Tensor

from boltzgen.models.columns import Column, Line
from boltzgen.models.model import ModelCoordinates, ModelTarget, Separate
from boltzgen.models.rings import ORDERS, XYRing
from boltzgen.models.wells import Mixture
from boltzgen.selftest.case import Array, Case, Mean

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5)
"""Exact populations of the states that are asked for."""

KINDS = ("mixture", "springs", "ring")

LEAST_ENERGIES, MOST_ENERGIES = 3_000, 60_000
"""Of training, drawn evenly in their logarithm: from flows that have learnt little to good ones."""


def random_case(number: int, seed: int) -> Case:
    """One of :data:`KINDS` in turn, with all its parameters and the length of its training drawn."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    energies = int(np.exp(rng.uniform(np.log(LEAST_ENERGIES), np.log(MOST_ENERGIES))))
    return {"mixture": mixture, "springs": springs, "ring": ring}[kind](f"{kind} {number}", energies, rng)


def _energy(target: ModelTarget) -> Callable[[Array], Array]:
    return lambda x: target.energy(torch.as_tensor(x).permute(1, 2, 0).contiguous()).numpy()


def _below(of: str, site: int, component: int, share: float, at: float) -> Mean:
    return Mean(f"P({of} < {at:.3f})", share, lambda x: x[:, site, component] < at)


def mixture(name: str, energies: int, rng: np.random.Generator) -> Case:
    """Two to five normal distributions in the plane, the last with a share of 0.3 to 3 %."""
    n = int(rng.integers(2, 6))
    rare = float(np.exp(rng.uniform(np.log(0.003), np.log(0.03))))
    shares = np.append((1.0 - rare) * rng.dirichlet(np.full(n - 1, 3.0)), rare)
    centres, widths = rng.uniform(-4.0, 4.0, (n, 2)), rng.uniform(0.25, 0.8, (n, 2))
    correlations = rng.uniform(-0.8, 0.8, n)
    model = Mixture(tuple(shares), tuple(map(tuple, centres)), tuple(map(tuple, widths)), tuple(correlations))
    target = model.target()
    means = []
    for k, axis in enumerate("xy"):

        def share(at: float, k: int = k) -> float:
            return float(shares @ ndtr((at - centres[:, k]) / widths[:, k]))

        for p in SHARES:
            at = brentq(lambda at, p=p, share=share: share(at) - p, -12.0, 12.0, xtol=1e-13)
            means.append(_below(axis, 0, k, p, at))
        means.append(Mean(f"<{axis}>", float(shares @ centres[:, k]), lambda x, k=k: x[:, 0, k]))
        square = float(shares @ (centres[:, k] ** 2 + widths[:, k] ** 2))
        means.append(Mean(f"<{axis}²>", square, lambda x, k=k: x[:, 0, k] ** 2))
    return Case(name, target, 0.0, tuple(means), _energy(target), energies)


@dataclass(frozen=True)
class Springs:
    """u = ½ (x − c)ᵀ A (x − c): points on a line, springs between some of them, and a weak one of each to its place."""

    stiffness: Array
    centres: Array

    def energy(self, x: Tensor) -> Tensor:
        """u of ``(n, 1, batch)``."""
        d = x[:, 0] - torch.as_tensor(self.centres, dtype=x.dtype)[:, None]
        return 0.5 * (d * (torch.as_tensor(self.stiffness, dtype=x.dtype) @ d)).sum(0)


def springs(name: str, energies: int, rng: np.random.Generator) -> Case:
    """Three to eight points; the flow begins with wrong places and widths."""
    n = int(rng.integers(3, 9))
    links = np.triu(rng.exponential(2.0, (n, n)) * (rng.random((n, n)) < 0.6), 1)
    links = links + links.T
    stiffness = np.diag(links.sum(1) + rng.uniform(0.3, 1.0, n)) - links
    model = Springs(stiffness, rng.normal(size=n))
    covariance = np.linalg.inv(stiffness)
    widths = np.sqrt(np.diag(covariance))
    columns: list[Column] = [
        Line(float(c + w * rng.normal(0.0, 0.5)), float(w * np.exp(rng.normal(0.0, 0.3))))
        for c, w in zip(model.centres, widths, strict=True)
    ]
    target = ModelTarget(model.energy, ModelCoordinates(columns, Separate((n, 1))))
    log_z = 0.5 * (n * math.log(2.0 * math.pi) - np.linalg.slogdet(stiffness)[1])
    means = [_below("x1", 0, 0, p, float(model.centres[0] + widths[0] * ndtri(p))) for p in SHARES]
    means.append(Mean("<x1>", float(model.centres[0]), lambda x: x[:, 0, 0]))
    product = float(covariance[0, 1] + model.centres[0] * model.centres[1])
    means.append(Mean("<x1 x2>", product, lambda x: x[:, 0, 0] * x[:, 1, 0]))
    return Case(name, target, float(log_z), tuple(means), _energy(target), energies, mean_u=0.5 * n)


def ring(name: str, energies: int, rng: np.random.Generator) -> Case:
    """Four to eight spins; states are of the angle δ of two neighbours, p(δ) ∝ e^{K cos δ} Σ_m I_m^{N−1} cos mδ."""
    n, coupling = int(rng.integers(4, 9)), float(rng.uniform(0.3, 1.5))
    model = XYRing(n, coupling)
    target = model.target()
    factors = ive(ORDERS, coupling) ** (n - 1)

    def density(delta: float) -> float:
        return math.exp(coupling * (math.cos(delta) - 1.0)) * float(factors @ np.cos(ORDERS * delta))

    def beyond(angle: float) -> float:
        return 2.0 * quad(density, angle, math.pi, epsabs=0.0, epsrel=1e-11)[0]

    whole = beyond(0.0)

    def apart(p: float) -> Mean:
        angle = brentq(lambda a: beyond(a) / whole - p, 1e-6, math.pi - 1e-9, xtol=1e-13)
        return Mean(f"P(δ > {angle:.3f})", p, lambda x: np.cos(x[:, 0, 0] - x[:, 1, 0]) < math.cos(angle))

    def cosine(distance: int) -> Callable[[Array], Array]:
        return lambda x: np.cos(x[:, 0, 0] - x[:, distance, 0])

    means = (
        *(apart(p) for p in SHARES),
        Mean("<cos> of neighbours", model.mean_cosine(1), cosine(1)),
        Mean("<cos> of opposites", model.mean_cosine(n // 2), cosine(n // 2)),
        Mean("<cos> of the first", 0.0, lambda x: np.cos(x[:, 0, 0])),
    )
    mean_u = -n * coupling * model.mean_cosine(1)
    return Case(name, target, model.log_z(), means, _energy(target), energies, mean_u=mean_u)
