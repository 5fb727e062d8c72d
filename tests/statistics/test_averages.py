"""Weighted means and directions: their values, and errors that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from boltzgen.statistics.averages import weighted_direction, weighted_means


def test_errors_of_means_are_the_scatter_of_repeated_ensembles():
    rng = np.random.default_rng(0)
    shift, n, trials = 0.5, 1500, 150
    z = []
    for _ in range(trials):
        x = rng.normal(size=n)
        mean, square = weighted_means(np.column_stack([x, x**2]), shift * x, rng, 60)
        z.append([(mean.value - shift) / mean.stderr, (square.value - 1 - shift**2) / square.stderr])
    z = np.array(z)
    assert np.all(np.abs(z.mean(axis=0)) < 4 / np.sqrt(trials))
    # variance of a sample variance, and 1/60 for the errors known from 60 resamples
    assert np.all(np.abs(z.var(axis=0) - 1) < 4 * np.sqrt(2 / trials) + 1 / 60)


def test_a_direction_is_averaged_across_the_cut_of_the_circle_and_knows_when_there_is_none():
    rng = np.random.default_rng(1)
    angle = rng.vonmises(np.radians(175), 8.0, 20_000)
    (mean, length) = weighted_direction(angle, np.zeros(20_000), rng)
    assert abs(np.angle(np.exp(1j * (mean.value - np.radians(175))))) < 4 * mean.stderr
    assert mean.stderr == pytest.approx(np.std(np.sin(angle - np.radians(175))) / length / np.sqrt(20_000), rel=0.2)
    _, nothing = weighted_direction(rng.uniform(-np.pi, np.pi, 20_000), np.zeros(20_000), rng)
    assert nothing < 4 / np.sqrt(20_000)


def test_no_error_from_few_effective_samples_and_no_mean_of_what_is_not_finite():
    rng = np.random.default_rng(2)
    assert weighted_means(rng.normal(size=(150, 1)), np.zeros(150), rng)[0].stderr is None
    values, log_w = np.ones((300, 1)), np.zeros(300)
    values[0], log_w[0] = np.inf, -np.inf
    assert weighted_means(values, log_w, rng)[0].value == pytest.approx(1.0)
    with pytest.raises(ValueError, match="not finite"):
        weighted_means(values, np.zeros(300), rng)
