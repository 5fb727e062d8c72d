"""Probabilities and profiles: exact values, and error bars that cover as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from boltzgen.statistics.free_energy import (
    free_energy_profile,
    free_energy_surface,
    weighted_probabilities,
    weighted_probability,
)

STATES = np.array([0.70, 0.28, 0.02])  # target
PROPOSAL = np.array([0.40, 0.40, 0.20])


def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """States drawn from PROPOSAL with weights for STATES, and a factor that is independent of the state."""
    labels = rng.choice(3, n, p=PROPOSAL)
    return labels, np.log(STATES / PROPOSAL)[labels] + 0.4 * rng.normal(size=n)


def test_probabilities_are_the_weighted_fractions():
    labels, log_w = np.array([0, 1, 1, 3]), np.log([1.0, 2.0, 3.0, 4.0])
    estimates = weighted_probabilities(labels, 5, log_w, np.random.default_rng(0))
    assert [e.value for e in estimates] == pytest.approx([0.1, 0.5, 0.0, 0.4, 0.0])
    assert all(e.stderr is None for e in estimates)  # four samples support no error bar


def test_bootstrap_errors_scatter_as_they_say():
    rng = np.random.default_rng(1)
    n_trials = 200
    z = np.empty((n_trials, 3))
    for trial in z:
        labels, log_w = draw(2000, rng)
        estimates = weighted_probabilities(labels, 3, log_w, rng, 100)
        trial[:] = [(e.value - p) / e.stderr for e, p in zip(estimates, STATES, strict=True)]
    assert np.all(np.abs(z.mean(axis=0)) < 4 / np.sqrt(n_trials))
    # A stderr from 100 resamples is noisy, which widens z by 1.5 %.
    assert np.all(np.abs(z.var(axis=0) - 1.015) < 4 * np.sqrt(2 / n_trials))


def test_bootstrap_error_agrees_with_the_delta_method():
    labels, log_w = draw(50_000, np.random.default_rng(2))
    n_bootstrap = 200
    estimate = weighted_probability(labels == 2, log_w, np.random.default_rng(3), n_bootstrap)
    weights = np.exp(log_w) / np.exp(log_w).sum()
    exact = np.sqrt(np.sum((weights * ((labels == 2) - estimate.value)) ** 2))
    assert abs(estimate.stderr / exact - 1) < 4 / np.sqrt(2 * n_bootstrap)


def test_an_unvisited_state_has_no_error_bar():
    labels, log_w = draw(5000, np.random.default_rng(4))
    estimates = weighted_probabilities(labels, 4, log_w, np.random.default_rng(5))
    assert estimates[2].stderr is not None
    assert (estimates[3].value, estimates[3].stderr) == (0.0, None)


def test_band_of_a_harmonic_well_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(6)
    edges = np.linspace(-2.0, 2.0, 21)
    truth = -np.log(np.diff(norm.cdf(edges)) / np.diff(edges))
    inside = []
    for _ in range(60):
        x = rng.normal(scale=1.2, size=5000)
        log_w = -0.5 * x**2 + 0.5 * (x / 1.2) ** 2
        profile = free_energy_profile(x, log_w, edges, rng, 200)
        zero = -np.log(profile.density.max())
        inside.append((profile.lower <= truth - zero) & (truth - zero <= profile.upper))
    coverage = np.mean(inside)
    assert abs(coverage - 0.95) < 4 * np.sqrt(0.95 * 0.05 / np.size(inside))


def test_profile_normalises_over_all_samples_and_leaves_empty_bins_infinite():
    rng = np.random.default_rng(7)
    values = np.concatenate([np.full(600, 0.5), np.full(300, 2.5), np.full(100, 99.0), [3.0]])
    log_w = np.zeros(values.size)
    profile = free_energy_profile(values, log_w, np.arange(4.0), rng, 50)
    np.testing.assert_allclose(profile.density, np.array([600, 0, 301]) / 1001)
    assert profile.free_energy[0] == 0.0
    assert profile.free_energy[1] == profile.lower[1] == profile.upper[1] == np.inf
    assert profile.lower[2] < profile.free_energy[2] < profile.upper[2]
    assert profile.lower[0] < 0.0 < profile.upper[0]


def test_periodic_profile_does_not_depend_on_the_period_of_its_values():
    rng = np.random.default_rng(8)
    edges = np.linspace(-np.pi, np.pi, 37)
    angles = rng.vonmises(3.0, 4.0, 4000)
    log_w = 0.3 * rng.normal(size=angles.size)
    turned = angles + 2 * np.pi * rng.integers(-2, 3, angles.size)
    here, there = (
        free_energy_profile(values, log_w, edges, np.random.default_rng(9), 50, periodic=True)
        for values in (angles, turned)
    )
    np.testing.assert_allclose(here.density, there.density, atol=1e-12)
    np.testing.assert_allclose(here.upper, there.upper, atol=1e-12)
    assert here.density.sum() * (edges[1] - edges[0]) == pytest.approx(1.0)
    both_ends = free_energy_profile([-np.pi, np.pi], [0.0, 0.0], edges, rng, periodic=True)
    assert both_ends.density.sum() * (edges[1] - edges[0]) == pytest.approx(1.0)


def test_surface_has_x_first_and_infinity_where_empty():
    x, y = np.array([0.5, 1.5, 1.5]), np.array([2.5, 0.5, 0.5])
    surface = free_energy_surface(x, y, np.log([1.0, 1.0, 2.0]), np.arange(3.0), np.arange(4.0))
    expected = np.full((2, 3), np.inf)
    expected[0, 2], expected[1, 0] = np.log(3.0), 0.0
    np.testing.assert_allclose(surface, expected)


def test_labels_that_fit_no_state_or_no_weight_are_refused():
    rng = np.random.default_rng(10)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\)"):
        weighted_probabilities([0, 2], 2, [0.0, 0.0], rng)
    with pytest.raises(ValueError, match="differ in shape"):
        weighted_probabilities([0, 1, 1], 2, [0.0, 0.0], rng)
    with pytest.raises(ValueError, match="differ in shape"):
        free_energy_profile([0.5], [0.0, 0.0], [0.0, 1.0], rng)


def test_a_population_of_few_samples_has_no_error():
    """Neither of five samples, nor of fifty of which two have half of the weight, nor of all but five."""
    labels = np.repeat([0, 1, 2, 3], [10_000, 5, 50, 50])
    log_w = 0.05 * np.random.default_rng(7).normal(size=labels.size)
    log_w[-2:] += np.log(30.0)
    few = weighted_probabilities(labels, 4, log_w, np.random.default_rng(6))
    assert [estimate.stderr is None for estimate in few] == [False, True, False, True]
    rest = weighted_probabilities(np.where(labels == 1, 1, 0), 2, log_w, np.random.default_rng(6))
    assert [estimate.stderr for estimate in rest] == [None, None]
