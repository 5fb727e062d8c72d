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
from boltzgen.coordinates.rotor import Rotor
from boltzgen.coordinates.symmetry import cycle_image
from boltzgen.coordinates.zmatrix import ZMatrix
from boltzgen.errors import InputError, UnsupportedError

ReducedPotential = Callable[[Tensor], Tensor]
"""Positions ``(atoms, 3, batch)`` in nm → u = U/kT, ``(batch,)``; softened where pairs overlap."""

TYPICAL_WIDTHS = {"bond": 0.003, "angle": 0.06, "torsion": 0.15, "slow": 0.6}
"""Rough thermal widths in nm and radians: the scaling of the minimiser and of the Hessian's eigenvalues."""

WIDEST = 4.0
"""Largest standard deviation of a whitened direction, in typical widths; softer ones are held at that."""

SAME_BASIN = 0.7
"""Radians by which a stiff torsion may differ between conformers of one basin; ring puckers are further apart."""

BENT = math.pi - 0.1
"""Centre of the angle of three atoms that are in line in the reference structure."""

STRAIGHT = math.radians(170.0)
"""A reference angle above this at a minimum is refused: the thermal motion passes through the straight angle."""

LEAST_ROOM = 0.5
"""A sibling torsion nearer than this to 0 or π has no side to keep, and is given the support of planar centres."""


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
        If no conformer can be minimised to a finite energy or the Hessian is not finite.
    UnsupportedError
        If atoms are in line at a minimum but not in ``positions``, by which the Z-matrix was built.
    """
    coordinates = unfitted_coordinates(zmatrix, positions, potential, planar_atoms)
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
    _check_angles(coordinates, conformers)
    coordinates = _recentre(coordinates, conformers, planar_atoms)
    torsions, stiff, _ = coordinates.from_cartesian(torch.as_tensor(conformers).permute(1, 2, 0))
    d = coordinates.deviations(stiff)
    hessians = [
        _stiff_hessian(coordinates, potential, torsions[k : k + 1], d[:, k : k + 1]) for k in range(len(minima))
    ]
    cholesky = _inverse_cholesky(torch.stack(hessians).mean(0), _stiff_scale(coordinates))
    fitted = coordinates.with_chart(mean=d.mean(1).numpy(), cholesky=cholesky.numpy())
    return Fitted(fitted, conformers, u)


def unfitted_coordinates(
    zmatrix: ZMatrix, positions: np.ndarray, potential: ReducedPotential, planar_atoms: tuple[int, ...] = ()
) -> MolecularCoordinates:
    """Coordinates centred on one structure ``(atoms, 3)`` nm, not whitened: blocks and rotors are those of fitted ones.

    Takes three energies, and three more for each rotor that the graph has.
    """
    coordinates = _from_structure(zmatrix, positions, planar_atoms)
    rotors = _exact_rotors(coordinates, positions, potential)
    return _from_structure(zmatrix.with_rotors(rotors), positions, planar_atoms)


def _check_angles(coordinates: MolecularCoordinates, conformers: np.ndarray) -> None:
    """Refuse reference atoms that are in line at a minimum, where the torsion behind them is undefined.

    If all atoms are, nothing else can be had, and the third atom's bend gives the direction.
    """
    z = coordinates.zmatrix
    if z.n_atoms > 2 and z.linear[2]:
        return
    bent = np.flatnonzero(~z.linear)
    placed = [(z.atom[k], z.bond[k], z.angle[k]) for k in bent[bent > 2]]
    for a, b, c in placed + [(z.bond[k], z.angle[k], z.torsion[k]) for k in bent[bent > 2]]:
        u, v = conformers[:, a] - conformers[:, b], conformers[:, c] - conformers[:, b]
        angles = np.arctan2(np.linalg.norm(np.cross(u, v), axis=1), (u * v).sum(axis=1))
        if angles.max() > STRAIGHT:
            raise UnsupportedError(
                f"atoms {a + 1}, {b + 1} and {c + 1} are in line at the minimum of the force field but not in the "
                "input. Give a structure in which they are."
            )


def _exact_rotors(
    coordinates: MolecularCoordinates, positions: np.ndarray, potential: ReducedPotential, tolerance: float = 1e-6
) -> tuple[Rotor, ...]:
    """The rotors that are exact by the force field and the stereo, and not only by the graph.

    Images of a distorted structure must have equal energies; the tolerance, relative to the energy, is float64
    rounding. Those of the structure itself must lie in the support of the stiff torsions.
    """
    rng = np.random.default_rng(0)
    distorted = positions + 0.005 * rng.standard_normal((2, *positions.shape))
    x = torch.as_tensor(np.concatenate([positions[None], distorted])).permute(1, 2, 0).contiguous()
    shift = torch.ones(x.shape[-1], dtype=torch.int64)
    with torch.no_grad():
        u = potential(x)
        bound = tolerance * u.abs().clamp(min=1.0)
        images = [(rotor, cycle_image(x, rotor, shift)) for rotor in coordinates.zmatrix.rotors]
        return tuple(
            rotor
            for rotor, image in images
            if bool(((potential(image) - u).abs() < bound).all()) and coordinates.is_in_support(image[..., :1])
        )


def _from_structure(zmatrix: ZMatrix, positions: np.ndarray, planar_atoms: tuple[int, ...]) -> MolecularCoordinates:
    """Coordinates centred on one structure, not yet whitened."""
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


def _minimise(
    coordinates: MolecularCoordinates, potential: ReducedPotential, torsions: np.ndarray
) -> tuple[float, np.ndarray]:
    """Minimise from given slow torsions and zero deviations; returns u and positions ``(atoms, 3)``."""
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
        return potential(x).item(), x[..., 0].numpy()


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


def _lowest_distinct(
    coordinates: MolecularCoordinates, minima: list[tuple[float, np.ndarray]], count: int, apart: float = 0.3
) -> list[tuple[float, np.ndarray]]:
    """The lowest minima, each differing from all lower ones by more than ``apart`` radians in some slow torsion.

    Only those in the basin of the lowest: whose stiff torsions, ring puckers above all, are nearly the same.
    """
    z = coordinates.zmatrix
    rigid = [k - 3 for k in range(3, z.n_atoms) if k not in set(z.slow)]
    chosen: list[tuple[float, np.ndarray]] = []
    seen: list[Tensor] = []
    basin: Tensor | None = None
    for u, x in sorted(minima, key=lambda m: m[0]):
        canonical = coordinates.canonical_images(torch.as_tensor(x)[..., None])
        torsions = coordinates.from_cartesian(canonical)[0][0]
        stiff = coordinates.geometry.internal(canonical).torsions[rigid, 0]
        basin = stiff if basin is None else basin
        same_basin = bool((wrap(stiff - basin).abs() < SAME_BASIN).all())
        distinct = all(bool((wrap(torsions - other).abs() > apart).any()) for other in seen)
        if len(chosen) < count and same_basin and distinct:
            chosen.append((u, x))
            seen.append(torsions)
    return chosen


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


def _inverse_cholesky(hessian: Tensor, scale: Tensor) -> Tensor:
    """Lower L with L Lᵀ = H⁻¹, for coordinates of typical widths ``scale``.

    In units of the typical widths, directions wider than :data:`WIDEST` are held at that, also where the average over
    conformers is no minimum.
    """
    if not bool(torch.isfinite(hessian).all()):
        raise InputError("the Hessian of the molecule is not finite. Check the input structure.")
    values, vectors = torch.linalg.eigh(scale[:, None] * hessian * scale)
    covariance = (vectors / values.clamp(min=WIDEST**-2)) @ vectors.T
    return torch.linalg.cholesky(scale[:, None] * covariance * scale)
