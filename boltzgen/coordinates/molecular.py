"""The bijection between latent blocks (slow torsions on circles, whitened stiff coordinates) and positions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from boltzgen.coordinates import charts
from boltzgen.coordinates.internal import Internal, InternalToCartesian, dihedral
from boltzgen.coordinates.symmetry import cycle_image
from boltzgen.coordinates.zmatrix import ZMatrix

SP3_WIDTH = 1.05
"""Half-width in radians of the support of sibling torsions on sp3 centres, about π/3; less where 0 or π is nearer."""

PLANAR_WIDTH = math.pi / 2
"""Half-width of the support of stiff torsions about planar centres: cis and trans stay apart."""


@dataclass(frozen=True)
class Chart:
    """Centres and supports of the stiff coordinates, and the affine map that whitens them.

    ``bonds (n−1,)`` nm, ``angles (n−2,)``, ``torsions (n−3,)`` radians: the centres μ, by Z-matrix row; for rows of
    rotors the centre of the window of τ̄; unused for other slow rows. ``widths (n−3,)`` radians. ``mean (n_stiff,)`` and
    ``cholesky (n_stiff, n_stiff)`` of the deviations d at the reference temperature, d = mean + cholesky · z.
    ``unevenness (n_stiff,)``: mean squared ln of the variance of each whitened coordinate over the minima behind the
    whitening; empty if not known.
    """

    bonds: np.ndarray
    angles: np.ndarray
    torsions: np.ndarray
    widths: np.ndarray
    mean: np.ndarray
    cholesky: np.ndarray
    unevenness: np.ndarray = field(default_factory=lambda: np.zeros(0))


class MolecularCoordinates:
    """Latent blocks ↔ Cartesian positions.

    Blocks: ``torsions (batch, n_torsions)`` on circles [−π, π), slow torsions in chain order and rotors last (as
    n(τ̄ − c)); ``stiff (batch, n_stiff)``, whitened, in chain order. Positions: ``(atoms, 3, batch)`` in nm.
    """

    def __init__(
        self,
        zmatrix: ZMatrix,
        chart: Chart,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.zmatrix, self.chart, self.dtype, self.device = zmatrix, chart, dtype, device
        self.geometry = InternalToCartesian(zmatrix, device)
        n = zmatrix.n_atoms
        self._in_line = n > 2 and bool(zmatrix.linear[2])
        slow = set(zmatrix.slow)
        stiff_rows = [k - 3 for k in range(3, n) if k not in slow]
        self._stiff_rows = torch.as_tensor(stiff_rows, dtype=torch.int64, device=device)
        self._slow_rows = torch.as_tensor([k - 3 for k in zmatrix.slow], dtype=torch.int64, device=device)
        # d is kept in chain order (bond, angle, torsion of each atom in turn), the charts in blocks by kind.
        keys = [(k, 0) for k in range(1, n)] + [(k, 1) for k in range(2, n)] + [(k + 3, 2) for k in stiff_rows]
        chain = sorted(range(len(keys)), key=keys.__getitem__)
        self._to_chain = torch.as_tensor(chain, device=device)
        self._to_blocks = torch.argsort(self._to_chain)
        self._sizes = [n - 1, n - 2, len(stiff_rows)]
        row_of = {int(a): k for k, a in enumerate(zmatrix.atom)}
        self._rotors = [tuple(row_of[a] - 3 for a in rotor.atoms) for rotor in zmatrix.rotors]
        # Place among the slow torsions → row of the leader, and (place among stiff torsions, ideal offset) of siblings.
        self._rotor_places = {
            zmatrix.slow.index(rows[0] + 3): (
                rows[0],
                [(stiff_rows.index(k), ideal) for k, ideal in zip(rows[1:], self._ideal_offsets(rows), strict=True)],
            )
            for rows in self._rotors
        }
        self.n_torsions, self.n_stiff = len(zmatrix.slow), len(keys)
        by_kind = np.asarray([*stiff_rows, *(k - 3 for k in zmatrix.slow)], dtype=np.int64)
        self._row_order = torch.as_tensor(np.argsort(by_kind), device=device)
        column = {name: torch.as_tensor(value, dtype=dtype, device=device) for name, value in vars(chart).items()}
        self._bonds, self._angles, self._torsions, self._widths = (
            column[name][:, None] for name in ("bonds", "angles", "torsions", "widths")
        )
        self._mean, self._cholesky = column["mean"][:, None], column["cholesky"]
        self._log_scale = float(np.log(np.abs(np.diag(chart.cholesky))).sum())

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> MolecularCoordinates:
        """The same coordinates in another precision, on another device."""
        return MolecularCoordinates(self.zmatrix, self.chart, dtype, device)

    def with_chart(self, **changes: np.ndarray) -> MolecularCoordinates:
        """The same Z-matrix with parts of the chart replaced."""
        return MolecularCoordinates(self.zmatrix, replace(self.chart, **changes), self.dtype, self.device)

    def to_cartesian(self, torsions: Tensor, stiff: Tensor) -> tuple[Tensor, Tensor]:
        """Positions ``(atoms, 3, batch)`` and ln |det ∂x/∂(torsions, stiff)| ``(batch,)``, without rigid motion."""
        x, log_det = self.from_deviations(torsions, self.deviations(stiff))
        return x, log_det + self._log_scale

    def from_deviations(self, torsions: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Like :meth:`to_cartesian` from unwhitened deviations d ``(n_stiff, batch)`` in chain order."""
        d_bond, d_angle, d_torsion = d.index_select(0, self._to_blocks).split(self._sizes)
        bonds, log_bond = charts.bond(d_bond, self._bonds)
        angles, log_angle = self._to_angles(d_angle)
        rows = self._stiff_rows
        stiff, log_torsion = charts.torsion(d_torsion, self._torsions[rows], self._widths[rows])
        internal = Internal(bonds, angles, self._merge_torsions(torsions.T, stiff))
        x, log_volume = self.geometry.place(internal)
        return x, log_bond.sum(0) + log_angle.sum(0) + log_torsion.sum(0) + log_volume

    def from_cartesian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Torsions, stiff and ln |det ∂x/∂(torsions, stiff)| of positions in any image.

        Stiff coordinates are NaN outside the support.
        """
        x = self.canonical_images(x)
        internal = self.geometry.internal(x)
        slow = internal.torsions.index_select(0, self._slow_rows).clone()
        for place, rows in zip(self._rotor_places, self._rotors, strict=True):
            slow[place] = len(rows) * self._rotor_angle(internal.torsions[list(rows)], rows)
        stiff_rows = self._stiff_rows
        d_block = torch.cat(
            [
                charts.bond_inverse(internal.bonds, self._bonds),
                self._from_angles(internal.angles),
                charts.torsion_inverse(
                    internal.torsions[stiff_rows], self._torsions[stiff_rows], self._widths[stiff_rows]
                ),
            ]
        )
        torsions, d = charts.wrap(slow).T, d_block.index_select(0, self._to_chain)
        stiff = torch.linalg.solve_triangular(self._cholesky, d - self._mean, upper=False).T
        _, log_det = self.to_cartesian(torsions, stiff)
        return torsions, stiff, log_det

    def deviations(self, stiff: Tensor) -> Tensor:
        """Unwhitened deviations ``(n_stiff, batch)`` of whitened ``(batch, n_stiff)`` at the reference temperature."""
        return self._mean + self._cholesky @ stiff.T

    def canonical_images(self, x: Tensor) -> Tensor:
        """Relabel equivalent branches so that every rotor lies in its window, those that carry others first."""
        z = self.zmatrix
        for rotor, rows in zip(z.rotors, self._rotors, strict=True):
            k = np.asarray(rows) + 3
            torsions = dihedral(x[z.atom[k]], x[z.bond[k]], x[z.angle[k]], x[z.torsion[k]])
            shift = -torch.round(self._rotor_angle(torsions, rows) * rotor.order / (2.0 * math.pi))
            # A shift by one moves τ̄ by +2π/n or −2π/n, as the branches are numbered one way round or the other.
            sense = float(np.sign(self.chart.torsions[rows[1]]))
            x = cycle_image(x, rotor, (shift * sense).to(torch.int64) % rotor.order)
        return x

    def is_in_support(self, x: Tensor) -> Tensor:
        """Whether the stiff torsions of positions, as their atoms are labelled, lie in their supports, ``(batch,)``."""
        return (self.support_excess(x) < 1.0).all(dim=0)

    def support_excess(self, x: Tensor) -> Tensor:
        """|φ − μ|/W of each stiff torsion as its atoms are labelled, ``(rows, batch)``: below one in its support."""
        rows = self._stiff_rows
        return charts.wrap(self.geometry.internal(x).torsions[rows] - self._torsions[rows]).abs() / self._widths[rows]

    def stretches(self, x: Tensor) -> Tensor:
        """r/μ of each bond of the Z-matrix as its atoms are labelled, ``(atoms − 1, batch)``."""
        return self.geometry.internal(x).bonds / self._bonds

    @property
    def stiff_torsions(self) -> list[tuple[int, int, int, int]]:
        """The atoms of each stiff torsion, in the order of :meth:`support_excess`."""
        z, rows = self.zmatrix, self._stiff_rows.cpu().numpy() + 3
        columns = (column[rows].tolist() for column in (z.atom, z.bond, z.angle, z.torsion))
        return list(zip(*columns, strict=True))

    def reaches(self, x: Tensor) -> Tensor:
        """Whether positions, in any equivalent labelling, lie in the support, ``(batch,)``."""
        return self.is_in_support(self.canonical_images(x))

    def _to_angles(self, d: Tensor) -> tuple[Tensor, Tensor]:
        if not self._in_line:
            return charts.angle(d, self._angles)
        parts = charts.straight_angle(d[:1], self._angles[:1]), charts.angle(d[1:], self._angles[1:])
        angles, log_slopes = (torch.cat(values) for values in zip(*parts, strict=True))
        return angles, log_slopes

    def _from_angles(self, angles: Tensor) -> Tensor:
        if not self._in_line:
            return charts.angle_inverse(angles, self._angles)
        first = charts.straight_angle_inverse(angles[:1], self._angles[:1])
        return torch.cat([first, charts.angle_inverse(angles[1:], self._angles[1:])])

    def _rotor_angle(self, torsions: Tensor, rows: tuple[int, ...]) -> Tensor:
        """τ̄ − c in [−π, π) from the torsions ``(n, batch)`` of a rotor's rows."""
        offsets = zip(torsions[1:], self._ideal_offsets(rows), strict=True)
        mean = sum(charts.wrap(torsion - ideal) for torsion, ideal in offsets) / len(rows)
        return charts.wrap(torsions[0] + mean - self._torsions[rows[0]])

    def _ideal_offsets(self, rows: tuple[int, ...]) -> list[float]:
        """The offsets ±2π/n of the siblings in an ideal rotor."""
        return [float(np.copysign(2.0 * math.pi / len(rows), self.chart.torsions[k])) for k in rows[1:]]

    def _merge_torsions(self, circles: Tensor, stiff: Tensor) -> Tensor:
        """All torsions ``(n−3, batch)`` by row from circles ``(n_torsions, batch)`` and stiff torsions."""
        slow = list(circles)
        for place, (lead, siblings) in self._rotor_places.items():
            offset = sum(stiff[k] - ideal for k, ideal in siblings)
            slow[place] = self._torsions[lead] + (slow[place] - offset) / (1 + len(siblings))
        return torch.cat([stiff, *(row[None] for row in slow)]).index_select(0, self._row_order)
