"""Smooth bijections between an unconstrained deviation d and a bond, an angle or a stiff torsion.

Each has slope one at d = 0, so that d is the deviation from the centre μ to first order, and each maps the whole line
onto the open support: nothing is ever clamped, because a clamp leaks probability.

Every function returns the value and ln |dq/dd|; every ``*_inverse`` returns d. Shapes: ``(rows, batch)``, centres
μ ``(rows, 1)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bond(d: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """r = μ exp(d/μ), positive."""
    scaled = d / center
    return center * scaled.exp(), scaled


def bond_inverse(r: Tensor, center: Tensor) -> Tensor:
    """d = μ ln(r/μ)."""
    return center * (r / center).log()


def angle(d: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """θ = π σ(logit(μ/π) + d/s) with s = μ(1 − μ/π), strictly between 0 and π."""
    slope = center * (1.0 - center / math.pi)
    logit = torch.logit(center / math.pi) + d / slope
    log_det = math.log(math.pi) - slope.log() + torch.nn.functional.logsigmoid(logit)
    return math.pi * torch.sigmoid(logit), log_det + torch.nn.functional.logsigmoid(-logit)


def angle_inverse(theta: Tensor, center: Tensor) -> Tensor:
    """d = s [logit(θ/π) − logit(μ/π)]."""
    slope = center * (1.0 - center / math.pi)
    return slope * (torch.logit(theta / math.pi) - torch.logit(center / math.pi))


def torsion(d: Tensor, center: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """φ = μ + W tanh(d/W): within W of the centre; stereo is fixed where W ≤ |μ| and |μ| + W ≤ π."""
    ratio = d / width
    # ln sech² x = 2 (ln 2 − x − softplus(−2x)), finite for every x
    log_det = 2.0 * (math.log(2.0) - ratio - torch.nn.functional.softplus(-2.0 * ratio))
    return center + width * torch.tanh(ratio), log_det


def torsion_inverse(phi: Tensor, center: Tensor, width: Tensor) -> Tensor:
    """d = W artanh((φ − μ)/W), the difference taken modulo 2π; NaN outside the support."""
    return width * torch.atanh(wrap(phi - center) / width)


def wrap(angle: Tensor) -> Tensor:
    """The angle modulo 2π in [−π, π)."""
    return torch.remainder(angle + math.pi, 2.0 * math.pi) - math.pi
