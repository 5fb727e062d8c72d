"""When replica exchange is due: its share of the budget, cut into rounds that keep pace with the training."""

from __future__ import annotations

from dataclasses import dataclass

from boltzgen.training.budget import Budget
from boltzgen.training.challengers import LEAST_ROUND

FEWEST_ROUNDS, MOST_ROUNDS = 20, 100
"""Rounds over which the energies of exchange are spent: none if not for the fewest of the least length."""

LAST_ROUND = 0.95
"""Progress after which nothing can be learnt from further challengers."""

BURN_IN = 0.2
"""Share of the energies of exchange whose structures are left out."""


@dataclass(frozen=True)
class Rounds:
    """Rounds of exchange; none where the budget is too small for enough.

    They take ``share`` of the energies where a draw takes one. Where it takes more, and ``cost`` times as long, they
    take as much of the time: ``share`` to 1 − ``share`` energies, times ``cost``, for each draw.
    """

    budget: Budget
    share: float
    cost: float = 1.0

    @property
    def length(self) -> float:
        """Energies of a round; 0 where the budget is too small."""
        in_all = self._in_all
        return max(LEAST_ROUND, in_all / MOST_ROUNDS) if in_all >= FEWEST_ROUNDS * LEAST_ROUND else 0.0

    @property
    def expected_draws(self) -> float:
        """How many draws the budget is good for."""
        return self.budget.expected_energies / (self.budget.cost + (self._for_each_draw if self.length else 0.0))

    @property
    def _for_each_draw(self) -> float:
        return self.cost * self.share / (1.0 - self.share)

    @property
    def _in_all(self) -> float:
        """Energies of all rounds."""
        each = self._for_each_draw
        return each * self.budget.expected_energies / (self.budget.cost + each) if each else 0.0

    def is_due(self, spent: int) -> bool:
        """Whether exchange that has ``spent`` so many energies lags behind its share of all.

        Not before the speed is known: a round by a guess may take half of the time.
        """
        draws = (self.budget.counters.energies - spent) / self.budget.cost
        lags = spent < self._for_each_draw * draws and self.budget.progress < LAST_ROUND
        return lags and self.budget.knows_speed and self.length > 0.0

    def is_burnt_in(self, spent: int) -> bool:
        """Whether structures that come after so many energies of exchange are to be kept."""
        return spent > BURN_IN * self._in_all
