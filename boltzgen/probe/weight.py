"""What a state weighs, whatever the flow thinks of it and however often exchange came there.

From its challengers short dynamics at the target's temperature goes on, each walker for itself: soon in equilibrium
inside the state, if not with others. To one half of these frames a normal density of all internal coordinates is
fitted and drawn from; draws that fall into the state have the weights e^{−u}/g. Bridge sampling between these and the
other half of the frames gives Z_S = ∫_S e^{−u}, in the measure of the flow's log Z.

Stiff coordinates of long molecules are too many for a normal density. With a ``guide``, a flow, they are drawn from
its conditional instead, given the torsions: better where the flow knows the state at all, and exact as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boltzgen.coordinates.layout import batch_last
from boltzgen.coordinates.locate import locate
from boltzgen.dynamics.langevin import Langevin, Walkers, slowed_masses
from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow
from boltzgen.probe.challenge import FRICTION, TIMESTEP
from boltzgen.probe.density import NormalDensity
from boltzgen.statistics.bridge import bridge_log_z
from boltzgen.statistics.free_energy import Estimate
from boltzgen.target import AnyTarget, Target

DRAWS = 4000
"""Draws led to a state, an energy each."""

WALKERS, SETTLING, ROUNDS, INTERVAL = 64, 200, 16, 50
"""Local dynamics: steps before the first frame, frames of each walker, steps between these; 2 ps in all."""

ENERGIES = WALKERS * (SETTLING + ROUNDS * INTERVAL + 1) + DRAWS
"""What it takes to weigh a state."""

FEWEST_FRAMES = 40
"""Frames below which no density is fitted to them."""

CHUNK = 2048

Membership = Callable[[NDArray], NDArray[np.bool_]]
"""Whether structures ``(n, sites, components)`` are in the state."""


@dataclass(frozen=True)
class Weighed:
    """ln Z_S of a state, with the error None where it is not determined, and the energies that it took."""

    log_z: Estimate
    n_energies: int


def weigh_state(
    target: AnyTarget,
    positions: NDArray,
    chain: NDArray[np.intp],
    is_inside: Membership,
    rng: torch.Generator,
    guide: Generator | None = None,
) -> Weighed:
    """Weigh the state of structures ``(m, sites, components)`` of the chains ``chain (m,)``; ``target`` in float64.

    Where there is no dynamics, of models, these structures themselves are the frames.
    """
    spent = 0
    if isinstance(target, Target):
        positions, chain = _local_dynamics(target, positions, rng)
        spent += ENERGIES - DRAWS
        inside = is_inside(positions)
        positions, chain = positions[inside], chain[inside]
    frames = _located(target, positions, chain)
    if len(frames) < FEWEST_FRAMES:
        return Weighed(Estimate(float("nan"), None), spent)
    # Halves of whole chains where there are several, else of different times: neighbours in time are alike.
    half = len(frames) // 2
    fitted, held_out = frames[:half], frames[half:]
    label = int(torch.mode(fitted.label).values)
    found = []
    for flow in (None, guide) if guide is not None else (None,):
        proposal = _Proposal(target, fitted.z[fitted.label == label], label, flow)
        log_w = torch.cat([proposal.draw(k, is_inside, rng) for k in _sizes(DRAWS)])
        spent += DRAWS
        found.append(_bridged(log_w, held_out, proposal, label))
    return Weighed(min(found, key=lambda one: math.inf if one.stderr is None else one.stderr), spent)


@dataclass(frozen=True)
class _Frames:
    """Frames in the support: chart, circles and lines ``z (n, d)``, ``log_density`` = ln |det| − u, chain; ``(n,)``."""

    label: Tensor
    z: Tensor
    log_density: Tensor
    chain: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: slice) -> _Frames:
        return _Frames(self.label[rows], self.z[rows], self.log_density[rows], self.chain[rows])


class _Proposal:
    """A density of the internal coordinates of one chart: normal, or normal circles and lines of a flow given these."""

    def __init__(self, target: AnyTarget, z: Tensor, label: int, guide: Generator | None) -> None:
        self._target, self._label, self._guide = target, label, guide
        self._m = target.coordinates.n_torsions
        self._normal = NormalDensity(z if guide is None else z[:, : self._m], self._m)

    @torch.no_grad()
    def draw(self, n: int, is_inside: Membership, rng: torch.Generator) -> Tensor:
        """ln of e^{−u}/g of draws, −inf outside the state."""
        coordinates = self._target.coordinates
        z, log_g, within = self._normal.draw(n, rng)
        label = torch.full((n,), self._label)
        circles, stiff = z[:, : self._m].contiguous(), z[:, self._m :].contiguous()
        if self._guide is not None:
            stiff, log_stiff = self._guide.sample_stiff(Slow(label, circles), rng)
            log_g = log_g + log_stiff
        x, log_det = coordinates.to_cartesian(label, circles, stiff)
        x = coordinates.random_images(x, rng)  # states may tell equivalent labellings apart
        inside = torch.as_tensor(is_inside(x.permute(2, 0, 1).numpy())) & within
        log_w = torch.where(inside, log_det - self._target.reduced_potential(x) - log_g, -math.inf)
        return log_w.masked_fill(log_w.isnan(), -math.inf)

    @torch.no_grad()
    def log_prob(self, z: Tensor) -> Tensor:
        """ln g ``(n,)`` of circles and lines."""
        if self._guide is None:
            return self._normal.log_prob(z)
        slow = Slow(torch.full((len(z),), self._label), z[:, : self._m].contiguous())
        return self._normal.log_prob(z[:, : self._m]) + self._guide.log_prob_stiff(z[:, self._m :].contiguous(), slow)


def _bridged(log_w: Tensor, frames: _Frames, proposal: _Proposal, label: int) -> Estimate:
    """ln Z_S: that of what one chart reaches, over its share of the frames."""
    same = (frames.label == label).numpy()
    if not same.any():
        return Estimate(float("nan"), None)
    of_frames = (frames.log_density - proposal.log_prob(frames.z)).numpy()
    found = bridge_log_z(log_w.numpy(), of_frames[same], _chains(frames.chain[same]))
    return Estimate(found.value - math.log(same.mean()), found.stderr)


def _local_dynamics(target: Target, positions: NDArray, rng: torch.Generator) -> tuple[NDArray, NDArray[np.intp]]:
    """Frames of walkers that begin at the structures, one after the other, and the walker of each."""
    single = target.to(torch.float32)
    start = np.asarray(positions)[np.linspace(0, len(positions) - 1, WALKERS).round().astype(np.intp)]
    x = torch.as_tensor(start, dtype=torch.float32).permute(1, 2, 0).contiguous()
    masses = slowed_masses(target.molecule.masses, target.molecule.bonds)
    walkers = Walkers.thermal(single.potential, x, masses, target.temperature, rng)
    dynamics = Langevin(
        single.potential, walkers, masses, target.temperature, friction=FRICTION, timestep=TIMESTEP, generator=rng
    )
    dynamics.run(SETTLING)
    frames = []
    for _ in range(ROUNDS):
        dynamics.run(INTERVAL)
        walkers.recentre()
        frames.append(walkers.positions.permute(2, 0, 1).clone())
    sound = ~walkers.failed
    of_walkers = torch.stack(frames, dim=1)[sound]
    return of_walkers.flatten(0, 1).double().numpy(), np.repeat(np.arange(len(of_walkers)), ROUNDS)


def _located(target: AnyTarget, positions: NDArray, chain: NDArray[np.intp]) -> _Frames:
    x = batch_last(positions)
    u = target.reduced_potential(x)
    if isinstance(target, Target):
        found = locate(target.coordinates, x)
        z, inside = torch.cat([found.torsions, found.stiff], dim=1), found.inside
        return _Frames(found.label, z, found.log_det - u[inside], chain[inside.numpy()])
    circles, lines, log_det = target.coordinates.charts[0].from_cartesian(x)
    z = torch.cat([circles, lines], dim=1)
    inside = torch.isfinite(z).all(1)
    label = torch.zeros(int(inside.sum()), dtype=torch.int64)
    return _Frames(label, z[inside], (log_det - u)[inside], chain[inside.numpy()])


def _sizes(n: int) -> list[int]:
    return [min(CHUNK, n - done) for done in range(0, n, CHUNK)]


def _chains(chain: NDArray[np.intp], least: int = 4) -> NDArray[np.intp]:
    """Numbers of independent parts: the chains, or four stretches of time if these are fewer."""
    return chain if len(np.unique(chain)) >= least else np.arange(len(chain)) * least // len(chain)
