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


def straight_angle(d: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """θ = π − ρ, where sin²(ρ/2) = 1 − e^{−w/2κ} and w = −ln Φ(z), z = d/s: the bend of atoms that rest in line.

    ρ is the radius of a two-dimensional bend, with density sin ρ e^{−κ(1 − cos ρ)} if that is harmonic: for normal z it
    has exactly this density. κ makes the centre its median; s makes the slope one there. Φ is the normal distribution.
    """
    kappa, slope = _straight_parameters(center)
    z = d / slope
    log_phi = torch.special.log_ndtr(z)
    half = torch.asin((-torch.expm1(log_phi / (2.0 * kappa))).sqrt())
    # dρ/dw = cot(ρ/2)/2κ and −dw/dz = φ(z)/Φ(z)
    log_det = -half.tan().log() - (2.0 * kappa * slope).log() - 0.5 * (z.square() + math.log(2.0 * math.pi)) - log_phi
    return math.pi - 2.0 * half, log_det


def straight_angle_inverse(theta: Tensor, center: Tensor) -> Tensor:
    """d = s Φ⁻¹(cos^{4κ}(ρ/2)) with ρ = π − θ."""
    kappa, slope = _straight_parameters(center)
    w = -4.0 * kappa * (0.5 * (math.pi - theta)).cos().log()
    near = torch.special.ndtri(-torch.expm1(-w))  # of 1 − Φ, exact for small w, where Φ rounds to one
    return slope * torch.where(w < 0.5, -near, torch.special.ndtri((-w).exp()))


def _straight_parameters(center: Tensor) -> tuple[Tensor, Tensor]:
    """κ and the slope s of :func:`straight_angle`."""
    half = 0.5 * (math.pi - center)
    kappa = -math.log(2.0) / (4.0 * half.cos().log())
    return kappa, math.sqrt(2.0 / math.pi) / (2.0 * kappa * half.tan())


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


def random_circles(shape: tuple[int, ...], like: Tensor, rng: torch.Generator) -> Tensor:
    """Uniform angles in [−π, π), of the type and on the device of ``like``."""
    return 2.0 * math.pi * torch.rand(shape, generator=rng, dtype=like.dtype, device=like.device) - math.pi
