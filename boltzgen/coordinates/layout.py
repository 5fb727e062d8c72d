"""From structures as files hold them to the layout of the coordinates."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def batch_last(positions: ArrayLike) -> Tensor:
    """``(n, sites, components)`` of any type → ``(sites, components, n)`` in float64."""
    return torch.as_tensor(np.asarray(positions, dtype=np.float64)).permute(1, 2, 0).contiguous()
