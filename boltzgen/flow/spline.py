"""Bijections of the circle and of the line whose parameters come from a network.

Every function returns the image and ln |dy/dx|, elementwise; ``inverse=True`` maps back and returns ln |dx/dy|.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MINIMUM_BIN = 1e-3
MINIMUM_SLOPE = 1e-3


def circular_splines(x: Tensor, parameters: Tensor, n_splines: int, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """``n_splines`` circular splines in turn, each followed by a rotation; ``x (batch,)`` and ln |dy/dx|, ``(batch,)``.

    ``parameters (batch, n_splines (3 K + 1))``: for each spline those of :func:`circular_spline` and its rotation/π.
    """
    log_slope = torch.zeros_like(x)
    parts = parameters.chunk(n_splines, dim=-1)
    for part in reversed(parts) if inverse else parts:
        spline, shift = part[:, :-1], math.pi * part[:, -1]
        if inverse:
            x, step = circular_spline(rotate(x, -shift), spline, inverse=True)
        else:
            x, step = circular_spline(x, spline)
            x = rotate(x, shift)
        log_slope = log_slope + step
    return x, log_slope


def circular_spline(x: Tensor, parameters: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Monotonic rational-quadratic spline of the circle [−π, π), with equal slopes at both ends of the cut.

    ``x`` is ``(batch,)``; ``parameters`` ``(batch, 3 K)``: K widths, K heights, K slopes (unnormalised). With all
    parameters zero it is the identity.

    Source: Durkan et al., Neural Spline Flows (2019), eqs. 4 to 8; Rezende et al., Normalizing Flows on Tori and
    Spheres (2020), section 2.1.
    """
    widths, heights, slopes = parameters.chunk(3, dim=-1)
    knots_x, width = _knots(widths)
    knots_y, height = _knots(heights)
    # softplus⁻¹(1) makes zero parameters the identity
    slope = MINIMUM_SLOPE + (1.0 - MINIMUM_SLOPE) * torch.nn.functional.softplus(slopes + math.log(math.e - 1.0))
    knots = knots_y if inverse else knots_x
    k = (x[:, None] >= knots[:, 1:]).sum(-1, keepdim=True).clamp(max=widths.shape[-1] - 1)
    following = (k + 1) % widths.shape[-1]
    x0, w = knots_x.gather(1, k)[:, 0], width.gather(1, k)[:, 0]
    y0, h = knots_y.gather(1, k)[:, 0], height.gather(1, k)[:, 0]
    d0, d1 = slope.gather(1, k)[:, 0], slope.gather(1, following)[:, 0]
    s = h / w
    curvature = d0 + d1 - 2.0 * s
    t = _solve(x - y0, h, s, d0, curvature) if inverse else (x - x0) / w
    denominator = s + curvature * t * (1.0 - t)
    log_slope = (
        2.0 * s.log()
        + (d1 * t.square() + 2.0 * s * t * (1.0 - t) + d0 * (1.0 - t).square()).log()
        - 2.0 * denominator.log()
    )
    if inverse:
        return x0 + w * t, -log_slope
    return y0 + h * (s * t.square() + d0 * t * (1.0 - t)) / denominator, log_slope


def _knots(unnormalised: Tensor) -> tuple[Tensor, Tensor]:
    """Left ends and sizes of K bins that fill [−π, π)."""
    n = unnormalised.shape[-1]
    size = 2.0 * math.pi * (MINIMUM_BIN + (1.0 - MINIMUM_BIN * n) * torch.softmax(unnormalised, dim=-1))
    return size.cumsum(-1) - size - math.pi, size


def _solve(y: Tensor, h: Tensor, s: Tensor, d0: Tensor, curvature: Tensor) -> Tensor:
    """Root in [0, 1] of the quadratic that a bin of the spline inverts (Durkan et al., eq. 29 to 32)."""
    a = h * (s - d0) + y * curvature
    b = h * d0 - y * curvature
    c = -s * y
    discriminant = (b.square() - 4.0 * a * c).clamp(min=0.0)
    return 2.0 * c / (-b - discriminant.sqrt())


def rotate(x: Tensor, shift: Tensor) -> Tensor:
    """x + shift on the circle [−π, π); log-determinant 0."""
    return torch.remainder(x + shift + math.pi, 2.0 * math.pi) - math.pi


def sinh_arcsinh(x: Tensor, parameters: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """y = a + e^b sinh(e^c asinh(x) + e): shift, scale, tail weight and skew of a line.

    ``parameters`` is ``(..., 4)`` holding (a, b, c, e), all bounded softly (|b| < 3, |c| < 1, |e| < 2) so that tails
    stay near power one; zero parameters are the identity.

    Source: Jones and Pewsey, Sinh-arcsinh distributions, Biometrika 96, 761 (2009), eq. 2.
    """
    a, b, c, e = parameters.unbind(-1)
    b, c, e = 3.0 * torch.tanh(b / 3.0), torch.tanh(c), 2.0 * torch.tanh(e / 2.0)
    power = c.exp()
    if inverse:
        z = (x - a) * (-b).exp()
        w = torch.asinh(z)
        v = (w - e) / power
        y = torch.sinh(v)
        return y, -(b + c) - 0.5 * torch.log1p(z.square()) + 0.5 * torch.log1p(y.square())
    w = power * torch.asinh(x) + e
    y = torch.sinh(w)
    return a + b.exp() * y, b + c + 0.5 * torch.log1p(y.square()) - 0.5 * torch.log1p(x.square())
