"""Structures that the flow did not make, and what it lacks of them.

A flow learns from its own draws, so a state that it never draws it never misses. Challengers are structures at the
target's temperature from replica exchange on the same energy, begun from random torsions in all charts: energies only,
which are counted. A challenger is *thin* as far as ln p(x)/q(x) exceeds what is usual for the flow's own draws,
reweighted, by more than 2 nats: λ(x) = max(0, 1 − e^{2 + usual} q(x)/p(x)). The slow coordinates learn from them by
maximum likelihood, in proportion to λ, and the stiff ones by reverse KL of fresh draws at their slow coordinates. They
are few and alike, so the stiff coordinates would learn them by heart. Once nothing is thin, nothing is left to learn,
and exchange may be short of equilibrium: what it holds too much of counts only until it is no longer thin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boltzgen.coordinates.locate import locate
from boltzgen.errors import InputError
from boltzgen.flow.generator import Generator, Slow
from boltzgen.sampling.dynamics import repartition_hydrogen_masses
from boltzgen.sampling.minimise import minimise
from boltzgen.sampling.replica_exchange import Frame, ReplicaExchange, geometric_temperatures
from boltzgen.target import Target
from boltzgen.training.data import LatentFrames

LADDERS = 8
RUNGS = 4
HOTTEST = 1.8
"""Temperature of the highest rung over that of the lowest."""

FRICTION = 5.0
"""1/ps: what relaxation left over is to leave soon."""

TIMESTEP = 2.0
"""fs, with hydrogens of 3 dalton: positions at equilibrium do not depend on masses."""

STEPS = 50
"""Steps between exchanges."""

KEPT = 2048
"""Structures that challenge, the latest."""

KEEP_EVERY = 5
"""Exchanges between structures of a ladder: 0.5 ps."""

ROUNDS = 20
"""Rounds over which a share of energies is spent."""

BURN_IN = 4
"""Rounds whose structures are left out."""

LEAST_ROUND = 4 * KEEP_EVERY * STEPS * LADDERS * RUNGS
"""Energies of the shortest round worth while: 2 ps of each walker."""

RELAXATION = 200
"""Steps of relaxation from random torsions, an energy each."""

CHUNK = 1024
"""Challengers whose density is computed at once."""


MARGIN = 2.0
"""nats above what is usual, beyond which a challenger is thin."""


@dataclass(frozen=True)
class Thin:
    """Slow coordinates of challengers, their weights λ / Σ λ ``(n,)``, and the mean of λ, 0 to 1: what is missing."""

    slow: Slow
    weights: Tensor
    missing: float

    def draw(self, n: int, rng: torch.Generator) -> Slow:
        """Resample ``n`` by weight, with replacement."""
        return self.slow[torch.multinomial(self.weights, n, replacement=True, generator=rng)]


class Challengers:
    """Ladders of replica exchange that go on in rounds, and their latest structures at the target's temperature."""

    def __init__(self, target: Target, seed: int) -> None:
        """``target`` in the precision and on the device of the training."""
        self.target, self.seed = target, seed
        self.energies = self.rounds = self.outside = 0
        self.missing = 0.0
        self._device = target.coordinates.charts[0].device
        self._masses = _masses(target)
        self._temperatures = geometric_temperatures(target.temperature, HOTTEST * target.temperature, RUNGS)
        self._walkers: Tensor | None = None
        self._frames: LatentFrames | None = None
        self._u: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self._frames is None else len(self._frames)

    def go_on(self, energies: float) -> None:
        """Spend about so many energies; the first rounds are spent on coming to equilibrium."""
        rng = self._random(self.rounds)
        if self._walkers is None:
            self._walkers = self._start(rng)
        exchange = ReplicaExchange(
            self.target.potential,
            self._walkers,
            self._masses,
            self._temperatures,
            friction=FRICTION,
            timestep=TIMESTEP,
            recentre=True,
            generator=rng,
        )
        n_exchanges = max(KEEP_EVERY, round(energies / (STEPS * LADDERS * RUNGS)))
        kept: list[Tensor] = []

        def keep(frame: Frame) -> None:
            x, energy = frame.at(0)
            kept.append(x[..., torch.isfinite(energy)])

        exchange.run(n_exchanges, steps=STEPS, observer=keep, every=KEEP_EVERY)
        self.energies += self._walkers.shape[-1] * (1 + n_exchanges * STEPS)
        self.rounds += 1
        if self.rounds > BURN_IN:
            self._remember(torch.cat(kept, dim=-1))
        self._walkers = _without_failed(exchange)

    @torch.no_grad()
    def judge(self, generator: Generator, usual: float) -> None:
        """Weigh the challengers anew by what a flow lacks of them.

        ``usual`` is the mean of ln w, unnormalised, over the flow's own draws by their weights: ln Z + KL(p‖q), as far
        as these know p.
        """
        if self._frames is None or self._u is None:
            return
        frames = self._frames
        chunks = torch.arange(len(frames), device=self._u.device).split(CHUNK)
        log_prob = torch.cat([generator.log_prob(frames.slow[rows], frames.stiff[rows]) for rows in chunks])
        excess = (frames.log_det - self._u - log_prob).double() - usual - MARGIN
        lacking = (-torch.expm1(-excess)).clamp(min=0.0)  # 1 where the flow has no density at all
        self.missing = lacking.mean().item()
        weights = lacking / lacking.sum() if self.missing > 0.0 else torch.full_like(lacking, 1.0 / len(lacking))
        self._frames = replace(frames, weights=weights)

    @property
    def thin(self) -> Thin | None:
        """The challengers by what the flow lacks of them; None if it lacks nothing, or was not judged yet."""
        if self._frames is None or not self.missing > 0.0:
            return None
        return Thin(self._frames.slow, self._frames.weights, self.missing)

    def _start(self, rng: torch.Generator) -> Tensor:
        """Random torsions in random charts, relaxed: ``(atoms, 3, walkers)``."""
        atlas, n = self.target.coordinates, LADDERS * RUNGS
        like = torch.empty(0, dtype=atlas.charts[0].dtype, device=self._device)
        label = torch.randint(atlas.n_charts, (n,), generator=rng, device=self._device)
        torsions = (
            2.0 * math.pi * torch.rand((n, atlas.n_torsions), generator=rng, dtype=like.dtype, device=like.device)
            - math.pi
        )
        x, _ = atlas.to_cartesian(label, torsions, like.new_zeros(n, atlas.n_stiff))
        relaxed = minimise(self.target.potential, x, max_steps=RELAXATION)
        self.energies += n * (1 + relaxed.n_steps)
        return relaxed.positions

    def _remember(self, x: Tensor) -> None:
        located = locate(self.target.coordinates, x)
        self.outside += int((~located.inside).sum())
        slow = Slow(located.label, located.torsions)
        ones = torch.ones(len(slow.label), dtype=torch.float64, device=x.device)
        new = LatentFrames(slow, located.stiff, located.log_det, ones)
        u = self.target.reduced_potential(x[..., located.inside])
        self.energies += len(u)
        if self._frames is not None and self._u is not None:
            new, u = LatentFrames.cat([self._frames, new]), torch.cat([self._u, u])
        latest = torch.arange(len(u), device=u.device)[-KEPT:]
        self._frames, self._u = new.select(latest), u[latest]

    def _random(self, stream: int) -> torch.Generator:
        state = np.random.SeedSequence((self.seed, 1, stream)).generate_state(1, np.uint64)[0]
        return torch.Generator(self._device).manual_seed(int(state >> 1))

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        counts = {"energies": self.energies, "rounds": self.rounds, "outside": self.outside}
        walkers = None if self._walkers is None else self._walkers.cpu().numpy()
        frames = None
        if self._frames is not None and self._u is not None:
            frames = {**self._frames.to_tree(), "u": self._u.cpu().numpy()}
        return {**counts, "missing": self.missing, "walkers": walkers, "frames": frames}

    def load_tree(self, tree: Mapping[str, Any]) -> None:
        """Go on from what :meth:`to_tree` returned."""
        device = self._device
        self.energies, self.rounds, self.outside = (int(tree[name]) for name in ("energies", "rounds", "outside"))
        self.missing = tree["missing"]
        if tree["walkers"] is not None:
            self._walkers = torch.as_tensor(tree["walkers"], device=device)
        if tree["frames"] is not None:
            self._frames = LatentFrames.from_tree(tree["frames"], device)
            self._u = torch.as_tensor(tree["frames"]["u"], device=device)


def _masses(target: Target) -> Tensor:
    """Masses with heavy hydrogens where the molecule has the mass to give."""
    masses = torch.tensor(target.molecule.masses, dtype=torch.float64)
    try:
        return repartition_hydrogen_masses(masses, target.molecule.bonds)
    except InputError:  # water, hydrogen, lithium hydride: all atoms alike, which positions do not notice
        return masses.clamp(min=6.0)


def _without_failed(exchange: ReplicaExchange) -> Tensor:
    """Walkers in the order of their rungs, those that failed replaced by sound ones."""
    walkers = exchange.walkers
    order = exchange.walker_at.reshape(-1)
    failed = walkers.failed[order]
    if failed.any():
        sound = order[~failed]
        if not len(sound):
            raise InputError("replica exchange failed in every walker: the energy has no stable structure.")
        order = torch.where(failed, sound[torch.arange(len(order), device=order.device) % len(sound)], order)
    return walkers.positions[..., order].clone()
