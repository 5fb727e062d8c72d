"""The normal density that leads draws to a state: its numbers, against torch's own and across the cut of a circle."""

from __future__ import annotations

import math

import torch

from boltzgen.probe.density import NormalDensity, shrunk_covariance


def frames(n=400, centre=math.pi):
    """A circle about ±π and two correlated lines."""
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(n, 3, generator=rng, dtype=torch.float64)
    circle = centre + 0.3 * noise[:, 0]
    return torch.stack([torch.atan2(circle.sin(), circle.cos()), noise[:, 1], noise[:, 1] + 0.1 * noise[:, 2]], dim=1)


def test_draws_have_the_density_that_is_told_also_across_the_cut_of_a_circle():
    density = NormalDensity(frames(), 1)
    z, log_prob, inside = density.draw(500, torch.Generator().manual_seed(1))
    assert inside.all()
    assert (z[:, 0].abs() > 1.0).all()  # about ±π, six deviations from 1, not about their mean 0
    assert {True, False} == set((z[:, 0] > 0).tolist())
    assert torch.allclose(density.log_prob(z), log_prob, rtol=0.0, atol=1e-9)  # 3 × 3, far from singular


def test_it_is_normalised():
    density = NormalDensity(frames(), 1)
    z, _, _ = density.draw(20_000, torch.Generator().manual_seed(2))
    wide = torch.distributions.MultivariateNormal(z[:, 1:].mean(0), 2.0 * torch.cov(z[:, 1:].T))
    x = wide.sample((20_000,))
    circle = 2.0 * math.pi * torch.rand(20_000, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    points = torch.cat([circle - math.pi, x], dim=1)
    weights = (density.log_prob(points) - wide.log_prob(x) + math.log(2.0 * math.pi)).exp()
    assert abs(weights.mean() - 1.0) < 4.0 * weights.std() / math.sqrt(len(weights))


def test_few_frames_of_many_coordinates_give_a_covariance_that_can_be_drawn_from():
    rng = torch.Generator().manual_seed(4)
    few = torch.randn(30, 60, generator=rng, dtype=torch.float64)
    assert torch.linalg.eigvalsh(shrunk_covariance(few)).min() > 0.1
