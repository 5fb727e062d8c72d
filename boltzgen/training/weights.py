"""Weights of a flow as arrays, and the best of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


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


def to_arrays(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """A state dictionary as numpy arrays on the CPU."""
    return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}


def to_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inverse of :func:`to_arrays`."""
    return {name: torch.as_tensor(value) for name, value in state.items()}
