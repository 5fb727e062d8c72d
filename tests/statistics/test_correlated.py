"""Errors of correlated series that would be too small, and chains that disagree unnoticed."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import gamma

from boltzgen.statistics.correlated import (
    chain_inefficiencies,
    chain_population,
    pooled_inefficiency,
    split_rhat,
)
from boltzgen.statistics.mbar import mbar

SIGMAS = 4.0


def autoregressive(rho: float, chains: int, length: int, seed: int = 0) -> np.ndarray:
    """Stationary x' = ρx + √(1 − ρ²)ξ: unit variance, correlations ρ^t, g = (1 + ρ)/(1 − ρ)."""
    noise = np.random.default_rng(seed).standard_normal((chains, length)) * math.sqrt(1.0 - rho**2)
    noise[:, 0] /= math.sqrt(1.0 - rho**2)
    return lfilter([1.0], [1.0, -rho], noise, axis=1)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_inefficiency_is_that_of_an_autoregressive_series(rho):
    """Summing correlations until they vanish in noise has a scatter of about √(4 g/n) of g, and cuts a little off."""
    series, exact = autoregressive(rho, chains=16, length=4000), (1.0 + rho) / (1.0 - rho)
    each, pooled = chain_inefficiencies(series), pooled_inefficiency(series)
    scatter = math.sqrt(4.0 * exact / series.size)
    assert abs(pooled / exact - 1.0) < SIGMAS * scatter + 0.05
    assert abs(each.mean() / exact - 1.0) < SIGMAS * scatter + 0.1
    assert each.shape == (16,)


def test_error_of_a_population_is_the_scatter_of_independent_chains():
    """The error that 16 chains give, against the spread of the estimate over 200 repetitions."""
    found = []
    for seed in range(200):
        inside = autoregressive(0.8, chains=16, length=200, seed=seed) > 0.5
        found.append(chain_population(inside, np.ones_like(inside)))
    spread = np.std([estimate.value for estimate in found], ddof=1)
    mean_error = math.sqrt(np.mean([estimate.stderr**2 for estimate in found]))
    assert mean_error == pytest.approx(spread, rel=SIGMAS / math.sqrt(2 * 199))


def test_populations_are_over_the_kept_frames_alone():
    inside = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)
    kept = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=bool)
    assert chain_population(inside, kept).value == pytest.approx(3 / 8)
    assert chain_population(inside, kept).stderr is None  # three chains have frames
    assert chain_population(np.ones_like(kept), np.ones_like(kept)).stderr is None  # never left
    with pytest.raises(ValueError, match="no frame"):
        chain_population(inside, np.zeros_like(kept))


def test_chains_that_disagree_are_seen():
    series = autoregressive(0.5, chains=8, length=500)
    apart = series + np.repeat([0.0, 3.0], 4)[:, None]
    assert split_rhat(series) < 1.02
    assert split_rhat(apart) > 1.5
    assert pooled_inefficiency(apart) > 10.0 * pooled_inefficiency(series)
    assert split_rhat(np.repeat([[0.0], [1.0]], 20, axis=1)) == math.inf  # each stuck in a state of its own


def test_what_never_varies_has_no_inefficiency():
    constant = np.ones((3, 50))
    assert np.isnan(chain_inefficiencies(constant)).all()
    assert math.isnan(pooled_inefficiency(constant))
    assert math.isnan(split_rhat(constant))


def test_mbar_gives_the_exact_distribution_of_oscillators():
    """U/kT of d harmonic coordinates is Gamma(d/2): shares at the lowest temperature, and ln Z = d/2 ln T."""
    d, temperatures, n = 20, np.array([300.0, 400.0, 520.0]), 400
    rng = np.random.default_rng(1)
    energies = np.concatenate([rng.gamma(d / 2, size=n) * t for t in temperatures])
    limits = {"half": 10.0 * 300.0, "few": 5.0 * 300.0}
    solved = mbar(energies / temperatures[:, None], [n] * 3, {name: energies < limit for name, limit in limits.items()})
    assert solved is not None
    assert solved.weights.sum() == pytest.approx(1.0)
    assert n < solved.effective < 3 * n
    for name, limit in limits.items():
        value, error = solved.averages[name]
        exact = gamma.cdf(limit / 300.0, d / 2)
        assert abs(value - exact) < SIGMAS * error, name
        assert error < math.sqrt(exact * (1.0 - exact) / n)  # better than the cold frames alone
    expected = -0.5 * d * np.log(temperatures / 300.0)
    # ln Z differences err by about √(var(ln overlap)/n), 0.05 at this many frames.
    np.testing.assert_allclose(solved.free_energies, expected, atol=SIGMAS * 0.05)


def test_pymbar_is_silent():
    code = "from boltzgen.statistics.quiet_pymbar import quiet_import as q; q('pymbar.timeseries'); q('pymbar').MBAR"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")
