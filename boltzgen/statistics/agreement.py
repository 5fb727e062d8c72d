"""Whether two estimates of a population agree, and what frames of the target say of a density that should cover it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, ndtri, stdtr

from boltzgen.statistics.correlated import FEWEST_CHAINS
from boltzgen.statistics.free_energy import FEWEST_VISITS, Estimate


def z_score(weighted: Estimate, ess: float, counted: Estimate, effective: float, n_chains: int) -> float | None:
    """Difference of a state's populations in units of its error, normal where both are right.

    ``weighted`` is of ``ess`` effective samples; ``counted`` is of ``effective`` frames of ``n_chains`` chains. Where
    one of them has seen the state less than :data:`~boltzgen.statistics.free_energy.FEWEST_VISITS` times, its error is
    at least the binomial one, √(p(1 − p)/n), of the larger population p: neither to miss a rare state nor to find it
    once is a contradiction. The error of the counted one is known from few chains, so that the difference follows
    Student's distribution; it is given as the normal deviate of the same probability, with degrees of freedom by
    Welch's formula. Of five chains 0.15 % of fair differences are beyond 4, and not 0.006 %; of thirty, as many as
    should be.

    None where an error is not determined, or both say that the state is never, or always, visited.
    """
    errors = _error(weighted, ess, counted.value), _error(counted, effective, weighted.value)
    if errors[0] is None or errors[1] is None or not any(errors):
        return None
    variance, of_chains = errors[0] ** 2 + errors[1] ** 2, errors[1] ** 2
    score = (weighted.value - counted.value) / np.sqrt(variance)
    if not of_chains:
        return float(score)
    tail = stdtr((n_chains - 1) * (variance / of_chains) ** 2, -abs(score))
    return float(np.copysign(-ndtri(tail) if tail > 0.0 else score, score))


def _error(own: Estimate, effective: float, other: float) -> float | None:
    p = own.value
    if min(p, 1.0 - p) * effective >= FEWEST_VISITS:
        return own.stderr
    return max(own.stderr or 0.0, *(float(np.sqrt(q * (1.0 - q) / effective)) for q in (p, other)))


def free_energy(population: Estimate) -> Estimate:
    """Free energy in kT of a state against everything else, −ln p/(1 − p), with the error σ/(p(1 − p))."""
    p, error = population.value, population.stderr
    if not 0.0 < p < 1.0:
        return Estimate(float("inf") if p <= 0.0 else float("-inf"), None)
    return Estimate(float(np.log1p(-p) - np.log(p)), None if error is None else error / (p * (1.0 - p)))


def forward_ess(log_w: ArrayLike, chain: ArrayLike) -> Estimate:
    """Effective share of the samples of a density q, from frames x ~ p instead: 1/(⟨w⟩ ⟨1/w⟩) with w ∝ p/q.

    It estimates the same limit as Kish's formula does from samples of q, and sees the states that these never visit.

    ``log_w`` and ``chain`` are (n,): log-weights of the frames, and the number of the chain of each. The error is the
    jackknife over chains; None for less than four of them.
    """
    values = np.asarray(log_w, dtype=np.float64)

    def estimate(part: NDArray[np.float64]) -> float:
        return float(np.exp(2.0 * np.log(part.size) - logsumexp(part) - logsumexp(-part)))

    chains = np.asarray(chain)
    numbers = np.unique(chains)
    if len(numbers) < FEWEST_CHAINS:
        return Estimate(estimate(values), None)
    without = np.array([estimate(values[chains != number]) for number in numbers])
    n = len(numbers)
    return Estimate(estimate(values), float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2))))


def chain_mean(values: ArrayLike, chain: ArrayLike) -> Estimate:
    """Mean of ``values`` (n,) with the error from the scatter of the chains, None for less than four of them."""
    x, chains = np.asarray(values, dtype=np.float64), np.asarray(chain)
    _, index = np.unique(chains, return_inverse=True)
    sums, counts = np.bincount(index, x), np.bincount(index)
    mean = float(x.mean())
    if len(counts) < FEWEST_CHAINS:
        return Estimate(mean, None)
    residuals = (sums - mean * counts) / counts.mean()
    return Estimate(mean, float(residuals.std(ddof=1) / np.sqrt(len(counts))))


def sample_mean(values: ArrayLike) -> Estimate:
    """Mean of independent ``values`` (n,) with its standard error."""
    x = np.asarray(values, dtype=np.float64)
    return Estimate(float(x.mean()), float(x.std(ddof=1) / np.sqrt(x.size)) if x.size > 1 else None)
