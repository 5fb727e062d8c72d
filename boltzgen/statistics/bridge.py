"""The ratio of normalisations of two densities from samples of both: bridge sampling.

With w = p̃/q, samples of q and frames of p = p̃/Z, any bridge function h gives Z = ⟨w h⟩_q / ⟨h⟩_p. The best one for
n_q and n_p independent samples is h = 1/(n_q + n_p w/Z), the acceptance ratio of Bennett. Either side sees what the
other one misses, so that the ratio is right where the densities overlap at all, even if no weight is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

from boltzgen.statistics.agreement import chain_mean, sample_mean
from boltzgen.statistics.free_energy import Estimate

LEAST_OVERLAP = 10.0
"""Effective samples of either side that count towards the ratio; with fewer it is not determined."""


def bridge_log_z(log_w_q: ArrayLike, log_w_p: ArrayLike, chain: ArrayLike, effective: float | None = None) -> Estimate:
    """ln Z from ln w of independent samples of q ``(n,)`` and of frames of p ``(m,)`` in the chains ``chain (m,)``.

    Samples of q with weight zero have ln w = −inf. Frames of p count as ``effective`` independent ones (default: m) in
    the choice of h, which costs precision if it is wrong, and no more. The error adds that of both means to first
    order, of p by the scatter of the chains; it is None, and nothing is determined, if less than
    :data:`LEAST_OVERLAP` effective samples of either side lie where both densities do.

    Source: Bennett, J. Comput. Phys. 1976, 22, 245; Meng and Wong, Stat. Sinica 1996, 6, 831, eq. 4.1.
    """
    of_q, of_p = np.asarray(log_w_q, dtype=np.float64), np.asarray(log_w_p, dtype=np.float64)
    finite = np.isfinite(of_q)
    if not finite.any() or not of_p.size:
        return Estimate(float("nan"), None)
    log_ratio = np.log(of_q.size / (of_p.size if effective is None else max(1.0, effective)))

    def log_means(log_z: float) -> tuple[float, float]:
        """ln of ⟨w h⟩_q/Z and ⟨h⟩_p, up to a common constant."""
        return (
            float(logsumexp(_log_expit(of_q[finite] - log_z - log_ratio)) - np.log(of_q.size) + log_ratio),
            float(logsumexp(_log_expit(log_ratio - (of_p - log_z))) - np.log(of_p.size)),
        )

    def imbalance(log_z: float) -> float:
        left, right = log_means(log_z)
        return left - right

    low = min(of_q[finite].min(), of_p.min()) - abs(log_ratio) - 50.0
    high = max(of_q[finite].max(), of_p.max()) + abs(log_ratio) + 50.0
    log_z = float(brentq(imbalance, low, high, xtol=1e-9))
    share_q = np.where(finite, expit(np.where(finite, of_q, 0.0) - log_z - log_ratio), 0.0)
    share_p = expit(log_ratio - (of_p - log_z))
    if min(_effective(share_q), _effective(share_p)) < LEAST_OVERLAP:
        return Estimate(log_z, None)
    parts = sample_mean(share_q), chain_mean(share_p, chain)
    errors = [None if part.stderr is None else part.stderr / part.value for part in parts]
    if errors[0] is None or errors[1] is None:
        return Estimate(log_z, None)
    return Estimate(log_z, float(np.hypot(errors[0], errors[1])))


def _log_expit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.logaddexp(0.0, -x)


def _effective(shares: NDArray[np.float64]) -> float:
    """Kish effective number."""
    squares = float(np.square(shares).sum())
    return float(shares.sum()) ** 2 / squares if squares else 0.0
