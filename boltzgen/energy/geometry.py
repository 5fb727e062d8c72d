"""Lengths, angles and torsions of listed atoms. What is undefined is NaN, so that the energy of the sample fails.

Vectors are ``(m, 3, batch)``, results ``(m, batch)`` in nm or radians.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

COLLINEAR = 1e-24
"""Floor of |a×b|² in nm⁴ under the root: the gradient of an angle is zero at 0 and π, instead of infinite."""


def lengths(d: Tensor) -> Tensor:
    """|d|; NaN for a vector of zero length, which has no direction."""
    square = d.square().sum(1)
    return square * square.rsqrt()


def bond_angles(a: Tensor, b: Tensor) -> Tensor:
    """θ = atan2(|a×b|, a·b), 0 to π, with gradient zero at 0 and π; NaN where a vector has zero length."""
    sine = torch.linalg.cross(a, b, dim=1).square().sum(1).clamp(min=COLLINEAR).sqrt()
    scale = (a.square().sum(1) * b.square().sum(1)).rsqrt()
    return torch.atan2(sine * scale, (a * b).sum(1) * scale)


def bond_cosines(a: Tensor, b: Tensor) -> Tensor:
    """cos θ = a·b/(|a||b|), smooth at 0 and π; NaN where a vector has zero length."""
    return (a * b).sum(1) * (a.square().sum(1) * b.square().sum(1)).rsqrt()


def torsion_angles(b1: Tensor, b2: Tensor, b3: Tensor) -> Tensor:
    """IUPAC torsions φ = atan2(|b₂| b₁·(b₂×b₃), (b₁×b₂)·(b₂×b₃)) of consecutive bonds, −π to π.

    NaN where two consecutive bonds are collinear.
    """
    n1, n2 = torch.linalg.cross(b1, b2, dim=1), torch.linalg.cross(b2, b3, dim=1)
    phi = torch.atan2((b1 * n2).sum(1) * b2.square().sum(1).sqrt(), (n1 * n2).sum(1))
    return torch.where(n1.square().sum(1) * n2.square().sum(1) > 0.0, phi, math.nan)


def torsion_cosines(b1: Tensor, b2: Tensor, b3: Tensor) -> Tensor:
    """cos φ of consecutive bonds, smooth at 0 and π; NaN where two consecutive bonds are collinear."""
    return bond_cosines(torch.linalg.cross(b1, b2, dim=1), torch.linalg.cross(b2, b3, dim=1))
