"""Sizes of a generator."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from boltzgen.coordinates.protocol import Coordinates

REDRAWS = 2
"""Draws of the stiff coordinates at each slow point of a training, where they relax: they share two thirds of that."""

RELAXED_POINT = 4.5
"""Time of learning from a slow point whose draws relax over that of one that does not: 3 to 6 for 62 and 102 atoms."""

EXCHANGE_SHARE, EXCHANGE_SHARE_OF_RELAXED = 1 / 3, 0.6
"""Of the energies of a training, for replica exchange: a draw that relaxes costs many, and these are cheap."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of a generator."""

    n_torsions: int
    n_stiff: int
    n_charts: int = 1
    n_bins: int = 16
    torsion_hidden: int = 64
    stiff_hidden: int = 128
    n_couplings: int = 5
    levers: tuple[int, ...] = ()
    """Stiff coordinates that are drawn before the others; if there are any, all are centred by relaxation."""
    relaxation: int = 12
    """Energies that relax all stiff coordinates; half of them relax the others, once the levers are drawn."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "levers", tuple(int(lever) for lever in self.levers))

    @property
    def redraws(self) -> int:
        """Draws of the stiff coordinates at each slow point of a training."""
        return REDRAWS if self.levers else 1

    @property
    def energies_per_point(self) -> int:
        """Energies behind a slow point of a training: those of its draws, and of relaxation."""
        return self.relaxation + self.redraws * (1 + self.relaxation // 2) if self.levers else 1

    @property
    def cost_of_point(self) -> float:
        """Time that learning from a slow point takes, about, in units of that without relaxation."""
        return RELAXED_POINT if self.levers else 1.0

    @property
    def exchange_share(self) -> float:
        """Share of the energies of a training for replica exchange, unless another is asked for."""
        return EXCHANGE_SHARE_OF_RELAXED if self.levers else EXCHANGE_SHARE

    @classmethod
    def of(cls, coordinates: Coordinates, *, relaxes: bool = True, **sizes: int) -> Architecture:
        """The architecture for the coordinates of a system, without relaxation if so asked.

        ``sizes`` replace the defaults.
        """
        levers = coordinates.levers if relaxes else ()
        return cls(coordinates.n_torsions, coordinates.n_stiff, coordinates.n_charts, levers=levers, **sizes)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, to be stored."""
        return asdict(self) | {"levers": np.asarray(self.levers, dtype=np.int64)}
