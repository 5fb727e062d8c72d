"""Random streams that depend on nothing but their seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def random_streams(seed: int | Sequence[int], n: int, device: torch.device | str) -> list[torch.Generator]:
    """``n`` generators on a device, from the hash of a seed; the first ones do not depend on how many there are."""
    states = np.random.SeedSequence(seed).generate_state(n, np.uint64)
    return [torch.Generator(device).manual_seed(int(state >> 1)) for state in states]
