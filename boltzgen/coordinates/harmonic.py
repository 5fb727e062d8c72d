"""Whitening of the stiff coordinates by the Hessian of the reduced potential, averaged over conformers.

At fixed slow torsions the stiff coordinates are nearly Gaussian around a minimum; the average Hessian of several
conformers describes all of them far better than that of any one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from boltzgen.coordinates.charts import wrap
from boltzgen.coordinates.internal import InternalToCartesian
from boltzgen.coordinates.molecular import PLANAR_WIDTH, SP3_WIDTH, Chart, MolecularCoordinates
from boltzgen.coordinates.zmatrix import ROTOR_ORDER, ZMatrix
from boltzgen.errors import InputError

ReducedPotential = Callable[[Tensor], Tensor]
"""Positions ``(atoms, 3, batch)`` in nm → u = U/kT, ``(batch,)``; softened where pairs overlap."""

TYPICAL_WIDTHS = {"bond": 0.003, "angle": 0.06, "torsion": 0.15, "slow": 0.6}
"""Rough thermal widths in nm and radians: the scaling of the minimiser, nothing else."""


@dataclass(frozen=True)
class Fitted:
    """Coordinates fitted to a molecule and the minimised conformers ``(k, atoms, 3)`` nm, lowest u first."""

    coordinates: MolecularCoordinates
    conformers: np.ndarray
    reduced_potentials: np.ndarray


def fit_coordinates(
    zmatrix: ZMatrix,
    positions: np.ndarray,
    potential: ReducedPotential,
    planar_atoms: tuple[int, ...] = (),
    *,
    n_conformers: int = 6,
    seed: int = 0,
) -> Fitted:
    """Fit centres and whitening to a molecule.

    The stereo (signs of sibling torsions, cis or trans of stiff torsions) is that of ``positions (atoms, 3)`` in nm.
    Conformers are minimised from the input and from random slow torsions; the lowest ``n_conformers`` are averaged.

    Raises
    ------
    InputError
        If no conformer can be minimised to a finite energy or the Hessian is not positive.
    """
    coordinates = _from_structure(zmatrix, positions, planar_atoms)
    rng = np.random.default_rng(seed)
    n_starts = 2 * n_conformers if coordinates.n_torsions else 1
    start = coordinates.from_cartesian(torch.as_tensor(positions)[..., None])[0].numpy()[0]
    angles = rng.uniform(-math.pi, math.pi, (n_starts, coordinates.n_torsions))
    angles[0] = start
    minima = [_minimise(coordinates, potential, row) for row in angles]
    minima = _lowest_distinct(coordinates, [m for m in minima if math.isfinite(m[0])], n_conformers)
    if not minima:
        raise InputError("no conformer of the molecule minimises to a finite energy. Check the input structure.")
    u, conformers = np.asarray([m[0] for m in minima]), np.stack([m[1] for m in minima])
    coordinates = _recentre(coordinates, conformers)
    torsions, stiff, _ = coordinates.from_cartesian(torch.as_tensor(conformers).permute(1, 2, 0))
    d = coordinates.deviations(stiff)
    hessians = [
        _stiff_hessian(coordinates, potential, torsions[k : k + 1], d[:, k : k + 1]) for k in range(len(minima))
    ]
    cholesky = _inverse_cholesky(torch.stack(hessians).mean(0))
    fitted = coordinates.with_chart(mean=d.mean(1).numpy(), cholesky=cholesky.numpy())
    return Fitted(fitted, conformers, u)


def _from_structure(zmatrix: ZMatrix, positions: np.ndarray, planar_atoms: tuple[int, ...]) -> MolecularCoordinates:
    """Coordinates centred on one structure, not yet whitened."""
    internal = InternalToCartesian(zmatrix).internal(torch.as_tensor(positions, dtype=torch.float64)[..., None])
    torsions = internal.torsions[:, 0].numpy().copy()
    planar = set(planar_atoms)
    sp3 = [bool(zmatrix.sibling[k]) and int(zmatrix.bond[k]) not in planar for k in range(3, zmatrix.n_atoms)]
    widths = np.where(sp3, SP3_WIDTH, PLANAR_WIDTH)
    n_stiff = 3 * zmatrix.n_atoms - 6 - len(zmatrix.slow)
    chart = Chart(
        bonds=internal.bonds[:, 0].numpy(),
        angles=internal.angles[:, 0].numpy(),
        torsions=torsions,
        widths=widths,
        mean=np.zeros(n_stiff),
        cholesky=np.eye(n_stiff),
    )
    return MolecularCoordinates(zmatrix, chart)


def _effective(coordinates: MolecularCoordinates, potential: ReducedPotential, torsions: Tensor, d: Tensor) -> Tensor:
    """u(x) − ln |det ∂x/∂(torsions, d)|, the reduced potential of the internal coordinates."""
    x, log_det = coordinates.from_deviations(torsions, d)
    return potential(x) - log_det


def _minimise(
    coordinates: MolecularCoordinates, potential: ReducedPotential, torsions: np.ndarray
) -> tuple[float, np.ndarray]:
    """Minimise from given slow torsions and zero deviations; returns u and positions ``(atoms, 3)``."""
    n, n_t = coordinates.zmatrix.n_atoms, coordinates.n_torsions
    kinds = [("bond", k) for k in range(1, n)] + [("angle", k) for k in range(2, n)]
    slow = set(coordinates.zmatrix.slow)
    kinds += [("torsion", k) for k in range(3, n) if k not in slow]
    names = [kind for kind, _ in sorted(kinds, key=lambda item: (item[1], ["bond", "angle", "torsion"].index(item[0])))]
    scale = torch.tensor([TYPICAL_WIDTHS["slow"]] * n_t + [TYPICAL_WIDTHS[name] for name in names], dtype=torch.float64)

    def split(y: Tensor) -> tuple[Tensor, Tensor]:
        v = y * scale
        return v[None, :n_t], v[n_t:, None]

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        y = torch.tensor(values, requires_grad=True)
        u = _effective(coordinates, potential, *split(y)).sum()
        (gradient,) = torch.autograd.grad(u, y)
        return u.item(), gradient.numpy()

    start = np.concatenate([torsions / scale[:n_t].numpy(), np.zeros(len(names))])
    result = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 400, "maxcor": 20})
    with torch.no_grad():
        x, _ = coordinates.from_deviations(*split(torch.as_tensor(result.x)))
        return potential(x).item(), x[..., 0].numpy()


def _lowest_distinct(
    coordinates: MolecularCoordinates, minima: list[tuple[float, np.ndarray]], count: int, apart: float = 0.3
) -> list[tuple[float, np.ndarray]]:
    """The lowest minima, each differing from all lower ones by more than ``apart`` radians in some slow torsion."""
    chosen: list[tuple[float, np.ndarray]] = []
    seen: list[Tensor] = []
    for u, x in sorted(minima, key=lambda m: m[0]):
        torsions = coordinates.from_cartesian(torch.as_tensor(x)[..., None])[0][0]
        if len(chosen) < count and all(bool((wrap(torsions - other).abs() > apart).any()) for other in seen):
            chosen.append((u, x))
            seen.append(torsions)
    return chosen


def _recentre(coordinates: MolecularCoordinates, conformers: np.ndarray) -> MolecularCoordinates:
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
        centres[row - 3] += float(torch.atan2(s.sin().mean(), s.cos().mean())) / ROTOR_ORDER
    # On sp3 centres the support ends at 0 and π at the latest: beyond, the offset would be that of the mirror image.
    sp3 = result.chart.widths == SP3_WIDTH
    room = np.minimum(np.abs(centres), math.pi - np.abs(centres))
    widths = np.where(sp3, np.minimum(SP3_WIDTH, room), result.chart.widths)
    return result.with_chart(torsions=centres, widths=widths)


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


def _inverse_cholesky(hessian: Tensor) -> Tensor:
    """Lower L with L Lᵀ = H⁻¹; directions softer than 1e-3 of the median curvature are held at that."""
    if not bool(torch.isfinite(hessian).all()):
        raise InputError("the Hessian of the molecule is not finite. Check the input structure.")
    values, vectors = torch.linalg.eigh(hessian)
    floor = 1e-3 * values.median().clamp(min=1e-12)
    return torch.linalg.cholesky((vectors / values.clamp(min=floor)) @ vectors.T)
