"""What held-out frames tell a training that has data: how good it is, and, if data are all there is, when to end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from boltzgen.flow.generator import Generator
from boltzgen.training.data import LatentFrames, held_out_loss
from boltzgen.training.weights import to_arrays, to_tensors

HELD_OUT_EVERY = 0.02
"""Share of the budget after which held-out frames are looked at again."""

PATIENCE = 0.3
"""Share of the budget without a better held-out loss after which learning from data alone ends."""


@dataclass(frozen=True)
class Best:
    """Averaged weights with the lowest loss on held-out frames so far, and the progress at which they were found."""

    loss: float
    progress: float
    weights: dict[str, Tensor]

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        return {"loss": self.loss, "progress": self.progress, "weights": to_arrays(self.weights)}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], device: torch.device) -> Best:
        """Build from what :meth:`to_tree` returned."""
        weights = {name: value.to(device) for name, value in to_tensors(tree["weights"]).items()}
        return cls(tree["loss"], tree["progress"], weights)


class HeldOut:
    """Looks at held-out frames, if there are any, now and then; remembers the ``best`` weights if these are to win."""

    def __init__(self, frames: LatentFrames | None, *, best_wins: bool) -> None:
        self.best: Best | None = None
        self._frames, self._best_wins = frames, best_wins
        self._judged_at = 0.0

    def judge(self, generator: Generator, progress: float) -> float:
        """−E ln q(x) of the frames if it is time to look, else NaN."""
        if self._frames is None or progress < min(1.0, self._judged_at + HELD_OUT_EVERY):
            return math.nan
        self._judged_at = progress
        loss = held_out_loss(generator, self._frames)
        better = math.isfinite(loss) and (self.best is None or loss < self.best.loss)
        if self._best_wins and better:
            weights = {name: value.clone() for name, value in generator.state_dict().items()}
            self.best = Best(loss, progress, weights)
        return loss

    def is_past_best(self, progress: float) -> bool:
        """Whether data alone have nothing more to teach."""
        return self.best is not None and progress - self.best.progress > PATIENCE

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        return {"best": self.best and self.best.to_tree(), "judged_at": self._judged_at}

    def load_tree(self, tree: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what :meth:`to_tree` returned."""
        self._judged_at = float(tree["judged_at"])
        if tree["best"] is not None:
            self.best = Best.from_tree(tree["best"], device)
