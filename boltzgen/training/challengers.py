"""Structures that the flow did not make, and what it lacks of them.

A flow learns from its own draws, so a state that it never draws it never misses. Challengers are structures at the
target's temperature from replica exchange on the same energy, begun from random torsions in all charts: energies only,
which are counted. A small share of the draws of a step has its slow coordinates from a kernel density of these
structures, with the rest from the flow. These draws have exact weights, so the slow coordinates learn from them what
p says, not how often a short exchange happened to visit a state; and the stiff ones learn by reverse KL there as
anywhere. So exchange need not be in equilibrium, and where the flow lacks nothing it changes nothing. Structures that
the flow has too little of are chosen more often.

At how many of the structures the flow is thin is measured, and told. It is no share of the ensemble: a short exchange
dwells in rare states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

from boltzgen.coordinates.charts import random_circles, wrap
from boltzgen.coordinates.locate import locate
from boltzgen.dynamics.langevin import slowed_masses
from boltzgen.dynamics.minimise import minimise
from boltzgen.dynamics.replica_exchange import Frame, ReplicaExchange, geometric_temperatures
from boltzgen.errors import InputError
from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Lead, Slow
from boltzgen.random_streams import Purpose, random_stream
from boltzgen.target import AnyTarget, Target
from boltzgen.training.structures import Structures

LADDERS = 4
RUNGS = 8
HOTTEST = 2.5
"""Temperature of the highest rung over that of the lowest."""

FRICTION = 5.0
"""1/ps: what relaxation left over is to leave soon."""

TIMESTEP = 3.0
"""fs, with hydrogens of 3 dalton: positions at equilibrium do not depend on masses."""

STEPS = 50
"""Steps between exchanges."""

KEPT = 8192
"""Structures that challenge, the latest: 1.5 ns of each ladder."""

KEEP_EVERY = 5
"""Exchanges between structures of a ladder: 0.75 ps."""

LEAST_ROUND = 4 * KEEP_EVERY * STEPS * LADDERS * RUNGS
"""Energies of the shortest round worth while: 3 ps of each walker."""

RELAXATION = 200
"""Steps of relaxation from random torsions, an energy each."""

THIN = 3.0
"""nats of ln p/q beyond which a flow is thin at a structure."""

KERNELS = 512
"""Structures around which slow coordinates are proposed at a time."""

KERNEL_WIDTH = 0.3
"""Radians, about the width of a well."""


def can_propose(target: AnyTarget) -> TypeGuard[Target]:
    """Whether there are slow coordinates, rotors aside, that structures of a molecule could tell."""
    coordinates = target.coordinates
    return isinstance(target, Target) and (coordinates.n_slow > 0 or coordinates.n_charts > 1)


class Challengers:
    """Ladders of replica exchange that go on in rounds, and their latest structures at the target's temperature."""

    def __init__(self, target: Target, seed: int) -> None:
        """``target`` in the precision and on the device of the training."""
        self.target, self.seed = target, seed
        self.energies = self.rounds = 0
        self.thin = math.nan
        self._n_leading = target.coordinates.n_slow
        self._device = target.coordinates.charts[0].device
        self._masses = slowed_masses(target.molecule.masses, target.molecule.bonds)
        self._temperatures = geometric_temperatures(target.temperature, HOTTEST * target.temperature, RUNGS)
        self._walkers: Tensor | None = None
        self._structures: Structures | None = None
        self._seeds: Structures | None = None

    @property
    def n_structures(self) -> int:
        """Structures that are remembered, and those given."""
        return sum(map(len, self._sources))

    @property
    def _sources(self) -> list[Structures]:
        """What exchange found and what was given, as far as there is any."""
        return [part for part in (self._structures, self._seeds) if part is not None]

    def add_seeds(self, x: Tensor) -> None:
        """Propose structures ``(atoms, 3, n)`` that are given, too: of basins that a flow is to learn.

        They lead half of the proposals where exchange has structures as well; what they weigh decides what is learnt.

        Raises
        ------
        InputError
            If none is in the support of the coordinates.
        """
        found = self._located(x)
        if not len(found):
            raise InputError("none of the structures of lost states lies in the support of the coordinates.")
        self._seeds = found

    def go_on(self, energies: float, *, keep: bool) -> None:
        """Spend about so many energies, and ``keep`` the structures, or go on towards equilibrium."""
        rng = random_stream(Purpose.EXCHANGE, (self.seed, self.rounds), self._device)
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

        def remember(frame: Frame) -> None:
            x, energy = frame.at(0)
            kept.append(x[..., torch.isfinite(energy)])

        exchange.run(n_exchanges, steps=STEPS, observer=remember, every=KEEP_EVERY)
        self.energies += self._walkers.shape[-1] * (1 + n_exchanges * STEPS)
        self.rounds += 1
        if keep:
            self._remember(torch.cat(kept, dim=-1))
        self._walkers = _without_failed(exchange)

    def propose(self, n: int, rng: torch.Generator) -> Lead:
        """Draw labels and the torsions that are no rotors from a kernel density of the structures."""
        m = self._n_leading
        centre = self.visit(KERNELS, rng)
        label, centres = centre.label, centre.torsions[:, :m]
        chosen = torch.randint(KERNELS, (n,), generator=rng, device=self._device)
        noise = torch.empty((n, m), dtype=centres.dtype, device=self._device).normal_(generator=rng)
        torsions = wrap(centres[chosen] + KERNEL_WIDTH * noise)
        # One torsion after another: a few n × KERNELS numbers at a time, fewer than n draws leave for their gradient.
        squares = torch.zeros((n, KERNELS), dtype=centres.dtype, device=self._device)
        for one, of_kernels in zip(torsions.T, centres.T, strict=True):
            squares += (wrap(one[:, None] - of_kernels) / KERNEL_WIDTH).square()
        log_kernel = -0.5 * squares - m * math.log(KERNEL_WIDTH * math.sqrt(2.0 * math.pi))
        log_kernel = log_kernel.masked_fill(label[chosen][:, None] != label, -math.inf)
        return Lead(label[chosen], torsions, torch.logsumexp(log_kernel, dim=1) - math.log(KERNELS))

    def visit(self, n: int, rng: torch.Generator) -> Slow:
        """The slow coordinates of ``n`` structures as they are, from each source as many."""
        sources = self._sources
        sizes = [(n + k) // len(sources) for k in range(len(sources))]
        return Slow.cat([source.draw(size, rng) for source, size in zip(sources, sizes, strict=True) if size])

    def judge(self, generator: Generator, log_z: float) -> None:
        """Find how far and at what share of the structures a flow is thin, given ln Z."""
        if self._structures is not None:
            self._structures = self._structures.judged(generator, log_z)
            self.thin = (self._structures.excess > THIN).double().mean().item()

    def _start(self, rng: torch.Generator) -> Tensor:
        """Random torsions in random charts, relaxed: ``(atoms, 3, walkers)``."""
        atlas, n = self.target.coordinates, LADDERS * RUNGS
        like = torch.empty(0, dtype=atlas.charts[0].dtype, device=self._device)
        label = torch.randint(atlas.n_charts, (n,), generator=rng, device=self._device)
        torsions = random_circles((n, atlas.n_torsions), like, rng)
        x, _ = atlas.to_cartesian(label, torsions, like.new_zeros(n, atlas.n_stiff))
        relaxed = minimise(self.target.potential, x, max_steps=RELAXATION)
        self.energies += n * (1 + relaxed.n_steps)
        return relaxed.positions

    def _remember(self, x: Tensor) -> None:
        new = self._located(x)
        self._structures = Structures.latest([new] if self._structures is None else [self._structures, new], KEPT)

    def _located(self, x: Tensor) -> Structures:
        located = locate(self.target.coordinates, x)
        u = self.target.reduced_potential(x[..., located.inside])
        self.energies += len(u)
        return Structures.unjudged(Slow(located.label, located.torsions), located.stiff, located.log_det, u)

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        return {
            "energies": self.energies,
            "rounds": self.rounds,
            "thin": self.thin,
            "walkers": None if self._walkers is None else self._walkers.cpu().numpy(),
            "structures": None if self._structures is None else self._structures.to_tree(),
        }

    def load_tree(self, tree: Mapping[str, Any]) -> None:
        """Go on from what :meth:`to_tree` returned."""
        self.energies, self.rounds, self.thin = int(tree["energies"]), int(tree["rounds"]), tree["thin"]
        if tree["walkers"] is not None:
            self._walkers = torch.as_tensor(tree["walkers"], device=self._device)
        if tree["structures"] is not None:
            self._structures = Structures.from_tree(tree["structures"], self._device)


def _without_failed(exchange: ReplicaExchange) -> Tensor:
    """Walkers in the order of their rungs, those that failed replaced by sound ones."""
    walkers = exchange.walkers
    order = exchange.walker_at.reshape(-1)
    failed = walkers.failed[order]
    if failed.any():
        sound = order[~failed]
        if not len(sound):
            raise InputError(
                "replica exchange failed in every walker: the energy has no stable structure. Check the force field, "
                "or train without: --set train.exchange_share=0 --no-resume."
            )
        order = torch.where(failed, sound[torch.arange(len(order), device=order.device) % len(sound)], order)
    return walkers.positions[..., order].clone()
