"""Weighted means of numbers and of angles, with bootstrapped errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boltzgen.statistics.free_energy import Estimate
from boltzgen.statistics.weights import errors_are_determined, kish_ess, normalized_weights, pareto_smooth


def weighted_means(
    values: ArrayLike, log_w: ArrayLike, rng: np.random.Generator, n_bootstrap: int = 200
) -> list[Estimate]:
    """Means Σ w a / Σ w of columns a of ``values`` (n, k), with the standard error of a bootstrap over samples.

    The error is None if the weights support none (ESS < 200 or k̂ ≥ 0.7). A value of a sample without weight, +inf
    where its energy failed, does not count.

    Raises
    ------
    ValueError
        If lengths differ, log-weights are invalid, or a sample with weight has a value that is not finite.
    """
    means, replicas = _means(values, log_w, rng, n_bootstrap)
    errors = [None] * means.size if replicas is None else replicas.std(axis=0, ddof=1).tolist()
    return [Estimate(float(mean), error) for mean, error in zip(means, errors, strict=True)]


def weighted_direction(
    angle: ArrayLike, log_w: ArrayLike, rng: np.random.Generator, n_bootstrap: int = 200
) -> tuple[Estimate, float]:
    """Mean direction arg⟨e^{iτ}⟩ of angles (n,) in radians with its error, and the length R = |⟨e^{iτ}⟩|.

    R is 1 where all angles are equal and 0 where no direction stands out: the mean says something of one well only.
    """
    tau = np.asarray(angle, dtype=np.float64)
    means, replicas = _means(np.column_stack([np.cos(tau), np.sin(tau)]), log_w, rng, n_bootstrap)
    mean = float(np.arctan2(means[1], means[0]))
    error = None
    if replicas is not None:
        off = np.arctan2(replicas[:, 1], replicas[:, 0]) - mean
        error = float(np.sqrt(np.mean(np.angle(np.exp(1j * off)) ** 2)))
    return Estimate(mean, error), float(np.hypot(*means))


def _means(
    values: ArrayLike, log_w: ArrayLike, rng: np.random.Generator, n_bootstrap: int
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Means (k,), and those of the resamples (n_bootstrap, k) if the weights support an error."""
    weights = normalized_weights(log_w)
    columns = np.array(values, dtype=np.float64)
    if columns.ndim != 2 or len(columns) != weights.size:
        raise ValueError(f"values {columns.shape} and log-weights {weights.shape} do not belong together.")
    columns[weights == 0.0] = 0.0
    if not np.isfinite(columns).all():
        raise ValueError("a sample with weight has a value that is not finite.")
    means = weights @ columns
    if not errors_are_determined(kish_ess(log_w), pareto_smooth(log_w)[0]):
        return means, None
    n = weights.size
    replicas = np.empty((n_bootstrap, columns.shape[1]))
    for replica in replicas:
        drawn = np.bincount(rng.integers(0, n, n), minlength=n) * weights
        replica[:] = drawn @ columns / drawn.sum()
    return means, replicas
