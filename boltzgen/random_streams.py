"""Random streams that depend on nothing but what they are for and their seed."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a stream is for. It is hashed before the seed, so that no two purposes share random numbers."""

    WEIGHTS = 1
    """Weights that a training begins with; of the seed."""
    DRAWS = 2
    """Draws of a part of a training step; of the seed, the step and the part."""
    HEAT = 3
    """Which passed temperature is drawn at; of the seed and the step."""
    EXCHANGE = 4
    """A round of replica exchange; of the seed and the round."""
    SAMPLES = 5
    """Samples of a trained flow; of the seed, which may be several numbers."""
    PILOT = 6
    """What is tuned before samples are drawn; of the same."""
    PROBE = 7
    """Challengers of a finished flow; of the seed, and of 0 for their dynamics, or of a state's number from 1."""


def random_stream(purpose: Purpose, seed: int | Sequence[int], device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on a device, from the hash of a purpose and a seed of one number or several."""
    words = seed if isinstance(seed, Sequence) else [seed]
    # With their number, since the hash does not tell a seed from the same one with zeros behind it.
    state = np.random.SeedSequence([purpose, len(words), *words]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> 1))
