"""A group that turns about an axis into an equivalent labelling of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rotor:
    """Equivalent branches about one axis, whose cyclic exchange is the same molecule.

    ``branches[i][j]`` is the atom of branch i that takes part as ``branches[0][j]`` does. The first atom of each is
    bonded to the axis, that of branch 0 leads it. An exchange by one moves every branch into the place of the next.
    """

    branches: tuple[tuple[int, ...], ...]

    @property
    def order(self) -> int:
        """Number of images."""
        return len(self.branches)

    @property
    def atoms(self) -> tuple[int, ...]:
        """The atoms bonded to the axis, the leader first."""
        return tuple(branch[0] for branch in self.branches)
