"""How the effective share of samples grows, or sinks, with their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boltzgen.statistics.weights import checked_log_weights, kish_ess

SMALLEST_BLOCK = 100
"""Samples of a block at least: Kish's formula is far too high for a few."""


@dataclass(frozen=True)
class Growth:
    """Effective share of samples in blocks of growing size.

    Attributes
    ----------
    n
        (m,) samples of a block, the last all of them.
    ess_fraction
        (m,) mean over the blocks of the Kish ESS, as a share of the block.
    stderr
        (m,) its standard error from the scatter of the blocks; NaN for a single one.
    """

    n: NDArray[np.intp]
    ess_fraction: NDArray[np.float64]
    stderr: NDArray[np.float64]


def ess_growth(log_w: ArrayLike) -> Growth:
    """Effective share in all of n independent samples, in their halves, quarters, and so on down to 100.

    It is flat where the variance of the weights is finite and sampled. Where it sags, weights that rule a large
    sample are missing from small ones, and larger ones are likely missing from this: the ESS of all is too high too.
    A block without any weight has an ESS of zero. ``log_w`` is (n,), in the order of drawing.
    """
    values = checked_log_weights(log_w)
    n_levels = 1 + max(0, int(np.log2(values.size / SMALLEST_BLOCK)))
    sizes, means, errors = [], [], []
    for level in reversed(range(n_levels)):
        blocks = np.array_split(values, 2**level)
        shares = np.array([kish_ess(block) / block.size if np.isfinite(block).any() else 0.0 for block in blocks])
        sizes.append(values.size // 2**level)
        means.append(shares.mean())
        errors.append(shares.std(ddof=1) / np.sqrt(shares.size) if shares.size > 1 else np.nan)
    return Growth(np.array(sizes), np.array(means), np.array(errors))
