"""Structures at the target's temperature that no flow has made: replica exchange from widely spread starts.

It begins at the conformers that are given and at torsions as far from these, and from one another, as can be, in all
charts: relaxed, put on the rungs at random, and left to short dynamics. So states are found from many sides, not
reached from one. How often it visits them is no population: a short exchange stays where it was put.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boltzgen.coordinates.charts import random_circles
from boltzgen.coordinates.configuration import Configuration
from boltzgen.dynamics.langevin import slowed_masses
from boltzgen.dynamics.minimise import minimise
from boltzgen.dynamics.replica_exchange import Frame, ReplicaExchange, geometric_temperatures
from boltzgen.errors import InputError
from boltzgen.random_streams import Purpose, random_stream
from boltzgen.target import Target

HOTTEST = 2.5
"""Temperature of the highest rung over that of the lowest: 750 K, where backbones turn within picoseconds."""

RUNG = 1.7
"""ln of the ratio of neighbouring temperatures, times the root of half the degrees of freedom: a third is accepted."""

FEWEST_RUNGS = 4
FEWEST_LADDERS, MOST_LADDERS = 8, 32

WORTHWHILE_STEPS = 10_000
"""Steps of a walker, 20 ps, beyond which energies go into further ladders."""

TIMESTEP = 2.0
"""fs, with hydrogens of 3 dalton."""

FRICTION = 2.0
"""1/ps."""

STEPS = 50
"""Steps between exchanges."""

RELAXATION = 200
"""Steps of relaxation, an energy each."""

BURN_IN = 0.2
"""Share of the dynamics that is left out."""

FEWEST_FRAMES, MOST_FRAMES = 512, 4096
"""Frames at the target's temperature that are kept, evenly spaced in time."""

ENERGIES_PER_FRAME = 250
"""Energies spent for each of them at least: the density of a frame costs as much as a few dozen energies."""

CANDIDATES = 16
"""Random points of the torsions for each start that is chosen among them."""


@dataclass(frozen=True)
class Challenge:
    """Structures from outside a flow.

    Attributes
    ----------
    positions
        ``(n, sites, components)``, nm, chain after chain and in the order of time.
    reduced_potential
        ``(n,)`` at the target's temperature.
    chain
        ``(n,)``: structures of different chains are independent.
    n_energies
        What they cost.
    """

    positions: NDArray
    reduced_potential: NDArray[np.float64]
    chain: NDArray[np.intp]
    n_energies: int

    def __len__(self) -> int:
        return len(self.chain)


@dataclass(frozen=True)
class Shape:
    """Ladders, rungs and rounds of exchange that a number of energies is good for."""

    ladders: int
    rungs: int
    rounds: int

    @classmethod
    def of(cls, energies: float, n_atoms: int) -> Shape:
        """For a molecule of so many atoms."""
        freedom = max(1, 3 * n_atoms - 6)
        rungs = max(FEWEST_RUNGS, 1 + math.ceil(math.log(HOTTEST) * math.sqrt(0.5 * freedom) / RUNG))
        of_ladder = rungs * (WORTHWHILE_STEPS + RELAXATION)
        ladders = min(max(int(energies / of_ladder), FEWEST_LADDERS), MOST_LADDERS)
        steps = energies / (ladders * rungs) - RELAXATION
        return cls(ladders, rungs, max(20, round(steps / STEPS)))

    @property
    def walkers(self) -> int:
        """In all."""
        return self.ladders * self.rungs


def challenge(target: Target, energies: float, seed: int, conformers: NDArray | None = None) -> Challenge:
    """Spend about so many energies; ``conformers (k, atoms, 3)`` nm are starts that are known, the first the input.

    Raises
    ------
    InputError
        If no start has an energy.
    """
    shape = Shape.of(energies, target.molecule.n_atoms)
    rng = random_stream(Purpose.PROBE, [seed, 0])
    single = target.to(torch.float32)
    start = spread_starts(single, shape.walkers, rng, conformers)
    relaxed = minimise(single.potential, start, max_steps=RELAXATION)
    sound = torch.isfinite(relaxed.energy).nonzero()[:, 0]
    if not len(sound):
        raise InputError(
            "replica exchange of the coverage probe has no stable structure to begin with. Check the force field, or "
            "analyze without it: --no-probe."
        )
    order = torch.randperm(shape.walkers, generator=rng)
    places = sound[torch.arange(shape.walkers) % len(sound)][order]
    exchange = ReplicaExchange(
        single.potential,
        relaxed.positions[..., places],
        slowed_masses(target.molecule.masses, target.molecule.bonds),
        geometric_temperatures(target.temperature, HOTTEST * target.temperature, shape.rungs),
        friction=FRICTION,
        timestep=TIMESTEP,
        recentre=True,
        generator=rng,
    )
    burn_in = int(BURN_IN * shape.rounds)
    exchange.run(burn_in, steps=STEPS)
    left = shape.rounds - burn_in
    most = min(MOST_FRAMES, max(FEWEST_FRAMES, int(energies / ENERGIES_PER_FRAME)))
    frames: list[Tensor] = []

    def keep(frame: Frame) -> None:
        frames.append(frame.at(0)[0])

    exchange.run(left, steps=STEPS, observer=keep, every=max(1, left * shape.ladders // most))
    x = torch.stack(frames).permute(3, 0, 1, 2).flatten(0, 1).permute(1, 2, 0).double()
    chain = np.repeat(np.arange(shape.ladders), len(frames))
    u = target.reduced_potential(x)
    kept = torch.isfinite(u)
    if conformers is not None and len(conformers):
        kept &= Configuration(target.molecule, conformers[0]).is_kept(x)
    spent = shape.walkers * (1 + relaxed.n_steps + shape.rounds * STEPS + 2) + len(u)
    rows = kept.numpy()
    return Challenge(x.permute(2, 0, 1).numpy()[rows], u.numpy()[rows], chain[rows], spent)


def spread_starts(target: Target, n: int, rng: torch.Generator, conformers: NDArray | None) -> Tensor:
    """``n`` structures ``(atoms, 3, n)``: conformers, then random torsions far from all before, in all charts in turn.

    The distance of two points of the torsions in one chart is Σ (1 − cos Δτ); points of two charts are never near.
    """
    atlas = target.coordinates
    like = torch.empty(0, dtype=atlas.charts[0].dtype)
    parts, points, labels = [], torch.empty(0, atlas.n_torsions), torch.empty(0, dtype=torch.int64)
    if conformers is not None and len(conformers):
        known = torch.as_tensor(conformers[:n]).permute(1, 2, 0).to(like.dtype).contiguous()
        parts.append(known)
        labels = atlas.assign(known)
        points = atlas.from_cartesian(known, labels)[0]
    left = n - len(labels)
    if left > 0:
        pool = random_circles((CANDIDATES * n, atlas.n_torsions), like, rng)
        chart = torch.arange(len(pool)) % atlas.n_charts
        chosen = _farthest(pool, chart, points, labels, left, atlas.n_slow)
        stiff = like.new_zeros(left, atlas.n_stiff)
        parts.append(atlas.to_cartesian(chart[chosen], pool[chosen], stiff)[0])
    return torch.cat(parts, dim=-1)


def _farthest(pool: Tensor, chart: Tensor, points: Tensor, labels: Tensor, n: int, leading: int) -> Tensor:
    """Numbers ``(n,)`` of the points of a pool that are farthest from those before them, charts by turns."""
    nearest = torch.full((len(pool),), math.inf)
    n_charts = int(chart.max()) + 1

    def approach(point: Tensor, label: Tensor) -> None:
        distance = (1.0 - (pool[:, :leading] - point[:leading]).cos()).sum(1)
        torch.minimum(nearest, torch.where(chart == label, distance, math.inf), out=nearest)

    for point, label in zip(torch.nan_to_num(points), labels, strict=True):
        approach(point, label)
    chosen = []
    for k in range(n):
        mine = chart == k % n_charts
        best = int(torch.where(mine, nearest, -1.0).argmax())
        chosen.append(best)
        nearest[best] = -1.0
        approach(pool[best], chart[best])
        nearest[torch.tensor(chosen)] = -1.0
    return torch.tensor(chosen)
