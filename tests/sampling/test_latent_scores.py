"""Gradients of ln p in latent coordinates: those of the energy and the volume element, by finite differences."""

from __future__ import annotations

import numpy as np
import torch

from boltzgen.sampling.latent_scores import latent_scores


def log_p(target, label, circles, lines, temperature):
    x, log_det = target.coordinates.to_cartesian(label, circles, lines)
    return log_det - target.reduced_potential(x, temperature)


def test_scores_are_finite_differences_at_any_temperature_in_any_image(dipeptide, dipeptide_target):
    target, rng = dipeptide_target, torch.Generator().manual_seed(0)
    n_torsions, n_stiff = target.coordinates.n_torsions, target.coordinates.n_stiff
    start = torch.as_tensor(dipeptide.positions, dtype=torch.float64)[..., None].repeat(1, 1, 3)
    scores = latent_scores(target, target.coordinates.random_images(start, rng), 0, 350.0)
    label = torch.zeros(3, dtype=torch.int64)
    h = 1e-5
    for kind, size in (("circles", n_torsions), ("lines", n_stiff)):
        for j in (0, size - 1):
            ends = []
            for sign in (1.0, -1.0):
                moved = {"circles": scores.circles.clone(), "lines": scores.lines.clone()}
                moved[kind][:, j] += sign * h
                ends.append(log_p(target, label, moved["circles"], moved["lines"], 350.0))
            slope = (ends[0] - ends[1]) / (2 * h)
            found = (scores.circle_scores if kind == "circles" else scores.line_scores)[:, j]
            np.testing.assert_allclose(found.numpy(), slope.numpy(), rtol=1e-5, atol=1e-4)  # h² and rounding over h


def test_what_the_chart_does_not_reach_is_left_out_and_nothing_may_be_left(dipeptide, dipeptide_target):
    x = torch.as_tensor(dipeptide.positions, dtype=torch.float64)[..., None]
    both = torch.cat([-x, x], dim=-1)  # the mirror image has the other stereocentre
    scores = latent_scores(dipeptide_target, both)
    assert scores.index.tolist() == [1]
    none = latent_scores(dipeptide_target, -x)
    assert none.circles.shape == (0, dipeptide_target.coordinates.n_torsions)
