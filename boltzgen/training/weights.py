"""Weights of a flow as arrays, to be stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def to_arrays(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """A state dictionary as numpy arrays on the CPU."""
    return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}


def to_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inverse of :func:`to_arrays`."""
    return {name: torch.as_tensor(value) for name, value in state.items()}
