"""Stein identities: averages that are zero for the target, whatever it is, if samples, weights and forces are right.

For a density p on circles and lines, and a function f that keeps p f finite,

    E_p[∂f/∂y + f ∂ln p/∂y] = 0,

as the integral of a total derivative. A circle is tested with f = sin mτ and cos mτ; a line with f = z, for which it
reads E[1 + z ∂ln p/∂z] = 0 (equipartition). The averages are local: they see weights of another temperature or energy,
a wrong volume element, or a density cut off inside a well; a well that is missing as a whole they do not see.

Source: Stein, Proc. 6th Berkeley Symp. 2, 583 (1972); Gorham and Mackey, NeurIPS 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boltzgen.statistics.weights import normalized_weights

HARMONICS = (1, 2)
"""The m of the test functions sin mτ and cos mτ."""


def circle_terms(angle: ArrayLike, score: ArrayLike, circles: Sequence[str]) -> tuple[NDArray[np.float64], list[str]]:
    """Terms ∂f/∂τ + f ∂ln p/∂τ of the test functions of named circles, (n, k), and the name of f of each column.

    ``angle`` and ``score`` are (n, n_circles): τ in radians and ∂ln p/∂τ. Columns go by circle, then by function.
    """
    tau, slope = np.asarray(angle, dtype=np.float64), np.asarray(score, dtype=np.float64)
    columns, names = [], []
    for j, circle in enumerate(circles):
        for m in HARMONICS:
            sine, cosine = np.sin(m * tau[:, j]), np.cos(m * tau[:, j])
            columns += [m * cosine + sine * slope[:, j], -m * sine + cosine * slope[:, j]]
            names += [f"{f} {m if m > 1 else ''}({circle})" for f in ("sin", "cos")]
    return np.column_stack(columns) if columns else np.empty((len(tau), 0)), names


def line_terms(line: ArrayLike, score: ArrayLike) -> NDArray[np.float64]:
    """Terms 1 + z ∂ln p/∂z of lines and of their sum, (n, n_lines + 1); ``line`` and ``score`` are (n, n_lines)."""
    terms = 1.0 + np.asarray(line, dtype=np.float64) * np.asarray(score, dtype=np.float64)
    return np.column_stack([terms, terms.sum(axis=1)])


def zero_mean_scores(terms: ArrayLike, log_w: ArrayLike) -> NDArray[np.float64]:
    """z of the weighted mean of each column of ``terms`` (n, k), which should be zero, (k,).

    The error is that of a ratio of means, √Σ W²(t − t̄)² with W = w/Σ w. A column that is zero throughout has z = 0; one
    that is constant and not zero an infinite one.

    Raises
    ------
    ValueError
        If lengths differ, log-weights are invalid, or a term of a sample with weight is not finite.
    """
    weights = normalized_weights(log_w)
    columns = np.array(terms, dtype=np.float64)
    if columns.ndim != 2 or len(columns) != weights.size:
        raise ValueError(f"terms {columns.shape} and log-weights {weights.shape} do not belong together.")
    columns[weights == 0.0] = 0.0
    if not np.isfinite(columns).all():
        raise ValueError("a term of a sample with weight is not finite.")
    means = weights @ columns
    errors = np.sqrt(weights**2 @ (columns - means) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(means == 0.0, 0.0, means / errors)
