"""The budget of a training: what it counts, how much of it is used, and what it is good for.

It is energies, seconds or both. Its used share is the progress that every schedule follows, so all end with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from boltzgen.training.counters import Counters

FIRST_GUESS_OF_SPEED = 10_000.0
"""Draws a second that are expected of a budget in seconds until ``STEPS_TO_TELL_SPEED`` steps have been timed."""

STEPS_TO_TELL_SPEED = 20

ENOUGH = 0.98
"""Effective share of recent draws above which a training has nothing left to gain."""

STEPS_TO_JUDGE = 50
"""Steps over which that is seen."""

LAST_PHASE = 0.8
"""Progress at which the largest batches begin: where a training goes on that has learnt enough before."""


class Budget:
    """Energies and seconds that a training may spend, seen against its counters.

    ``max_energies`` counts draws ``of_frames`` where no energies are evaluated, ``time_budget`` is in seconds; None is
    no limit. ``cost`` is how many of these a draw takes. ``needed`` is the share of both that is to be used.
    """

    def __init__(
        self,
        counters: Counters,
        max_energies: int | None,
        time_budget: float | None = None,
        *,
        cost: int = 1,
        of_frames: bool = False,
    ) -> None:
        self.max_energies, self.time_budget, self.of_frames = max_energies, time_budget, of_frames
        self.cost = 1 if of_frames else cost
        self.counters = counters
        self.needed = 1.0

    @property
    def progress(self) -> float:
        """Used share of the budget, or of what is left of it by :meth:`end_if_enough`, 0 to 1."""
        return min(1.0, self._used / self.needed)

    @property
    def knows_speed(self) -> bool:
        """Whether it can be told how many energies the seconds are good for."""
        return not self.time_budget or self.counters.step >= STEPS_TO_TELL_SPEED

    @property
    def expected_energies(self) -> float:
        """How many energies the budget is good for, as far as the speed until now tells."""
        expected = self.max_energies or math.inf
        if self.time_budget:
            speed = self._spent / self.counters.seconds if self.knows_speed else FIRST_GUESS_OF_SPEED
            expected = min(expected, speed * self.time_budget)
        return expected

    def affordable(self, batch: int) -> int:
        """A batch, or the draws that are left if these are fewer, but one at least."""
        return max(1, min(batch, (self.max_energies - self._spent) // self.cost)) if self.max_energies else batch

    def end_if_enough(self, ess_fractions: Sequence[float]) -> None:
        """Use no more than what a last phase of small steps takes, where more would not pay.

        That is where draws of the last ``STEPS_TO_JUDGE`` steps, whose ``ess_fractions`` at the target's temperature
        are given, are on average worth ``ENOUGH`` of as many independent samples.
        """
        recent = ess_fractions[-STEPS_TO_JUDGE:]
        if len(recent) < STEPS_TO_JUDGE or self.progress >= LAST_PHASE:
            return
        if min(recent) >= 0.9 * ENOUGH and math.fsum(recent) >= ENOUGH * len(recent):
            self.needed = self._used / LAST_PHASE

    @property
    def _spent(self) -> int:
        """What ``max_energies`` counts."""
        return self.counters.frames if self.of_frames else self.counters.energies

    @property
    def _used(self) -> float:
        """Used share of the whole budget: the larger of energies and seconds."""
        by_energies = 0.0
        if self.max_energies:
            left = self.max_energies - self._spent
            by_energies = self._spent / self.max_energies if left >= self.cost else 1.0
        by_time = self.counters.seconds / self.time_budget if self.time_budget else 0.0
        return max(by_energies, by_time)
