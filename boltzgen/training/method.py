"""Which losses a step of training sums, and over which draws: all that tells one method from another.

============  ====================================  ============================================  =============
weight        loss                                  draws                                         energies each
============  ====================================  ============================================  =============
``own``       reverse KL                            fresh draws of the flow                       1
``replay``    forward KL of the slow coordinates    earlier draws, resampled by their weights     0
``data``      −ln q                                 frames of the ensemble                        0
``spread``    KL of a histogram from uniform        fresh draws of the flow                       0
============  ====================================  ============================================  =============
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Method:
    """Weights of the losses, and how draws of the flow are made; a loss of weight zero is not computed."""

    own: float = 0.0
    replay: float = 0.0
    data: float = 0.0
    spread: float = 0.0
    through_slow: bool = False
    """Whether the reverse KL has a gradient through the slow coordinates, or the stiff ones alone."""
    broad_share: float = 0.0
    """Share of the draws in which one slow coordinate (rotors excepted) is drawn uniformly: the stiff coordinates stay
    right where the flow has little mass, and the slow ones learn from every basin."""
    challengers: float = 0.0
    """Share of the draws whose slow coordinates are proposed by structures from replica exchange."""
    hot_share: float = 0.0
    """Share of the draws made at a temperature passed before, which the flow is not to forget."""
    cools: bool = False
    """Whether the temperature falls to that of the target, or is it from the beginning."""

    @property
    def learns_from_data_alone(self) -> bool:
        """Whether no loss needs an energy; held-out frames then decide which weights are the best."""
        return self.own == 0.0 and self.replay == 0.0

    def mixed_with_data(self, weight: float) -> Method:
        """(1 − a) times the losses of energies plus a times that of data."""
        if weight == 1.0:
            return replace(DATA, spread=self.spread)
        return replace(self, own=(1.0 - weight) * self.own, replay=(1.0 - weight) * self.replay, data=weight)


ANNEALED = Method(own=1.0, replay=1.0, broad_share=0.25, hot_share=0.1, challengers=0.05, cools=True)
"""Stiff coordinates by reverse KL, slow ones by forward KL on reweighted draws, while the temperature falls."""

ENERGY = Method(own=1.0, through_slow=True)
"""Reverse KL of all coordinates at the temperature of the target. It loses modes, see docs/method.md."""

DATA = Method(data=1.0)
"""Maximum likelihood on frames of the ensemble."""

METHODS = {"annealed": ANNEALED, "energy": ENERGY, "data": DATA}
"""By the name that a user gives."""
