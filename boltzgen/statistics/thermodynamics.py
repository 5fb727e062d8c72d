"""Whether ln Z of an ensemble at several temperatures changes as its energies say: d ln Z/dβ = −⟨U⟩.

The integral of the right side between two temperatures is a ratio of partition functions, which Bennett's acceptance
ratio finds from the energies of samples at both. The left side comes from the mean weights. They share the samples and
little else: the mean weight of a proposal that has lost a share s of Z is too low by −ln(1 − s), while energies of
samples on both sides hardly change. So a state that is lost at one of two temperatures shows; one that is lost at both,
to the same share, does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp

from boltzgen.statistics.free_energy import Estimate
from boltzgen.statistics.weights import WeightSummary, errors_are_determined, summarize_weights

TOLERANCE = 1e-6
"""Nats to which Bennett's ratio is solved; its error is that of a few thousand samples, 1e-2."""


@dataclass(frozen=True)
class Rung:
    """Samples of a proposal for one temperature.

    Attributes
    ----------
    temperature
        K.
    energy
        (n,) U in units of kT₀, at one and the same T₀ for all rungs; +inf where it failed.
    log_weight
        (n,) log-weights at ``temperature``.
    beta
        T₀/T, so that u = beta · energy.
    """

    temperature: float
    energy: NDArray[np.float64]
    log_weight: NDArray[np.float64]
    beta: float

    def weights(self) -> WeightSummary:
        """What the weights say of themselves."""
        return summarize_weights(self.log_weight)


@dataclass(frozen=True)
class Step:
    """Two temperatures next to each other, from the lower one T to the higher one T'.

    Attributes
    ----------
    lower, upper
        T and T' in K.
    by_weights
        ln Z(T') − ln Z(T) from the mean weights.
    by_energies
        The same from the energies, by Bennett's acceptance ratio.
    z
        Their difference in units of its error, None where weights of one support no error.
    excess
        Their difference in nats: positive where Z of the lower temperature is too small.
    """

    lower: float
    upper: float
    by_weights: float
    by_energies: float
    z: float | None
    excess: Estimate


def compare_rungs(low: Rung, high: Rung, rng: np.random.Generator, n_bootstrap: int = 100) -> Step:
    """Compare the change of ln Z between two rungs with what their energies say, with a joint bootstrap of both."""
    by_weights = _log_mean(high.log_weight[None]) - _log_mean(low.log_weight[None])
    by_energies = _bennett(low, high, _normalised(low.log_weight[None]), _normalised(high.log_weight[None]))
    difference = float((by_weights - by_energies)[0])
    error = None
    summaries = low.weights(), high.weights()
    if all(errors_are_determined(one.ess, one.khat) for one in summaries):
        drawn = [_resampled(rung.log_weight, n_bootstrap, rng) for rung in (low, high)]
        ratios = _bennett(low, high, *(_normalised(values) for values in drawn))
        error = float((_log_mean(drawn[1]) - _log_mean(drawn[0]) - ratios).std(ddof=1))
    z = None if error is None else difference / error if error else 0.0
    ends = low.temperature, high.temperature
    return Step(*ends, float(by_weights[0]), float(by_energies[0]), z, Estimate(difference, error))


def _resampled(log_w: NDArray[np.float64], n_bootstrap: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Log-weights of all samples in resamples, (n_bootstrap, n): with the log of how often each was drawn."""
    counts = rng.multinomial(log_w.size, np.full(log_w.size, 1.0 / log_w.size), n_bootstrap)
    with np.errstate(divide="ignore"):
        return log_w + np.log(counts)


def _log_mean(log_w: NDArray[np.float64]) -> NDArray[np.float64]:
    return logsumexp(log_w, axis=1) - np.log(log_w.shape[1])


def _normalised(log_w: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(log_w - logsumexp(log_w, axis=1, keepdims=True))


def _bennett(
    low: Rung, high: Rung, low_weights: NDArray[np.float64], high_weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """ln Z' − ln Z, (m,), of m sets of weights (m, n) that sum to one.

    It solves Σ W f(Δu − r) = Σ W' f(r − Δu) for the r = ln Z/Z' with Δu = (β' − β) U and the Fermi function f.
    Source: Bennett, J. Comput. Phys. 22, 245 (1976), with equal numbers of effective samples.
    """
    factor = high.beta - low.beta
    # Failed energies have no weight: any finite number will do in their place.
    forward, backward = (factor * np.where(np.isfinite(rung.energy), rung.energy, 0.0) for rung in (low, high))
    differences = np.concatenate([forward, backward])
    bottom, top = (np.full(len(low_weights), end) for end in (differences.min() - 50.0, differences.max() + 50.0))
    while np.any(top - bottom > TOLERANCE):
        middle = 0.5 * (bottom + top)
        # Forward acceptance grows with r, backward acceptance sinks.
        left = np.einsum("mn,mn->m", low_weights, expit(middle[:, None] - forward))
        right = np.einsum("mn,mn->m", high_weights, expit(backward - middle[:, None]))
        bottom, top = np.where(left < right, middle, bottom), np.where(left < right, top, middle)
    return -0.5 * (bottom + top)
