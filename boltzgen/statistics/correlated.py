"""Averages over independent chains of correlated frames: what they are worth, and whether the chains agree.

Two errors are at hand. The statistical inefficiency g tells how many frames make one independent frame, from how fast
correlations decay *within* what was seen. The scatter of the chains needs no model: chains are independent, whatever
happens inside them; with W chains it is itself known to a share of 1/√(2W). Both are blind to a state that no chain has
found, and chains that all began in one state agree without being right.
"""

from __future__ import annotations

import numpy as np
from arviz_stats.base import array_stats
from numpy.typing import ArrayLike, NDArray

from boltzgen.statistics.free_energy import Estimate
from boltzgen.statistics.quiet_pymbar import quiet_import

FEWEST_CHAINS = 4
"""Below this number the scatter of chains is no error."""

FEWEST_FRAMES = 8
"""Frames of a chain below which nothing is said of how they are correlated."""


def chain_inefficiencies(series: ArrayLike) -> NDArray[np.float64]:
    """Statistical inefficiency g = 1 + 2τ of each chain ``(W, F)`` about its own mean, ``(W,)``, in frames, at least 1.

    NaN for a chain that is constant or has less than :data:`FEWEST_FRAMES` frames.

    Source: Chodera et al., J. Chem. Theory Comput. 2007, 3, 26, by pymbar.
    """
    chains = np.asarray(series, dtype=np.float64)
    if chains.shape[1] < FEWEST_FRAMES:
        return np.full(len(chains), np.nan)
    timeseries = quiet_import("pymbar.timeseries")
    varies = np.ptp(chains, axis=1) > 0.0
    return np.array(
        [
            float(timeseries.statistical_inefficiency(chain)) if moves else np.nan
            for chain, moves in zip(chains, varies, strict=True)
        ]
    )


def pooled_inefficiency(series: ArrayLike) -> float:
    """Statistical inefficiency g of chains ``(W, F)`` about their common mean, in frames, from 1 to F.

    Chains that differ in their means correlate at all times, so that g also grows where they disagree: in the extreme a
    chain is one frame. NaN where nothing varies or chains have less than :data:`FEWEST_FRAMES` frames.
    """
    chains = np.asarray(series, dtype=np.float64)
    n = chains.shape[1]
    if n < FEWEST_FRAMES or np.ptp(chains) == 0.0:
        return float("nan")
    timeseries = quiet_import("pymbar.timeseries")
    return float(min(n, timeseries.statistical_inefficiency_multiple(list(chains))))


def chain_population(inside: ArrayLike, kept: ArrayLike) -> Estimate:
    """Share of the ``kept (W, F)`` frames that are ``inside (W, F)``, with the error from the scatter of the chains.

    p = Σ hits / Σ kept, a ratio of sums over chains; its error is that of the linearised residuals hitsᵢ − p keptᵢ.
    None where fewer than :data:`FEWEST_CHAINS` chains have frames, or p is 0 or 1: what was never left or never visited
    has no scatter.

    Raises
    ------
    ValueError
        If no frame is kept.
    """
    mask = np.asarray(kept, dtype=bool)
    return chain_ratio((np.asarray(inside, dtype=bool) & mask).sum(axis=1), mask.sum(axis=1))


def chain_ratio(parts: ArrayLike, totals: ArrayLike) -> Estimate:
    """Σ parts / Σ totals of chains, each ``(W,)`` with 0 ≤ part ≤ total, with the error of :func:`chain_population`."""
    sums, weights = np.asarray(parts, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    if not weights.any():
        raise ValueError("no frame is kept.")
    value = float(np.clip(sums.sum() / weights.sum(), 0.0, 1.0))
    if np.count_nonzero(weights) < FEWEST_CHAINS or not 0.0 < value < 1.0:
        return Estimate(value, None)
    residuals = (sums - value * weights) / weights.mean()
    return Estimate(value, float(residuals.std(ddof=1) / np.sqrt(len(residuals))))


def split_rhat(series: ArrayLike) -> float:
    """R̂ of chains ``(W, F)``, each split into halves: √(variance of all / variance within), 1 where chains agree.

    About 1 + 1/2m where a chain has m independent frames. NaN where nothing varies or chains are short; +inf where
    chains differ and none varies within.

    Source: Gelman et al., Bayesian Data Analysis, 3rd ed., eq. 11.4, by ArviZ.
    """
    chains = np.asarray(series, dtype=np.float64)
    if len(chains) < 2 or chains.shape[1] < FEWEST_FRAMES or np.ptp(chains) == 0.0:
        return float("nan")
    if not (np.ptp(chains, axis=1) > 0.0).any():
        return float("inf")
    return float(array_stats.rhat(chains, chain_axis=0, draw_axis=1, method="split"))
