"""Effective share against the number of samples: flat for tame weights, sagging for a heavy tail."""

from __future__ import annotations

import numpy as np

from boltzgen.statistics.growth import ess_growth
from boltzgen.statistics.weights import clipped_ess, kish_ess


def test_a_heavy_tail_sags_and_a_tame_one_does_not():
    rng = np.random.default_rng(0)
    tame = ess_growth(0.5 * rng.normal(size=51_200))
    # ln w = 0.5 ξ: 1/⟨w²⟩ = e^{-1/4}; Kish's share of a block of 100 is high by a few per cent
    assert np.all(np.abs(tame.ess_fraction[2:] - np.exp(-0.25)) < 0.02)
    heavy = ess_growth(-0.8 * np.log(rng.random(51_200)))  # Pareto weights of shape 0.8: no variance
    assert heavy.ess_fraction[-1] < 0.5 * heavy.ess_fraction[0]
    assert tame.n.tolist() == [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200]


def test_the_share_of_all_is_kishs_and_a_block_without_weight_counts_as_nothing():
    log_w = np.zeros(400)
    log_w[:100] = -np.inf
    growth = ess_growth(log_w)
    assert np.isclose(growth.ess_fraction[-1], kish_ess(log_w) / 400)
    assert np.isclose(growth.ess_fraction[0], 0.75)
    assert np.isnan(growth.stderr[-1])


def test_clipping_cuts_the_largest_down_to_the_least_among_them():
    log_w = np.log([1.0, 1.0, 2.0, 8.0])
    assert np.isclose(clipped_ess(log_w, 0.5), 6.0**2 / 10.0)
    assert np.isclose(clipped_ess(log_w, 0.2), kish_ess(log_w))
    assert np.isclose(clipped_ess(np.array([0.0, -np.inf]), 1.0), 1.0)
