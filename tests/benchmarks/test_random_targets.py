"""The answers that random targets come with are those of their energies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from intervals import Trial, coverage_table
from random_targets import KINDS, random_case
from scipy.stats import multivariate_normal

from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.sampling.draw import BoltzmannGenerator, Samples
from boltzgen.selftest.check import Row, estimates

N = 60_000


def drawn(case, seed):
    """Weighted samples: of an untrained flow, or of a normal density a little wider than that of springs."""
    if not case.name.startswith("springs"):
        torch.manual_seed(seed)
        flow = Generator(Architecture.of(case.target.coordinates)).double()
        return BoltzmannGenerator(case.target, flow).sample(N, seed=seed)
    points = torch.zeros(case.target.coordinates.shape[0], 1, 1, dtype=torch.float64)

    def energy(flat):
        return case.target.energy(flat.reshape(points.shape))[0]

    stiffness = torch.autograd.functional.hessian(energy, points.flatten()).numpy()
    slope = torch.autograd.functional.jacobian(energy, points.flatten()).numpy()
    wide = multivariate_normal(-np.linalg.solve(stiffness, slope), 1.3 * np.linalg.inv(stiffness), seed=seed)
    x = wide.rvs(N)
    log_q = wide.logpdf(x)
    u = case.target.energy(torch.as_tensor(x).T[:, None]).numpy()
    return Samples(x[:, :, None], log_q, u, -u - log_q, N, 0, 1.0)


@pytest.mark.parametrize("number", range(2 * len(KINDS)))
def test_weighted_samples_agree_with_all_answers(number):
    """Of six targets with about a dozen answers each none is off by four standard errors."""
    case = random_case(number, seed=3)
    rows = estimates(case, drawn(case, number))
    scores = [row.z for row in rows if row.z is not None]
    assert rows[0].z is not None
    assert len(scores) >= 0.7 * len(rows)
    assert np.abs(scores).max() < 4.0


def test_coverage_counts_what_intervals_hold_and_on_which_side_they_miss():
    scores = [0.0, 1.9, -2.0, 3.0, None]
    found = [Trial(target, 0, Row("", "ln Z", 0.0, 0.0, None, z, False), 0.1) for target in range(4) for z in scores]
    line = coverage_table(found)[0]
    assert "16 intervals of   4 targets hold the truth in  50.0 ± 0.0 %" in line
    assert "4 estimates too low, 4 too high" in line
    assert "4 not determined" in line
