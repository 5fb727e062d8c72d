"""One chart around a basin of minima: its centres, its supports, and its whitening by averaged covariances.

At fixed slow torsions the stiff coordinates are nearly Gaussian around a minimum, with the inverse Hessian as
covariance. Its average over many conformers describes all of them far better than that of any one. The average of the
Hessians would not: a contact across a folded chain makes a torsion of its backbone stiff, and one such minimum among
many decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from boltzgen.coordinates.charts import wrap
from boltzgen.coordinates.internal import InternalToCartesian
from boltzgen.coordinates.molecular import PLANAR_WIDTH, SP3_WIDTH, Chart, MolecularCoordinates
from boltzgen.coordinates.zmatrix import ZMatrix
from boltzgen.errors import InputError

ReducedPotential = Callable[[Tensor], Tensor]
"""Positions ``(atoms, 3, batch)`` in nm → u = U/kT, ``(batch,)``; softened where pairs overlap."""

TYPICAL_WIDTHS = {"bond": 0.003, "angle": 0.06, "torsion": 0.15, "slow": 0.6}
"""Rough thermal widths in nm and radians: the scaling of the minimiser and of the Hessian's eigenvalues."""

WIDEST = 4.0
"""Largest standard deviation of a whitened direction, in typical widths; softer ones are held at that."""

BENT = math.pi - 0.1
"""Centre of the angle of three atoms that are in line in the reference structure."""

LEAST_ROOM = 0.5
"""A sibling torsion nearer than this to 0 or π has no side to keep, and is given the support of planar centres."""


def chart_of_structure(zmatrix: ZMatrix, positions: np.ndarray, planar_atoms: tuple[int, ...]) -> MolecularCoordinates:
    """Coordinates centred on one structure ``(atoms, 3)`` in nm, not yet whitened."""
    internal = InternalToCartesian(zmatrix).internal(torch.as_tensor(positions, dtype=torch.float64)[..., None])
    torsions = internal.torsions[:, 0].numpy().copy()
    torsions[_half_turn_rows(zmatrix)] = math.pi
    n_stiff = zmatrix.n_internal - len(zmatrix.slow)
    chart = Chart(
        bonds=internal.bonds[:, 0].numpy(),
        angles=np.minimum(internal.angles[:, 0].numpy(), BENT),
        torsions=torsions,
        widths=_widths(zmatrix, torsions, planar_atoms),
        mean=np.zeros(n_stiff),
        cholesky=np.eye(n_stiff),
    )
    return MolecularCoordinates(zmatrix, chart)


def whitened(
    coordinates: MolecularCoordinates,
    conformers: np.ndarray,
    potential: ReducedPotential,
    planar_atoms: tuple[int, ...],
) -> MolecularCoordinates:
    """The chart of a basin, given its minimised conformers ``(k, atoms, 3)`` in nm: centres and covariances averaged.

    Raises
    ------
    InputError
        If a Hessian is not finite.
    """
    coordinates = _recentre(coordinates, conformers, planar_atoms)
    torsions, stiff, _ = coordinates.from_cartesian(torch.as_tensor(conformers).permute(1, 2, 0))
    d = coordinates.deviations(stiff)
    scale = _stiff_scale(coordinates)
    covariances = [
        _covariance(_stiff_hessian(coordinates, potential, torsions[k : k + 1], d[:, k : k + 1]), scale)
        for k in range(len(conformers))
    ]
    cholesky = torch.linalg.cholesky(torch.stack(covariances).mean(0))
    unevenness = torch.stack([_unevenness(covariance, cholesky) for covariance in covariances]).mean(0)
    return coordinates.with_chart(mean=d.mean(1).numpy(), cholesky=cholesky.numpy(), unevenness=unevenness.numpy())


def minimise_from(coordinates: MolecularCoordinates, potential: ReducedPotential, torsions: np.ndarray) -> np.ndarray:
    """Minimise from slow torsions ``(n_torsions,)`` and zero deviations; positions ``(atoms, 3)`` in nm."""
    n_t = coordinates.n_torsions
    scale = torch.cat([torch.full((n_t,), TYPICAL_WIDTHS["slow"], dtype=torch.float64), _stiff_scale(coordinates)])

    def split(y: Tensor) -> tuple[Tensor, Tensor]:
        v = y * scale
        return v[None, :n_t], v[n_t:, None]

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        y = torch.tensor(values, requires_grad=True)
        u = _effective(coordinates, potential, *split(y)).sum()
        (gradient,) = torch.autograd.grad(u, y)
        return u.item(), gradient.numpy()

    start = np.concatenate([torsions / scale[:n_t].numpy(), np.zeros(coordinates.n_stiff)])
    result = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 400, "maxcor": 20})
    with torch.no_grad():
        x, _ = coordinates.from_deviations(*split(torch.as_tensor(result.x)))
        return x[..., 0].numpy()


def _half_turn_rows(zmatrix: ZMatrix) -> list[int]:
    """Torsion rows of the second atoms of rotors of order two, whose support must be its own image: π ± π/2."""
    row_of = {int(a): k - 3 for k, a in enumerate(zmatrix.atom)}
    return [row_of[rotor.atoms[1]] for rotor in zmatrix.rotors if rotor.order == 2]


def _widths(zmatrix: ZMatrix, torsions: np.ndarray, planar_atoms: tuple[int, ...]) -> np.ndarray:
    """Supports of the stiff torsions.

    Those of siblings on sp3 centres, and of the far ends of allenes, keep their side: the support ends at 0 and π at
    the latest, for beyond, the torsion would be that of the mirror image.
    """
    z = zmatrix
    rows = np.arange(3, z.n_atoms)
    on_sp3 = z.sibling[rows] & ~np.isin(z.bond[rows], planar_atoms)
    behind_line = np.isin(z.bond[rows], z.atom[z.linear]) & ~z.sibling[rows] & ~z.linear[rows]
    on_sp3[_half_turn_rows(z)] = False
    room = np.minimum(np.abs(torsions), math.pi - np.abs(torsions))
    sided = np.minimum(np.where(on_sp3, SP3_WIDTH, PLANAR_WIDTH), room)
    return np.where((on_sp3 | behind_line) & (room > LEAST_ROOM), sided, PLANAR_WIDTH)


def _effective(coordinates: MolecularCoordinates, potential: ReducedPotential, torsions: Tensor, d: Tensor) -> Tensor:
    """u(x) − ln |det ∂x/∂(torsions, d)|, the reduced potential of the internal coordinates."""
    x, log_det = coordinates.from_deviations(torsions, d)
    return potential(x) - log_det


def _stiff_scale(coordinates: MolecularCoordinates) -> Tensor:
    """Typical widths of the stiff coordinates, in chain order."""
    n, slow = coordinates.zmatrix.n_atoms, set(coordinates.zmatrix.slow)
    names = [
        name
        for k in range(1, n)
        for name, first in (("bond", 1), ("angle", 2), ("torsion", 3))
        if k >= first and not (name == "torsion" and k in slow)
    ]
    return torch.tensor([TYPICAL_WIDTHS[name] for name in names], dtype=torch.float64)


def _recentre(
    coordinates: MolecularCoordinates, conformers: np.ndarray, planar_atoms: tuple[int, ...]
) -> MolecularCoordinates:
    """Move the centres of the charts to the mean of the conformers, rotor windows to the mean of their minima."""
    x = torch.as_tensor(conformers).permute(1, 2, 0)
    internal = coordinates.geometry.internal(x)
    old = torch.as_tensor(coordinates.chart.torsions)[:, None]
    torsions = wrap(old + wrap(internal.torsions - old).mean(1, keepdim=True))
    result = coordinates.with_chart(
        bonds=internal.bonds.mean(1).numpy(),
        angles=internal.angles.mean(1).numpy(),
        torsions=torsions[:, 0].numpy(),
    )
    circles, _, _ = result.from_cartesian(x)
    centres = result.chart.torsions.copy()
    for rotor in result.zmatrix.rotors:
        row = int(np.flatnonzero(result.zmatrix.atom == rotor.atoms[0])[0])
        s = circles[:, result.zmatrix.slow.index(row)]
        centres[row - 3] += float(torch.atan2(s.sin().mean(), s.cos().mean())) / rotor.order
    centres[_half_turn_rows(result.zmatrix)] = math.pi
    return result.with_chart(torsions=centres, widths=_widths(result.zmatrix, centres, planar_atoms))


def _stiff_hessian(
    coordinates: MolecularCoordinates,
    potential: ReducedPotential,
    torsions: Tensor,
    d: Tensor,
    step: float = 1e-4,
) -> Tensor:
    """Hessian ``(n_stiff, n_stiff)`` of the effective potential in d at fixed torsions.

    Central differences of the analytic gradient, all columns in one batch; the error is of order step².
    """
    n = coordinates.n_stiff
    displaced = (d + step * torch.cat([torch.eye(n), -torch.eye(n)], dim=1).to(d)).requires_grad_(True)
    u = _effective(coordinates, potential, torsions.expand(2 * n, -1), displaced).sum()
    (gradient,) = torch.autograd.grad(u, displaced)
    hessian = (gradient[:, :n] - gradient[:, n:]) / (2.0 * step)
    return 0.5 * (hessian + hessian.T)


def _unevenness(covariance: Tensor, cholesky: Tensor) -> Tensor:
    """Squared ln of the variances of one minimum, in units of the whitening L Lᵀ, by coordinate ``(n_stiff,)``.

    The diagonal of (ln W)² with W = L⁻¹ C L⁻ᵀ: zero where the whitening is right.
    """
    half = torch.linalg.solve_triangular(cholesky, covariance, upper=False)
    values, vectors = torch.linalg.eigh(torch.linalg.solve_triangular(cholesky, half.T, upper=False))
    return vectors.square() @ values.log().square()


def _covariance(hessian: Tensor, scale: Tensor) -> Tensor:
    """H⁻¹, for coordinates of typical widths ``scale``.

    In units of the typical widths, directions wider than :data:`WIDEST` are held at that, also where a conformer is no
    minimum.
    """
    if not bool(torch.isfinite(hessian).all()):
        raise InputError("the Hessian of the molecule is not finite. Check the input structure.")
    values, vectors = torch.linalg.eigh(scale[:, None] * hessian * scale)
    covariance = (vectors / values.clamp(min=WIDEST**-2)) @ vectors.T
    return scale[:, None] * covariance * scale
