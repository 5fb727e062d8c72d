"""Averages at one temperature from equilibrium frames at several: the multistate Bennett acceptance ratio.

MBAR weighs every frame by w ∝ exp(−u₀)/Σ_k N_k exp(f_k − u_k), with free energies f_k that make the weights of each
state consistent. Hot frames cross barriers that cold ones do not, and count as far as they overlap with the cold ones.

Source: Shirts and Chodera, J. Chem. Phys. 2008, 129, 124105, by pymbar.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boltzgen.statistics.quiet_pymbar import quiet, quiet_import

LARGEST_RESIDUAL = 1e-4
"""Deviation from 1 of the sum of the weights of a state beyond which the equations are not solved."""


@dataclass(frozen=True)
class MbarWeights:
    """Weights of n frames at the first of K states.

    Attributes
    ----------
    weights
        (n,) normalised.
    free_energies
        (K,) f_k = −ln Z_k + ln Z_0, in kT.
    averages
        By name, the mean of each observable and its asymptotic error, which takes frames for independent.
    """

    weights: NDArray[np.float64]
    free_energies: NDArray[np.float64]
    averages: dict[str, tuple[float, float]]

    @property
    def effective(self) -> float:
        """Kish effective number of frames."""
        return float(1.0 / np.square(self.weights).sum())


def mbar(u: ArrayLike, counts: ArrayLike, observables: Mapping[str, ArrayLike]) -> MbarWeights | None:
    """Solve MBAR for n uncorrelated frames of K states; None if the equations cannot be solved.

    Parameters
    ----------
    u
        (K, n) reduced potentials of every frame in every state, frames of the first state first, and so on.
    counts
        (K,) frames of each state.
    observables
        (n,) by name.
    """
    potentials, n_k = np.asarray(u, dtype=np.float64), np.asarray(counts, dtype=np.intp)
    if potentials.shape != (len(n_k), n_k.sum()):
        raise ValueError(f"potentials {potentials.shape} are not of {n_k.sum()} frames in {len(n_k)} states.")
    pymbar = quiet_import("pymbar")
    with quiet():
        try:
            solved = pymbar.MBAR(potentials, n_k, initialize="BAR", solver_protocol=[{"method": "adaptive"}])
        except (pymbar.utils.ParameterError, pymbar.utils.ConvergenceError, np.linalg.LinAlgError):
            return None
        every_weight = solved.W_nk
        if not np.abs(every_weight.sum(axis=0) - 1.0).max() < LARGEST_RESIDUAL:
            return None
        averages = {}
        if observables:
            stacked = np.array([np.asarray(values, dtype=np.float64) for values in observables.values()])
            with np.errstate(divide="ignore"):  # pymbar works with logarithms, of zeros too
                found = solved.compute_multiple_expectations(stacked, potentials[0])
            pairs = zip(found["mu"].tolist(), found["sigma"].tolist(), strict=True)
            averages = dict(zip(observables, pairs, strict=True))
    return MbarWeights(every_weight[:, 0], np.asarray(solved.f_k - solved.f_k[0]), averages)
