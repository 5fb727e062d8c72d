"""ln Z along temperatures: a well that is lost at one of them shows, in its error, and at no other."""

from __future__ import annotations

import numpy as np
import pytest

from boltzgen.statistics.check import largest_fair_score
from boltzgen.statistics.thermodynamics import Rung, compare_rungs

N, DEPTH, SIGMA = 2000, 0.7, 0.3
DIMENSION = 12
"""Of harmonic lines beside the torsion-like coordinate with two wells: the energies spread as those of a molecule."""


def energy(x):
    """Two wells at ±2 of different depth in the first coordinate, harmonic in the others, in kT₀."""
    wells = -np.logaddexp(-(((x[:, 0] - 2) / SIGMA) ** 2) / 2, DEPTH - (((x[:, 0] + 2) / SIGMA) ** 2) / 2)
    return wells + 0.5 * (x[:, 1:] ** 2).sum(axis=1)


def rung(beta, seed, lost=False, width=1.1):
    """Draws of a proposal a little too wide with the right wells; ``lost``: without the shallower one."""
    rng = np.random.default_rng(seed)
    scale = width / np.sqrt(beta)
    share = 0.0 if lost else 1.0 / (1.0 + np.exp(beta * DEPTH))
    side = np.where(rng.random(N) < share, 2.0, -2.0)
    x = scale * rng.normal(size=(N, DIMENSION + 1))
    log_q = -0.5 * (x**2).sum(axis=1) / scale**2 - (DIMENSION + 1) * np.log(scale * np.sqrt(2 * np.pi))
    x[:, 0] = side + SIGMA * x[:, 0]
    with np.errstate(divide="ignore"):
        log_q += np.where(side > 0, np.log(share), np.log1p(-share)) - np.log(SIGMA)
    u = energy(x)
    return Rung(300.0 / beta, u, -beta * u - log_q, beta)


def test_scores_of_a_right_flow_are_normal_deviates():
    z = [compare_rungs(rung(1.0, 2 * k), rung(0.75, 2 * k + 1), np.random.default_rng(k), 50).z for k in range(100)]
    assert abs(np.mean(z)) < 4 / np.sqrt(100)
    assert abs(np.var(z) - 1) < 4 * np.sqrt(2 / 100) + 1 / 50  # variance of a sample variance; errors of 50 resamples
    assert np.abs(z).max() < largest_fair_score(100)


@pytest.mark.parametrize("lowest", [True, False])
def test_a_well_lost_at_one_temperature_is_told_with_its_share_of_z(lowest):
    low, high = rung(1.0, 0, lost=lowest), rung(0.75, 1, lost=not lowest)
    assert low.weights().khat < 0.7  # the weights say nothing
    assert high.weights().khat < 0.7
    step = compare_rungs(low, high, np.random.default_rng(0))
    lost = np.log1p(np.exp(-DEPTH * (1.0 if lowest else 0.75)))
    assert step.excess.value == pytest.approx(lost if lowest else -lost, abs=4 * step.excess.stderr)
    assert abs(step.z) > 2 * largest_fair_score(1)


def test_a_well_lost_at_both_is_not_seen_as_the_docstring_says():
    step = compare_rungs(rung(1.0, 0, lost=True), rung(0.75, 1, lost=True), np.random.default_rng(0))
    assert abs(step.z) < 4


def test_bennetts_ratio_is_that_of_the_integrals():
    step = compare_rungs(rung(1.0, 3), rung(0.75, 4), np.random.default_rng(0))
    # both wells have the same volume but for their depth, so that ln Z is known but for their overlap, e⁻²²
    exact = [
        np.log1p(np.exp(beta * DEPTH)) + 0.5 * (DIMENSION + 1) * np.log(2 * np.pi / beta) + np.log(SIGMA)
        for beta in (1.0, 0.75)
    ]
    assert step.by_energies == pytest.approx(exact[1] - exact[0], abs=0.1)  # four of its errors, about 0.025
    assert step.by_weights == pytest.approx(exact[1] - exact[0], abs=4 * step.excess.stderr)


def test_no_score_where_the_weights_support_no_error():
    few = rung(1.0, 0)
    few = Rung(few.temperature, few.energy[:150], few.log_weight[:150], few.beta)
    assert compare_rungs(few, rung(0.75, 1), np.random.default_rng(0)).z is None


def test_failed_energies_have_no_weight_and_do_no_harm():
    low = rung(1.0, 0)
    energy, log_w = low.energy.copy(), low.log_weight.copy()
    energy[:20], log_w[:20] = np.inf, -np.inf
    step = compare_rungs(Rung(300.0, energy, log_w, 1.0), rung(0.75, 1), np.random.default_rng(0))
    assert abs(step.z) < 4
