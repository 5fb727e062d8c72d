"""Replica exchange: independent ladders of walkers at several temperatures, all in one batch.

::

    temperatures = geometric_temperatures(300.0, 800.0, 6)
    exchange = ReplicaExchange(potential, positions, masses, temperatures, timestep=2.0, generator=generator)
    result = exchange.run(1000, steps=250, observer=lambda frame: keep(frame.at(0)))
    result.acceptance, result.round_trips, result.n_failed

With T temperatures and W ladders the batch is T·W. Temperatures travel, coordinates do not: a walker keeps its place in
the batch and changes its *rung*, its index among the temperatures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from boltzgen.constants import GAS_CONSTANT
from boltzgen.dynamics.langevin import EnergyFunction, Langevin, Walkers
from boltzgen.errors import InputError


def geometric_temperatures(lowest: float, highest: float, n: int) -> list[float]:
    """T_k = T₀ (T_{n−1}/T₀)^{k/(n−1)} in K: equal acceptance on every rung where the heat capacity is constant.

    Raises
    ------
    InputError
        If there are fewer than two temperatures or they do not rise.
    """
    if n < 2 or not 0 < lowest < highest:
        raise InputError(f"{n} temperatures from {lowest:g} to {highest:g} K are no ladder.")
    return [lowest * (highest / lowest) ** (k / (n - 1)) for k in range(n)]


@dataclass(frozen=True)
class Frame:
    """All ladders between two exchanges, for an observer to read before it returns.

    Attributes
    ----------
    exchange
        How many rounds of exchanges this run has done.
    walkers
        The batch of T·W walkers.
    walker_at
        ``(T, W)``, which walker stands on each rung of each ladder.
    """

    exchange: int
    walkers: Walkers
    walker_at: Tensor

    def at(self, rung: int) -> tuple[Tensor, Tensor]:
        """Copies of positions ``(atoms, 3, W)`` in nm and energies ``(W,)`` at one temperature."""
        index = self.walker_at[rung]
        return self.walkers.positions[..., index], self.walkers.energy[index]


@dataclass(frozen=True)
class ExchangeResult:
    """What a run of replica exchange did.

    Attributes
    ----------
    temperatures
        ``(T,)`` K.
    attempted, accepted
        ``(T − 1,)`` exchanges between neighbouring rungs; pairs with a failed walker are not attempted.
    round_trips
        ``(T, W)`` by starting rung and ladder: passages of each walker from the lowest rung to the highest and back.
    occupancy
        ``(T, W, T)``: share of the rounds that each walker spent on each rung.
    failed
        ``(W,)``, ladders that hold a failed walker: what they give after the failure is no equilibrium average.
    n_failed
        Failed walkers.
    n_exchanges
        Rounds done.
    """

    temperatures: Tensor
    attempted: Tensor
    accepted: Tensor
    round_trips: Tensor
    occupancy: Tensor
    failed: Tensor
    n_failed: int
    n_exchanges: int

    @property
    def acceptance(self) -> Tensor:
        """``(T − 1,)`` share of the exchanges that were accepted; NaN where none was attempted."""
        return self.accepted.double() / self.attempted


class ReplicaExchange:
    """W ladders of T walkers under Langevin dynamics, with Metropolis exchange of temperatures between neighbours.

    Neighbouring rungs i, j exchange with probability min(1, exp[(β_i − β_j)(U_i − U_j)]), pairs (0,1), (2,3), … and
    (1,2), (3,4), … in turn; velocities are scaled by √(T_new/T_old), so that the joint distribution of positions and
    velocities stays exact (Sugita and Okamoto, Chem. Phys. Lett. 1999, 314, 141). Ladders never exchange with
    one another: they are independent, and their scatter is the error of any average.

    ``positions (atoms, 3, T·W)`` nm: walker t·W + w starts on rung t of ladder w; ``x.repeat(1, 1, T)`` puts W
    structures on every rung. ``masses (atoms,)`` dalton, ``temperatures`` K and rising, ``friction`` 1/ps, ``timestep``
    fs. With ``recentre``, centroids are moved to the origin at each exchange; only for energies that do not
    change under translation.
    """

    def __init__(
        self,
        potential: EnergyFunction,
        positions: Tensor,
        masses: ArrayLike,
        temperatures: Sequence[float],
        *,
        friction: float = 1.0,
        timestep: float = 1.0,
        recentre: bool = False,
        generator: torch.Generator,
    ) -> None:
        device, n, batch = positions.device, len(temperatures), positions.shape[-1]
        self.temperatures = torch.tensor(temperatures, dtype=torch.float64, device=device)
        if n < 2 or batch == 0 or batch % n or not bool((self.temperatures.diff() > 0).all()):
            raise InputError(f"{batch} walkers at {n} temperatures are no ladders of rising temperatures.")
        self.n_ladders = batch // n
        self.recentre = recentre
        self.generator = generator
        self.walker_at = torch.arange(batch, device=device).reshape(n, self.n_ladders)
        start = self.temperatures.repeat_interleave(self.n_ladders)
        walkers = Walkers.thermal(potential, positions, masses, start, generator)
        self.langevin = Langevin(
            potential, walkers, masses, start, friction=friction, timestep=timestep, generator=generator
        )
        self._parity = 0

    @property
    def walkers(self) -> Walkers:
        """The batch of T·W walkers."""
        return self.langevin.walkers

    @property
    def rung(self) -> Tensor:
        """``(T·W,)``, the index of each walker's temperature."""
        n = len(self.temperatures)
        rung = torch.empty_like(self.walker_at).reshape(-1)
        rung[self.walker_at] = torch.arange(n, device=rung.device)[:, None].expand(n, self.n_ladders)
        return rung

    def run(
        self,
        n_exchanges: int,
        *,
        steps: int,
        observer: Callable[[Frame], None] | None = None,
        every: int = 1,
        keep_on: Callable[[int], bool] | None = None,
    ) -> ExchangeResult:
        """Do ``n_exchanges`` rounds of ``steps`` steps and one exchange each.

        The observer sees every ``every``-th round, between its steps and its exchange. ``keep_on`` is asked before each
        round, with the number of those done, whether to go on.
        """
        n = len(self.temperatures)
        attempted, accepted = torch.zeros(2, n - 1, dtype=torch.int64, device=self.walker_at.device)
        tracker = _Tracker(self.rung, n)
        done = 0
        while done < n_exchanges and (keep_on is None or keep_on(done)):
            done += 1
            self.langevin.run(steps)
            if self.recentre:
                self.walkers.recentre()
            if observer and done % every == 0:
                observer(Frame(done, self.walkers, self.walker_at))
            tracker.count(self.rung)
            self._exchange(attempted, accepted)
        return ExchangeResult(
            temperatures=self.temperatures,
            attempted=attempted,
            accepted=accepted,
            round_trips=tracker.round_trips.reshape(n, -1),
            occupancy=(tracker.visits.double() / max(1, done)).reshape(n, -1, n),
            failed=self.walkers.failed[self.walker_at].any(dim=0),
            n_failed=self.walkers.n_failed,
            n_exchanges=done,
        )

    def _exchange(self, attempted: Tensor, accepted: Tensor) -> None:
        """One round between rungs (p, p+1), (p+2, p+3), …, with p alternating between 0 and 1."""
        n = len(self.temperatures)
        low = torch.arange(self._parity, n - 1, 2, device=self.walker_at.device)
        self._parity = 1 - self._parity
        i, j = self.walker_at[low], self.walker_at[low + 1]
        beta = 1.0 / (GAS_CONSTANT * self.temperatures)
        energy = self.walkers.energy.double()
        possible = ~(self.walkers.failed[i] | self.walkers.failed[j])
        difference = torch.where(possible, energy[i] - energy[j], -math.inf)
        uniform = torch.rand(i.shape, dtype=torch.float64, device=i.device, generator=self.generator)
        accept = uniform.log() < (beta[low] - beta[low + 1])[:, None] * difference
        attempted[low] += possible.sum(dim=1)
        accepted[low] += accept.sum(dim=1)
        self.walker_at[low], self.walker_at[low + 1] = torch.where(accept, j, i), torch.where(accept, i, j)
        old, new = self.langevin.thermostat.temperature, self.temperatures[self.rung]
        self.walkers.velocities.mul_((new / old).sqrt().to(self.walkers.velocities.dtype))
        self.langevin.thermostat.temperature = new


class _Tracker:
    """Counts where walkers have been among the rungs."""

    def __init__(self, rung: Tensor, n: int) -> None:
        self.top = n - 1
        self.visits = torch.zeros(len(rung), n, dtype=torch.int64, device=rung.device)
        self.round_trips = torch.zeros_like(rung)
        self._seen_bottom = torch.zeros_like(rung, dtype=torch.bool)
        self._seen_top = torch.zeros_like(rung, dtype=torch.bool)

    def count(self, rung: Tensor) -> None:
        """Take note of the present rungs ``(T·W,)``."""
        self.visits.scatter_add_(1, rung[:, None], torch.ones_like(rung)[:, None])
        self._seen_top |= self._seen_bottom & (rung == self.top)
        back = self._seen_top & (rung == 0)
        self.round_trips += back
        self._seen_top &= ~back
        self._seen_bottom |= rung == 0
