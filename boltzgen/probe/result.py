"""What the coverage probe has found: states with large weights, what became of each, and log Z by bridge sampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from boltzgen.statistics.free_energy import Estimate

Kind = Literal["lost", "suspected", "scarce", "unsettled", "covered", "rare"]
"""The worst first."""

TROUBLES: tuple[Kind, ...] = ("lost", "suspected", "scarce")
"""Kinds that stand in the way of a clean verdict."""


@dataclass(frozen=True)
class ProbedState:
    """A state that challengers visit where weights are large, or the samples' own are, and what was found.

    Attributes
    ----------
    name
        By the cuts that tell it from others.
    kind
        ``lost``; ``suspected`` of it, where it could not be weighed and challengers are often there; ``scarce``, drawn
        far too rarely by the samples' own weights; ``unsettled``, not weighed where challengers are seldom; ``rare``,
        below 1 % of the ensemble; ``covered`` after all: the flow draws it, with weights that scatter.
    share
        Z_S/Z, its estimated share of the ensemble; NaN, and no error, where it could not be weighed.
    drawn, weighted
        Its share of the flow's draws, as they are and by their weights.
    visited
        Its share of the challengers, which is no population.
    excess
        Median of ln w of its challengers less log Z, nats; +inf outside the support.
    structures
        Which challengers are in it, the one of the lowest energy first.
    cell
        The number of its state in each part of the partition that tells it; None if it is no state of these.
    """

    name: str
    kind: Kind
    share: Estimate
    drawn: float
    weighted: float
    visited: float
    excess: float
    structures: NDArray[np.intp]
    cell: Mapping[int, int] | None = None


@dataclass(frozen=True)
class ProbeCoverage:
    """What challengers say of a flow.

    Attributes
    ----------
    states
        Those with excess weights, lost ones first, then by their share.
    n_states, n_challengers, n_energies
        Joint states that challengers visit, challengers, and energies in all.
    largest_excess
        Over all joint states, nats.
    log_z, bridged
        Of the flow's samples alone; and of all that is known: by bridge sampling between samples and challengers, plus
        the weights of the states above. No error where that is not determined.
    """

    states: tuple[ProbedState, ...]
    n_states: int
    n_challengers: int
    n_energies: int
    largest_excess: float
    log_z: Estimate
    bridged: Estimate

    def of_kind(self, kind: Kind) -> tuple[ProbedState, ...]:
        """The states of one kind."""
        return tuple(state for state in self.states if state.kind == kind)

    @property
    def lost(self) -> tuple[ProbedState, ...]:
        """The states that the flow has lost."""
        return self.of_kind("lost")
