"""Agreement of two estimates: z of fair ones is normal, rare states are no contradiction, the forward ESS is exact."""

from __future__ import annotations

import numpy as np
import pytest

from boltzgen.statistics.agreement import chain_mean, forward_ess, free_energy, z_score
from boltzgen.statistics.correlated import chain_population
from boltzgen.statistics.free_energy import Estimate
from boltzgen.statistics.weights import kish_ess


def test_z_of_two_fair_estimates_is_nearly_normal_even_from_few_chains():
    """With five chains the plain ratio is Student's with four degrees: beyond 4 in 1.6 % of trials, not 0.006 %."""
    rng = np.random.default_rng(0)
    p, frames, ess, trials = 0.3, 100, 5000, 4000
    kept = np.ones((5, frames), dtype=bool)
    scores = []
    for _ in range(trials):
        counted = chain_population(rng.random((5, frames)) < p, kept)
        value = rng.binomial(ess, p) / ess
        weighted = Estimate(value, np.sqrt(value * (1 - value) / ess))
        scores.append(z_score(weighted, ess, counted, 5 * frames, 5))
    # Welch's formula leaves some 0.15 %: 6 of 4000, 16 at four standard deviations; Student's alone would be 60.
    assert np.count_nonzero(np.abs(scores) > 4.0) <= 16
    assert np.std(scores) == pytest.approx(1.0, abs=0.1)  # 4 σ of it are 0.045, and the formula is no identity


@pytest.mark.parametrize(
    ("flow", "ess", "counted", "effective", "off"),
    [
        (0.002, 20_000, 0.0, 100, False),  # 0.2 frames expected
        (0.05, 20_000, 0.0, 1000, True),  # 50 expected
        (0.0, 20_000, 0.1, 1000, True),  # a state that no sample visits
        (0.0, 300, 0.002, 5000, False),  # 0.6 samples expected
    ],
)
def test_what_one_ensemble_never_saw_counts_by_how_often_it_would_have_seen_it(flow, ess, counted, effective, off):
    def estimate(p, n):
        return Estimate(p, float(np.sqrt(p * (1 - p) / n)) if p else None)

    score = z_score(estimate(flow, ess), ess, estimate(counted, effective), effective, 32)
    assert (abs(score) > 4.0) == off
    assert np.sign(score) == np.sign(flow - counted)


def test_a_state_found_once_with_a_large_weight_is_no_contradiction():
    once = Estimate(0.01, None)  # of 500 effective samples, with a reference that has a tenth of it
    assert abs(z_score(once, 500, Estimate(0.001, 0.0003), 10_000, 32)) < 4.0


def test_no_score_without_errors():
    some = Estimate(0.5, None)
    assert z_score(some, 1000, Estimate(0.4, 0.01), 1000, 32) is None
    assert z_score(Estimate(1.0, None), 1000, Estimate(1.0, None), 1000, 32) is None


def test_forward_ess_is_that_of_samples_and_the_exact_one():
    """p = N(0, 1), q = N(0, 3/2): 1/E_p[p/q] = √(2σ² − 1)/σ²."""
    rng = np.random.default_rng(1)
    sigma, n = 1.5, 40_000
    exact = np.sqrt(2 * sigma**2 - 1) / sigma**2

    def log_w(x):
        return -0.5 * x**2 + 0.5 * (x / sigma) ** 2 + 7.0

    found = forward_ess(log_w(rng.normal(size=n)), np.arange(n) % 20)
    assert abs(found.value - exact) < 4.0 * found.stderr
    assert found.stderr < 0.01
    assert kish_ess(log_w(sigma * rng.normal(size=n))) / n == pytest.approx(exact, abs=0.01)


def test_means_have_errors_from_chains_alone():
    chain = np.repeat(np.arange(4), 1000)
    found = chain_mean(chain.astype(float), chain)  # each chain stands still
    assert found.value == 1.5
    assert found.stderr == pytest.approx(np.std([0, 1, 2, 3], ddof=1) / 2)
    assert chain_mean(np.ones(10), np.arange(10) % 3).stderr is None


def test_free_energy_of_a_state_is_against_all_else():
    found = free_energy(Estimate(0.25, 0.01))
    assert found.value == pytest.approx(np.log(3.0))
    assert found.stderr == pytest.approx(0.01 / (0.25 * 0.75))
    assert free_energy(Estimate(0.0, None)).value == np.inf
