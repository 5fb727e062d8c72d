"""What a generator draws: slow coordinates, and stiff ones given them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slow:
    """The slow coordinates: ``label (batch,)`` of the chart, an integer, and ``torsions (batch, n_torsions)``.

    ``heat (batch,)`` is ln T/T₀ of the temperature that they belong to, T₀ that of the target; zero unless given.
    """

    label: Tensor
    torsions: Tensor
    heat: Tensor = None  # type: ignore[assignment]  # see below

    def __post_init__(self) -> None:
        if self.heat is None:
            object.__setattr__(self, "heat", self.torsions.new_zeros(len(self.torsions)))

    def __getitem__(self, index: Tensor) -> Slow:
        return self.map(lambda column: column[index])

    def map(self, change: Callable[[Tensor], Tensor]) -> Slow:
        """The same function of every column."""
        return Slow(change(self.label), change(self.torsions), change(self.heat))

    @classmethod
    def cat(cls, parts: Sequence[Slow]) -> Slow:
        """Parts one after the other."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("label", "torsions", "heat")))

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        return {name: column.cpu().numpy() for name, column in vars(self).items()}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], device: torch.device | str) -> Slow:
        """Build from what :meth:`to_tree` returned."""
        return cls(*(torch.as_tensor(tree[name], device=device) for name in ("label", "torsions", "heat")))


@dataclass(frozen=True)
class Lead:
    """Slow coordinates drawn elsewhere: ``label (n,)``, the first m ``torsions (n, m)``, and ln of their density."""

    label: Tensor
    torsions: Tensor
    log_prob: Tensor


@dataclass(frozen=True)
class Latent:
    """Draws of a generator: slow coordinates, ``stiff (batch, n_stiff)``, ``log_prob (batch,)``.

    ``centre (batch, n_stiff)`` is what the stiff ones were drawn around, None where that does not move.
    """

    slow: Slow
    stiff: Tensor
    log_prob: Tensor
    centre: Tensor | None = None
