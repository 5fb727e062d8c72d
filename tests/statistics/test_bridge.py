"""Bridge sampling: the ratio of normalisations, its error, and that it is silent where nothing overlaps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from boltzgen.statistics.bridge import bridge_log_z

SIGMAS = 4.0
LOG_Z = 7.0


def gaussians(rng, shift, width=1.3, n=4000, chains=16, per_chain=100):
    """ln w of draws of q = N(shift, width²) and of frames of p = N(0, 1), with p̃ = e^7 p."""
    x_q, x_p = rng.normal(shift, width, n), rng.normal(size=chains * per_chain)

    def log_w(x):
        return LOG_Z + norm.logpdf(x) - norm.logpdf(x, shift, width)

    return log_w(x_q), log_w(x_p), np.repeat(np.arange(chains), per_chain)


@pytest.mark.parametrize("shift", [0.0, 1.5, 3.0])
def test_log_z_is_right_within_its_error_and_the_error_is_that_of_repetition(shift):
    rng = np.random.default_rng(0)
    found = [bridge_log_z(*gaussians(rng, shift)) for _ in range(60)]
    values, errors = (np.array([getattr(one, name) for one in found]) for name in ("value", "stderr"))
    assert abs(values.mean() - LOG_Z) < SIGMAS * values.std() / np.sqrt(60)
    assert errors.mean() == pytest.approx(
        values.std(), rel=0.4
    )  # the scatter of 60 has an error of 9 %, that of 16 18 %


def test_half_of_the_weight_that_q_misses_is_seen_as_ln_2():
    """p has two equal wells 20 apart, q one of them: its weights are perfect, and its log Z lacks ln 2."""
    rng = np.random.default_rng(1)
    frames = np.where(np.arange(1600) % 2, 0.0, np.inf)  # −u − ln q: infinite where q is nothing
    found = bridge_log_z(np.zeros(4000), np.where(np.isinf(frames), 300.0, 0.0), rng.integers(0, 16, 1600))
    assert abs(found.value - np.log(2.0)) < SIGMAS * found.stderr


def test_draws_without_weight_count():
    rng = np.random.default_rng(2)
    of_q, of_p, chain = gaussians(rng, 0.5)
    with_failed = np.concatenate([of_q, np.full(len(of_q), -np.inf)])
    whole, half = bridge_log_z(of_q, of_p, chain), bridge_log_z(with_failed, of_p, chain)
    assert whole.value - half.value == pytest.approx(np.log(2.0), abs=SIGMAS * np.hypot(whole.stderr, half.stderr))


def test_nothing_is_said_where_the_densities_do_not_overlap():
    rng = np.random.default_rng(3)
    assert bridge_log_z(*gaussians(rng, 30.0)).stderr is None
    assert bridge_log_z(np.full(10, -np.inf), np.zeros(10), np.arange(10)).stderr is None
