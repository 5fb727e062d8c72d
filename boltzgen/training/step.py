"""What one training step is to do, and what came out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from boltzgen.training.challengers import Challengers
from boltzgen.training.objectives import Scored
from boltzgen.training.replay import Pool, Recalled


@dataclass(frozen=True)
class StepPlan:
    """What one step does. Heats are ln T/T₀."""

    batch: int
    heat: float
    hot: float | None
    """A temperature passed before, at which a share of the draws is made; None as long as there is none."""
    pools: tuple[Pool, ...]
    """Reweighted draws at these temperatures that the slow coordinates learn from; none in the very first steps."""
    seed: tuple[int, int]
    """Seed of the training and number of the step: the draws depend on nothing else."""
    challengers: Challengers | None = None
    """Those with structures to propose."""
    visits: bool = False
    """Whether draws are made at the slow coordinates of these structures, and not near them."""
    visited: Recalled | None = None
    """Earlier ones at the temperature of the first pool."""


@dataclass(frozen=True)
class Part:
    """Gradient per parameter of a part of a step, None where it does not move, and what came out of its draws.

    ``scored`` has all draws with a density, detached; ``own`` those of them that have no uniform coordinate and an
    energy; ``visited`` those at slow coordinates of challengers, which have none.
    ``losses`` are means by name, before their weights. Seconds are of this thread.
    """

    n: int
    gradients: list[Tensor | None]
    scored: list[Scored]
    visited: list[Scored]
    own: Scored | None
    losses: dict[str, float]
    n_failed: int
    seconds_energy: float
    seconds_flow: float


@dataclass(frozen=True)
class StepGradient:
    """The sum over the parts of a step; seconds are summed over threads."""

    gradients: list[Tensor | None]
    scored: list[Scored]
    visited: list[Scored]
    own: list[Scored]
    losses: dict[str, float]
    n_failed: int
    seconds_energy: float
    seconds_flow: float

    @classmethod
    def of(cls, parts: list[Part]) -> StepGradient:
        """Sum parts, always in the same order."""
        total = sum(part.n for part in parts)
        names = [name for name in parts[0].losses if all(name in part.losses for part in parts)]
        return cls(
            gradients=[_sum(column) for column in zip(*(part.gradients for part in parts), strict=True)],
            scored=[scored for part in parts for scored in part.scored],
            visited=[visited for part in parts for visited in part.visited],
            own=[part.own for part in parts if part.own],
            losses={name: sum(part.n * part.losses[name] for part in parts) / total for name in names},
            n_failed=sum(part.n_failed for part in parts),
            seconds_energy=sum(part.seconds_energy for part in parts),
            seconds_flow=sum(part.seconds_flow for part in parts),
        )


def _sum(gradients: Sequence[Tensor | None]) -> Tensor | None:
    """Of one parameter over parts; None if it does not move."""
    moving = [gradient for gradient in gradients if gradient is not None]
    return reduce(torch.add, moving).contiguous() if moving else None
