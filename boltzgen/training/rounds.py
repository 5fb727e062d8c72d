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
    """Rounds of exchange, which take ``share`` of the energies; none where the budget is too small for enough."""

    budget: Budget
    share: float

    @property
    def length(self) -> float:
        """Energies of a round; 0 where the budget is too small."""
        in_all = self._in_all
        return max(LEAST_ROUND, in_all / MOST_ROUNDS) if in_all >= FEWEST_ROUNDS * LEAST_ROUND else 0.0

    @property
    def expected_draws(self) -> float:
        """How many draws the budget is good for."""
        of_draws = 1.0 - self.share if self.length else 1.0
        return of_draws * self.budget.expected_energies / self.budget.cost

    @property
    def _in_all(self) -> float:
        """Energies of all rounds."""
        return self.share * self.budget.expected_energies if self.share else 0.0

    def is_due(self, spent: int) -> bool:
        """Whether exchange that has ``spent`` so many energies lags behind its share of all.

        Not before the speed is known: a round by a guess may take half of the time.
        """
        lags = spent < self.share * self.budget.counters.energies and self.budget.progress < LAST_ROUND
        return lags and self.budget.knows_speed and self.length > 0.0

    def is_burnt_in(self, spent: int) -> bool:
        """Whether structures that come after so many energies of exchange are to be kept."""
        return spent > BURN_IN * self._in_all
