"""Weights: effective sample size, log Z, Pareto shape, and what happens to bad input."""

from __future__ import annotations

import numpy as np
import pytest

from boltzgen.statistics.weights import (
    clipped_ess,
    ess_without_top,
    kish_ess,
    log_z,
    pareto_smooth,
    summarize_weights,
    top_shares,
)


def shifted_gaussian(shift: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Log-weights of target N(shift, 1) under proposal N(0, 1): ln Z = 0 and ESS/n -> exp(-shift²)."""
    x = rng.normal(size=n)
    return shift * x - 0.5 * shift**2


def generalised_pareto(k: float, n: int, rng: np.random.Generator) -> np.ndarray:
    return np.log(np.expm1(-k * np.log(rng.random(n))) / k)


def test_ess_and_log_z_of_a_shifted_gaussian_within_their_errors():
    rng = np.random.default_rng(1)
    shift, n, n_trials = 0.5, 4000, 200
    trials = [shifted_gaussian(shift, n, rng) for _ in range(n_trials)]
    fractions = np.array([kish_ess(log_w) / n for log_w in trials])
    z_ess = (fractions.mean() - np.exp(-(shift**2))) / (fractions.std(ddof=1) / np.sqrt(n_trials))
    assert abs(z_ess) < 4
    z = np.array([value / stderr for value, stderr in map(log_z, trials)])
    assert abs(z.mean()) < 4 / np.sqrt(n_trials)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n_trials)  # variance of a sample variance


@pytest.mark.parametrize("k", [-0.3, 0.1, 0.5, 0.9, 1.4])
def test_khat_recovers_a_known_pareto_shape_on_both_sides_of_the_threshold(k):
    n = 100_000
    khat, _ = pareto_smooth(generalised_pareto(k, n, np.random.default_rng(2)))
    n_tail = 3 * np.sqrt(n)
    expected = (n_tail * k + 5) / (n_tail + 10)  # the fit's prior: ten draws of k = 0.5
    assert abs(khat - expected) < 4 * (1 + k) / np.sqrt(n_tail)  # asymptotic error of the maximum likelihood
    assert (khat < 0.7) == (k < 0.7)


def test_smoothing_touches_the_upper_tail_only_and_keeps_the_scale():
    log_w = generalised_pareto(0.5, 10_000, np.random.default_rng(3)) + 700.0
    log_w[:7] = -np.inf
    before = log_w.copy()
    khat, smoothed = pareto_smooth(log_w)
    order = np.argsort(log_w)
    bulk, tail = order[:-300], order[-300:]
    np.testing.assert_array_equal(log_w, before)
    assert np.all(smoothed[:7] == -np.inf)
    np.testing.assert_allclose(smoothed[bulk], log_w[bulk], atol=1e-9)
    assert not np.allclose(smoothed[tail], log_w[tail], atol=1e-3)
    assert smoothed.max() <= log_w.max() + 1e-9
    assert pareto_smooth(before - 1400.0)[0] == pytest.approx(khat, abs=1e-9)


def test_equal_weights_are_perfect_but_a_plateau_of_the_largest_is_not():
    assert pareto_smooth(np.full(1000, 3.0))[0] == 0.0
    clipped = np.minimum(generalised_pareto(0.5, 10_000, np.random.default_rng(4)), 1.0)
    assert pareto_smooth(clipped)[0] == np.inf
    assert pareto_smooth(np.arange(24.0))[0] == np.inf


@pytest.mark.parametrize("visits", [500, 50])
def test_a_rare_state_of_bounded_weights_is_no_heavy_tail(visits):
    """Few samples weigh 1.9, all others about 1: the largest is 2.3, whatever is fitted to the tail."""
    rng = np.random.default_rng(7)
    log_w = 0.02 * rng.normal(size=50_000)
    log_w[:visits] += np.log(1.9) + 0.05 * rng.normal(size=visits)
    khat, smoothed = pareto_smooth(log_w)
    assert khat < 0.5
    assert summarize_weights(log_w).log_z_stderr is not None
    assert abs(np.exp(smoothed).mean() / np.exp(log_w).mean() - 1.0) < 1e-3


def test_a_tail_that_is_heavy_stays_so():
    """What shortens tails must not talk a heavy one down, nor a rare state whose weights scatter by powers of ten."""
    rng = np.random.default_rng(8)
    assert all(pareto_smooth(generalised_pareto(0.9, 50_000, rng))[0] > 0.7 for _ in range(20))
    log_w = 0.02 * rng.normal(size=50_000)
    log_w[:500] += 3.0 * rng.normal(size=500)
    assert pareto_smooth(log_w)[0] > 0.7


def test_shares_and_ess_without_the_largest_weights_by_hand():
    log_w = np.log([1.0, 5.0, 1.0, 3.0, 2.0])
    assert top_shares(log_w, (1, 3)) == {1: pytest.approx(5 / 12), 3: pytest.approx(10 / 12)}
    assert ess_without_top(log_w, 1) == pytest.approx(7**2 / 15)
    assert ess_without_top(log_w, 3) == pytest.approx(2.0)
    assert ess_without_top(log_w, 5) == 0.0


def test_failed_energies_stay_in_the_count_with_weight_zero():
    log_w = shifted_gaussian(0.3, 5000, np.random.default_rng(5))
    clean, failed = summarize_weights(log_w), summarize_weights(np.append(log_w, np.full(5000, -np.inf)))
    assert (clean.n_failed, failed.n_failed, failed.n_samples) == (0, 5000, 10_000)
    assert failed.ess == pytest.approx(clean.ess)
    assert failed.ess_fraction == pytest.approx(clean.ess_fraction / 2)
    assert failed.log_z == pytest.approx(clean.log_z - np.log(2))


def test_no_error_of_log_z_from_few_effective_samples_or_a_heavy_tail():
    rng = np.random.default_rng(6)
    good = summarize_weights(shifted_gaussian(0.5, 1000, rng))
    assert good.log_z_stderr == pytest.approx(np.sqrt(1 / good.ess - 1e-3))
    few = summarize_weights(shifted_gaussian(0.5, 150, rng))
    assert few.ess < 200
    assert few.log_z_stderr is None
    heavy = summarize_weights(generalised_pareto(0.85, 100_000, rng))
    assert heavy.ess > 200
    assert heavy.khat >= 0.7
    assert heavy.log_z_stderr is None


@pytest.mark.parametrize("function", [kish_ess, log_z, pareto_smooth, top_shares, summarize_weights, clipped_ess])
@pytest.mark.parametrize("bad", [[0.0, np.nan], [0.0, np.inf], [-np.inf, -np.inf], [], [[0.0, 1.0]]])
def test_invalid_weights_are_refused_and_never_become_numbers(function, bad):
    with pytest.raises(ValueError, match="weight"):
        function(np.array(bad))


@pytest.mark.parametrize(("scale", "harmless"), [(0.003, True), (0.03, False)])
def test_a_heavy_tail_far_below_the_mean_rules_nothing(scale, harmless):
    """A Pareto tail of shape 0.9 above weights that are equal to a thousandth: of 1 to 1.6, or to 8 times the mean."""
    rng = np.random.default_rng(4)
    excess = scale * (rng.uniform(size=400) ** -0.9 - 1.0)
    log_w = np.log1p(np.concatenate([excess, 0.001 * rng.uniform(size=19_600)]))
    summary = summarize_weights(log_w)
    assert (np.exp(log_w).max() < 2.0 * np.exp(log_w).mean()) == harmless
    assert summary.khat == 0.0 if harmless else summary.khat > 0.7
    assert (summary.log_z_stderr is not None) == harmless
