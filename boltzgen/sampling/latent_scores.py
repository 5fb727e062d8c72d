"""Gradients of ln p in the latent coordinates of a chart, for identities that hold of the target alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boltzgen.target import AnyTarget


@dataclass(frozen=True)
class LatentScores:
    """Of n configurations that a chart reaches: ``index (n,)``, their places among all that were given.

    ``circles (n, n_torsions)`` and ``lines (n, n_stiff)`` are latents; ``circle_scores`` and ``line_scores``, of the
    same shapes, are ∂ln p/∂latent with ln p = −u(x) + ln |det ∂x/∂(circles, lines)|.
    """

    index: Tensor
    circles: Tensor
    lines: Tensor
    circle_scores: Tensor
    line_scores: Tensor


def latent_scores(
    target: AnyTarget, x: Tensor, label: int = 0, temperature: float | None = None, batch_size: int = 1024
) -> LatentScores:
    """Latents and scores of configurations ``(sites, components, batch)`` in the chart ``label``.

    ``temperature`` in K; None: the target's. Configurations outside the support of the chart are left out.
    """
    chart = target.coordinates.charts[label]
    index = chart.reaches(x).nonzero()[:, 0]
    parts = []
    for rows in index.split(batch_size):  # one empty part if there are none
        circles, lines, _ = chart.from_cartesian(x[..., rows])
        circles, lines = circles.detach().requires_grad_(True), lines.detach().requires_grad_(True)
        with torch.enable_grad():
            at, log_det = target.coordinates.to_cartesian(torch.full_like(rows, label), circles, lines)
            log_p = log_det - target.reduced_potential(at, temperature)
            scores = torch.autograd.grad(log_p.sum(), (circles, lines), allow_unused=True)
        filled = [torch.zeros_like(y) if g is None else g for y, g in zip((circles, lines), scores, strict=True)]
        parts.append((circles.detach(), lines.detach(), *filled))
    return LatentScores(index, *(torch.cat(column) for column in zip(*parts, strict=True)))
