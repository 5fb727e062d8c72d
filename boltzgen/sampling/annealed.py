"""Annealed importance sampling from the flow to the target, in the base space of the flow.

In the base (circles and lines, where the flow is uniform and normal) the target is π₁(y) = π₀(y) W(y), with the weight
W of :mod:`boltzgen.sampling.extended`. A draw y₀ ~ π₀ walks over bridges π_β ∝ π₀ W^β, 0 < β₁ < … < β_S < 1: before the
move at β_i its log-weight gains (β_i − β_{i−1}) ln W(y), at the end (1 − β_S) ln W(y_S). Each move leaves its π_β as
it is, so the weight is right whatever the moves are, however few and however badly they mix: with w the product of all
that was gained, E[w f(x_S)] = Z ⟨f⟩. The label stays what it was: it is a part of the extended space. f may hold a
factor e^{u(x) (1 − T₀/T)}: samples are reweighted to another temperature as any others.

A move is one Hamiltonian trajectory with a Metropolis test, π₀ included. The base is nearly isotropic, so all masses
are 1. The force that drives the trajectory is bounded in norm. Any force that depends on the place alone keeps volume
and can be run backwards, and the test uses the true density: the bound costs nothing but gentle slopes out of clashes.

Bridges and step sizes come from a pilot batch and then stay: were they to follow the draws that they move, the weights
would be wrong.

Sources: Neal, Stat. Comput. 11, 125 (2001); Neal, MCMC using Hamiltonian dynamics (2011), section 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boltzgen.coordinates.charts import wrap
from boltzgen.sampling.extended import Draws, ExtendedTarget

LEAPFROG = 4
"""Steps of one trajectory, each an energy with forces."""

FORCE_BOUND = 3.0
"""Largest norm of the driving force, in units of its typical norm √d in d dimensions."""

TARGET_ACCEPTANCE = 0.65
"""Share of trajectories that the step size is made for: the best one of many independent coordinates (Neal 2011)."""

LADDER_POWER = 1.5
"""β_i = (i/(S + 1))^1.5: closer where β is small, and clashes are still being resolved."""

FIRST_STEP = 0.3
PILOT_MOVES = 4
"""Moves of the pilot at each bridge, after each of which the step size is corrected."""


@dataclass(frozen=True)
class Bridge:
    """One level: the exponent β of the weight, and the step size of the trajectory there."""

    beta: float
    step: float


@dataclass
class _Walkers:
    """Base points ``y (batch, d)`` with their labels, their weights in the extended space and ∇ ln W."""

    label: Tensor
    y: Tensor
    draws: Draws
    gradient: Tensor

    def accept(self, accepted: Tensor, other: _Walkers) -> _Walkers:
        """Those of ``other`` where ``accepted (batch,)``."""
        draws = zip(vars(other.draws).values(), vars(self.draws).values(), strict=True)
        return _Walkers(
            self.label,
            torch.where(accepted[:, None], other.y, self.y),
            Draws(*(torch.where(accepted, new, old) for new, old in draws)),
            torch.where(accepted[:, None], other.gradient, self.gradient),
        )


class Annealing:
    """Walks over fixed bridges; counts moves and how many of them were accepted."""

    def __init__(self, extended: ExtendedTarget, bridges: tuple[Bridge, ...]) -> None:
        self.extended, self.bridges = extended, bridges
        self.n_moves = self.n_accepted = 0

    def walk(self, label: Tensor, y: Tensor, rng: torch.Generator) -> Draws:
        """Walk base points ``y (batch, n_torsions + n_stiff)`` from the flow to the target, with AIS weights."""
        walkers = _start(self.extended, label, y)
        flow_log_weight = walkers.draws.log_weight
        log_weight, before = torch.zeros_like(flow_log_weight), 0.0
        for bridge in self.bridges:
            log_weight = log_weight + (bridge.beta - before) * walkers.draws.log_weight
            walkers, accepted = _move(self.extended, walkers, bridge, rng)
            self.n_moves += len(accepted)
            self.n_accepted += int(accepted.sum())
            before = bridge.beta
        log_weight = log_weight + (1.0 - before) * walkers.draws.log_weight
        return replace(walkers.draws, log_weight=log_weight, flow_log_weight=flow_log_weight)


def tune(extended: ExtendedTarget, label: Tensor, y: Tensor, steps: int, rng: torch.Generator) -> tuple[Bridge, ...]:
    """``steps`` bridges from a pilot batch of base points that is used for nothing else.

    At each bridge the step size is moved towards the acceptance that is aimed at, from that of the bridge before.
    """
    walkers = _start(extended, label, y)
    bridges = []
    step = FIRST_STEP
    for i in range(1, steps + 1):
        bridge = Bridge((i / (steps + 1)) ** LADDER_POWER, step)
        for _ in range(PILOT_MOVES):
            walkers, accepted = _move(extended, walkers, bridge, rng)
            rate = accepted.double().mean().item()
            bridge = replace(bridge, step=bridge.step * math.exp(rate - TARGET_ACCEPTANCE))
        step = bridge.step
        bridges.append(bridge)
    return tuple(bridges)


def _start(extended: ExtendedTarget, label: Tensor, y: Tensor) -> _Walkers:
    return _Walkers(label, y, *extended.gradient(label, y))


def _move(extended: ExtendedTarget, walkers: _Walkers, bridge: Bridge, rng: torch.Generator) -> tuple[_Walkers, Tensor]:
    """One trajectory at a bridge: the walkers after it, and which of them moved ``(batch,)``."""
    y = walkers.y
    momentum = torch.randn(y.shape, generator=rng, dtype=y.dtype, device=y.device)
    before = _energy(extended, walkers, momentum, bridge.beta)
    at = walkers
    momentum = momentum + 0.5 * bridge.step * _force(extended, at, bridge.beta)
    for k in range(1, LEAPFROG + 1):
        y = _wrapped(extended, at.y + bridge.step * momentum)
        at = _start(extended, walkers.label, y)
        share = 1.0 if k < LEAPFROG else 0.5
        momentum = momentum + share * bridge.step * _force(extended, at, bridge.beta)
    after = _energy(extended, at, momentum, bridge.beta)
    threshold = torch.rand(len(y), generator=rng, dtype=y.dtype, device=y.device).log()
    # A walker whose energy failed has weight zero for good, and stays; NaN compares as false.
    accepted = (threshold < before - after) & torch.isfinite(before)
    return walkers.accept(accepted, at), accepted


def _energy(extended: ExtendedTarget, walkers: _Walkers, momentum: Tensor, beta: float) -> Tensor:
    """−ln π_β(y) + ½ p² up to a constant, ``(batch,)``; +inf where the energy fails."""
    lines = walkers.y[:, extended.target.coordinates.n_torsions :]
    return 0.5 * (lines.square().sum(1) + momentum.square().sum(1)) - beta * walkers.draws.log_weight


def _force(extended: ExtendedTarget, walkers: _Walkers, beta: float) -> Tensor:
    """∇ ln π_β, of bounded norm, ``(batch, d)``."""
    n_torsions = extended.target.coordinates.n_torsions
    force = beta * walkers.gradient
    force[:, n_torsions:] -= walkers.y[:, n_torsions:]
    largest = FORCE_BOUND * math.sqrt(force.shape[1])
    return force * (largest / force.norm(dim=1, keepdim=True).clamp(min=1e-30)).clamp(max=1.0)


def _wrapped(extended: ExtendedTarget, y: Tensor) -> Tensor:
    """Circles in [−π, π), lines as they are."""
    n_torsions = extended.target.coordinates.n_torsions
    return torch.cat([wrap(y[:, :n_torsions]), y[:, n_torsions:]], dim=1)
