"""A system and what is known of it exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from boltzgen.target import AnyTarget

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """A function of configurations ``(n, sites, components)`` → ``(n,)``, and its mean in the ensemble.

    Functions that are true or false are populations. A *Stein identity* has the mean zero for any smooth f that keeps
    away from edges: E[f ∂w − ∂f] = 0 with w = u − ln(volume element), which integration by parts gives. It compares
    samples with the slope of the energy, here one that is written down a second time.
    """

    name: str
    exact: float
    of: Callable[[Array], NDArray]


@dataclass(frozen=True)
class Case:
    """A target with its exact ln Z, averages, and ln Z at other temperatures in K.

    ``mean_u`` is ⟨u⟩ of the energies that come with the samples, and ``energy`` u of configurations ``(n, sites,
    components)``, by other means than the target's. Training takes ``energies`` energies from ``start`` times the
    target's temperature on, and a flow of ``sizes``; a flow that has learnt is worth more than ``least_ess`` of as
    many exact samples. An even one has exact weights too, and would pass all else.
    ``estimators`` are redraws, bridges and number of samples of other ways to draw.
    """

    name: str
    target: AnyTarget
    log_z: float
    means: tuple[Mean, ...]
    energy: Callable[[Array], Array]
    energies: int
    mean_u: float | None = None
    other_temperatures: dict[float, float] = field(default_factory=dict)
    start: float = 2.0
    sizes: dict[str, int] = field(default_factory=dict)
    least_ess: float = 0.25
    estimators: tuple[tuple[int, int, int], ...] = ()
