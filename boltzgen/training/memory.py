"""Which earlier draws are learnt from again: those at the current temperature, and at another that has been passed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from boltzgen.random_streams import Purpose, random_stream
from boltzgen.training.annealing import Cooling
from boltzgen.training.method import Method
from boltzgen.training.objectives import Scored
from boltzgen.training.replay import REPLAY_CAPACITY, VISITS_CAPACITY, Pool, Recalled, Replay

POOL_REFRESH = 5
"""Steps at one temperature after which the pools of reweighted draws are rebuilt from the replay."""


class Memory:
    """The replay of a training, and what is drawn from it while the temperature falls.

    ``hot`` is ln T/T₀ of the passed temperature, None as long as there is none; ``pools`` are of the current one and of
    that. ``visited`` are draws at slow coordinates of challengers, at the current one, None if there are none.
    """

    def __init__(self, cooling: Cooling, method: Method, seed: int) -> None:
        self.replay = Replay(REPLAY_CAPACITY)
        self.visits = Replay(VISITS_CAPACITY)
        self.pools: tuple[Pool, ...] = ()
        self.visited: Recalled | None = None
        self.hot: float | None = None
        self._cooling, self._method, self._seed = cooling, method, seed

    @property
    def is_current(self) -> bool:
        """Whether the pools are of the current temperature: before the first refresh they are of the one before."""
        return bool(self.pools) and self._cooling.steps > POOL_REFRESH

    def heat(self, level: int) -> float:
        """ln T/T₀ of a level, as draws in single precision have it."""
        return torch.tensor(self._cooling.heat(level), dtype=torch.float32).item()

    def add(self, draws: list[Scored], visited: list[Scored]) -> None:
        """Remember draws, and those at slow coordinates of challengers, if the method replays any."""
        if self._method.replay:
            for scored in draws:
                self.replay.add(scored)
            for scored in visited:
                self.visits.add(scored)

    def refresh(self, step: int) -> None:
        """Every few steps choose another passed temperature, and gather what is remembered of it and of the current.

        The pools stay until there are draws at a new temperature: the torsions change little.
        """
        if self._cooling.steps % POOL_REFRESH:
            return
        level = self._cooling.level
        if self._method.hot_share and level:
            rng = random_stream(Purpose.HEAT, (self._seed, step))
            self.hot = self.heat(int(torch.randint(level, (), generator=rng)))
        if self._method.replay and self._cooling.steps:
            heats = [self.heat(level)] + ([] if self.hot is None else [self.hot])
            self.pools = tuple(pool for pool in map(self.replay.pool, heats) if pool)
            self.visited = self.visits.draws(heats[0])

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        pools = {str(k): pool.to_tree() for k, pool in enumerate(self.pools)}
        visits = {"visits": self.visits.to_tree(), "visited": self.visited and self.visited.to_tree()}
        return {"replay": self.replay.to_tree(), **visits, "pools": pools, "hot": self.hot}

    def load_tree(self, tree: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what :meth:`to_tree` returned."""
        self.replay.load_tree(tree["replay"], device)
        self.visits.load_tree(tree["visits"], device)
        self.visited = tree["visited"] and Recalled.from_tree(tree["visited"], device)
        self.pools = tuple(Pool.from_tree(tree["pools"][key], device) for key in sorted(tree["pools"]))
        self.hot = tree["hot"]
