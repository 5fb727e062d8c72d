"""Stein identities: silent for samples of the target, loud for weights of another energy or a density cut off."""

from __future__ import annotations

import numpy as np
import pytest

from boltzgen.statistics.check import largest_fair_score
from boltzgen.statistics.stein import circle_terms, line_terms, zero_mean_scores

KAPPA, MEAN = 2.0, 0.8


def drawn(n, seed, kappa=KAPPA):
    """A torsion with ln p = κ cos(τ − μ) and two normal lines, drawn wider and weighted for ``kappa``."""
    rng = np.random.default_rng(seed)
    tau, z = rng.vonmises(MEAN, 1.0, n), 1.2 * rng.normal(size=(n, 2))
    log_w = (kappa - 1.0) * np.cos(tau - MEAN) - 0.5 * (1.0 - 1.2**-2) * (z**2).sum(axis=1)
    return tau[:, None], z, log_w


def scores(tau, z, log_w):
    circles, names = circle_terms(tau, -KAPPA * np.sin(tau - MEAN), ["a"])
    assert len(names) == circles.shape[1] == 4
    return zero_mean_scores(np.concatenate([circles, line_terms(z, -z)], axis=1), log_w)


def test_scores_of_the_target_are_normal_deviates():
    trials = np.array([scores(*drawn(2000, seed)) for seed in range(200)])
    assert np.all(np.abs(trials.mean(axis=0)) < 4 / np.sqrt(200))
    assert np.all(np.abs(trials.var(axis=0) - 1) < 4 * np.sqrt(2 / 200))  # variance of a sample variance
    assert np.abs(trials).max() < largest_fair_score(trials.size)


def test_weights_of_another_temperature_are_told():
    worst = np.abs(scores(*drawn(5000, 0, kappa=0.8 * KAPPA))[:4]).max()
    assert worst > largest_fair_score(7)


def test_a_density_that_ends_inside_a_well_is_told():
    tau, z, log_w = drawn(5000, 0)
    log_w[np.abs(tau[:, 0] - MEAN) > 0.5] = -np.inf
    assert np.abs(scores(tau, z, log_w)[:4]).max() > largest_fair_score(7)


def test_a_wrong_volume_element_is_told():
    tau, z, log_w = drawn(5000, 0)
    assert np.abs(scores(tau, z, log_w + 0.3 * z[:, 0] ** 2 / (1 + z[:, 0] ** 2))[4:]).max() > largest_fair_score(7)


def test_what_has_no_number_is_refused_and_what_has_no_weight_does_not_count():
    terms, log_w = np.zeros((300, 1)), np.zeros(300)
    terms[::2], terms[0], log_w[0] = 1.0, np.nan, -np.inf
    assert zero_mean_scores(terms, log_w)[0] > 4
    with pytest.raises(ValueError, match="not finite"):
        zero_mean_scores(terms, np.zeros(300))


def test_the_bound_grows_with_the_number_of_tests_so_that_fair_ensembles_pass():
    rng = np.random.default_rng(0)
    for n_tests in (1, 100, 2000):
        largest = np.abs(rng.normal(size=(500, n_tests))).max(axis=1)
        assert np.mean(largest > largest_fair_score(n_tests, 0.05)) < 0.05 + 4 * np.sqrt(0.05 / 500)
