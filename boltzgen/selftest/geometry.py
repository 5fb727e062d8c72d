"""Bonds, angles and torsions of positions ``(n, atoms, 3)``, written down apart from those of the coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from boltzgen.selftest.case import Array


def distance(x: Array, a: int, b: int) -> Array:
    """|x_a − x_b| in nm, ``(n,)``."""
    return np.linalg.norm(x[:, a] - x[:, b], axis=1)


def angle(x: Array, a: int, b: int, c: int) -> Array:
    """The angle at b in radians, ``(n,)``."""
    u, v = x[:, a] - x[:, b], x[:, c] - x[:, b]
    return np.arccos(np.sum(u * v, axis=1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1))


def torsion(x: Array, atoms: Sequence[int]) -> Array:
    """The torsion a–b–c–d in radians, IUPAC sign, ``(n,)``: of the projections of a and d along b–c."""
    a, b, c, d = (x[:, k] for k in atoms)
    axis = (c - b) / np.linalg.norm(c - b, axis=1, keepdims=True)
    u, v = (w - np.sum(w * axis, axis=1, keepdims=True) * axis for w in (a - b, d - c))
    return np.arctan2(np.sum(np.cross(u, v) * axis, axis=1), np.sum(u * v, axis=1))
