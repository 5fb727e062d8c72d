"""The correction map: an energy of two torsions, given on a grid."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from boltzgen.energy.geometry import torsion_angles
from boltzgen.energy.terms import Differences, Term
from boltzgen.errors import InputError


class CMAPTorsion(Term):
    """Correction maps, E = Σ S(φ, ψ): S is the periodic bicubic spline through an energy grid of the two torsions.

    In the cell (i, j) of a grid with s points a turn, S = Σ_pq c_pq tᵖ uᵠ with t = φ s/2π − i and u = ψ s/2π − j.

    Parameters: ``atoms (m, 8)``, four for φ and four for ψ; ``map (m,)``, the grid of each pair of torsions; ``grid
    (maps, s, s)`` in kJ/mol, at [k, i, j] the energy at φ = 2πi/s and ψ = 2πj/s. S has continuous second derivatives;
    undefined where three atoms of a torsion are collinear: NaN.

    Source: MacKerell, Feig, Brooks, J. Comput. Chem. 25, 1400 (2004).
    """

    atoms: Tensor
    map: Tensor
    grid: Tensor
    coefficients: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        if not ((parameters["map"] >= 0) & (parameters["map"] < len(parameters["grid"]))).all():
            raise InputError(f"a correction map is named that is none of {len(parameters['grid'])}.")
        i, j, k, m = np.concatenate([parameters["atoms"][:, :4], parameters["atoms"][:, 4:]]).T
        self.vectors = Differences(np.concatenate([i, j, k]), np.concatenate([j, k, m]))
        cells = bicubic_coefficients(parameters["grid"])
        self.register_buffer("coefficients", torch.as_tensor(cells.reshape(4, 4, -1)).to(dtype))

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        size = self.grid.shape[1]
        angles = torsion_angles(*self.vectors(x).chunk(3))
        turns = torch.remainder(angles * (size / (2.0 * math.pi)), size)
        cell = turns.detach().to(torch.int64).clamp(0, size - 1)  # clamped for NaN, which has no cell
        t, u = (turns - cell).chunk(2)
        i, j = cell.chunk(2)
        c = self.coefficients[:, :, (self.map[:, None] * size + i) * size + j]
        energy = torch.zeros_like(t)
        for row in c.flip(0):
            energy = energy * t + ((row[3] * u + row[2]) * u + row[1]) * u + row[0]
        return energy.sum(0)


def bicubic_coefficients(grid: np.ndarray) -> np.ndarray:
    """Coefficients ``(4, 4, maps, s, s)`` of the periodic bicubic splines through grids ``(maps, s, s)``.

    A spline in one angle is linear in its values: the slopes f′ (per cell) solve f′ᵢ₋₁ + 4f′ᵢ + f′ᵢ₊₁ =
    3(fᵢ₊₁ − fᵢ₋₁), and Hermite's formula gives the coefficients of a cell from f and f′ at both ends. The bicubic
    spline is the tensor product of two.
    """
    here = np.eye(grid.shape[-1])
    after, before = np.roll(here, 1, axis=1), np.roll(here, -1, axis=1)
    slope = np.linalg.solve(before + 4.0 * here + after, 3.0 * (after - before))
    rise, end_slope = after - here, after @ slope
    spline = np.stack([here, slope, 3.0 * rise - 2.0 * slope - end_slope, slope + end_slope - 2.0 * rise])
    return np.einsum("pia,kab,qjb->pqkij", spline, grid, spline, optimize=True)
