"""Internal coordinates (bonds, angles, torsions) ↔ Cartesian positions, with log-determinants.

Layout: ``(rows, batch)`` for internal coordinates and ``(atoms, 3, batch)`` for positions, batch last.

**Linear groups.** For an atom a in line with its references c–b the polar angle at b would be π, where the torsion
is undefined and ln sin θ diverges. Such a row is polar about another pole: a *guide* at 0.1 nm from b along the unit
vector m ⊥ (c − b) towards d. The angle is the one from m, the torsion the one about m from c; in line they are π/2 and
π, and their deviations are two bends, Cartesian to second order, for every bend of less than a right angle. The volume
element keeps its form, r² sin θ dr dθ dφ, now with sin θ ≈ 1. A guide is placed like an atom and then left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from boltzgen.coordinates.zmatrix import ZMatrix
from boltzgen.errors import InputError
from boltzgen.native import Kernels, Placement, kernels

GUIDE_LENGTH = 0.1
"""Distance in nm of a guide from its atom; any will do."""


@dataclass(frozen=True)
class Internal:
    """Bonds ``(n−1, batch)`` nm, angles ``(n−2, batch)`` and torsions ``(n−3, batch)`` radians, by Z-matrix row."""

    bonds: Tensor
    angles: Tensor
    torsions: Tensor


def log_volume(internal: Internal) -> Tensor:
    """ln of the volume element, Σ 2 ln r + Σ ln sin θ, without the factor 8π²V of rigid motion; shape ``(batch,)``.

    Convention: dx = r₁² r₂² sin θ₂ … dr dθ dφ, every bond and angle included.
    """
    return 2.0 * internal.bonds.log().sum(0) + internal.angles.sin().log().sum(0)


class InternalToCartesian:
    """Places atoms one level of the Z-matrix at a time (NeRF), and reads internal coordinates back.

    The frame: first atom at the origin, second on the z axis, third in the xz plane. Collinear reference atoms make
    the torsion undefined; angles strictly between 0 and π keep away from that. In a molecule all of whose atoms are
    in line at rest the third atom's angle is polar all the same: it bends at any temperature above zero, and sin θ is
    the density of that bend.
    """

    def __init__(self, zmatrix: ZMatrix, device: torch.device | str = "cpu") -> None:
        self.zmatrix = zmatrix
        table = with_guides(zmatrix)
        self._rows = table.astype(np.int32)
        self._n_guides = len(table) - zmatrix.n_atoms
        guides = np.flatnonzero(table[:, 0] >= zmatrix.n_atoms)
        # Where each row of the extended Z-matrix finds its bond: among those given, or behind them that of its guide.
        column = np.arange(len(table)) - np.searchsorted(guides, np.arange(len(table)))
        column[guides] = zmatrix.n_atoms + np.arange(len(guides))
        self._columns = [torch.as_tensor(column[k:] - k, device=device) for k in (1, 2, 3)]
        self._guided = np.flatnonzero(zmatrix.linear[3:]) + 3
        levels = _levels(table)
        self._levels = [torch.as_tensor(level, device=device) for level in levels]
        placed = [int(a) for a in table[:3, 0]] + [int(table[k, 0]) for level in levels for k in level]
        slot = np.empty(len(table), dtype=np.int64)
        slot[placed] = np.arange(len(table))
        self._slots = [
            torch.as_tensor(np.concatenate([slot[table[level, j]] for j in (1, 2, 3)]), device=device)
            for level in levels
        ]
        self._order = torch.as_tensor(slot[: zmatrix.n_atoms], device=device)
        self._third_on_root = zmatrix.n_atoms > 2 and zmatrix.bond[2] == zmatrix.atom[0]

    def positions(self, internal: Internal) -> Tensor:
        """Positions ``(atoms, 3, batch)`` in nm."""
        internal = self._with_guides(internal)
        r, theta, phi = internal.bonds, internal.angles, internal.torsions
        placed = self._frame(r, theta)
        for rows, slots in zip(self._levels, self._slots, strict=True):
            b, c, d = placed.index_select(0, slots).chunk(3)
            new = _place(b, c, d, r[rows - 1], theta[rows - 2], phi[rows - 3])
            placed = torch.cat([placed, new])
        return placed.index_select(0, self._order)

    def place(self, internal: Internal) -> tuple[Tensor, Tensor]:
        """Positions ``(atoms, 3, batch)`` in nm and :func:`log_volume` ``(batch,)``, differentiable once.

        By the compiled kernels on a CPU, if there are any; else by :meth:`positions`, the readable definition. Torsions
        of more than 1e5 radians lose digits.

        Raises
        ------
        InputError
            If a part of ``internal`` has another number of rows, or its parts differ in type.
        """
        internal = self._checked(internal)
        n = self.zmatrix.n_atoms
        compiled = kernels() if internal.bonds.device.type == "cpu" and n > 3 else None
        if compiled is None:
            return self.positions(internal), log_volume(internal)
        full = self._with_guides(internal)
        x, volume = _Place.apply(full.bonds, full.angles, full.torsions, self._rows, compiled)
        return x[:n], volume - self._n_guides * 2.0 * math.log(GUIDE_LENGTH)

    def _checked(self, internal: Internal) -> Internal:
        """All parts with one batch."""
        parts = internal.bonds, internal.angles, internal.torsions
        rows = [max(0, self.zmatrix.n_atoms - k) for k in (1, 2, 3)]
        types = {part.dtype for part in parts}
        if [part.shape[0] for part in parts] != rows or len(types) > 1 or not types <= {torch.float32, torch.float64}:
            raise InputError(
                f"internal coordinates have {[tuple(part.shape) for part in parts]} rows and batch, of {types}. "
                f"Give {rows} rows, all in float32 or all in float64."
            )
        batch = torch.broadcast_shapes(*(part.shape[1:] for part in parts))
        return Internal(*(part.expand(-1, *batch) for part in parts))

    def internal(self, x: Tensor) -> Internal:
        """Internal coordinates of positions ``(atoms, 3, batch)``; torsions in (−π, π]."""
        z = self.zmatrix
        bonds = (x[z.atom[1:]] - x[z.bond[1:]]).norm(dim=1)
        towards, about = x[z.angle[2:]], x[z.torsion[3:]]
        if self._n_guides:
            k = self._guided
            b, c = x[z.bond[k]], x[z.angle[k]]
            towards, about = towards.clone(), about.clone()
            about[k - 3] = c
            towards[k - 2] = b + GUIDE_LENGTH * _across(b, c, x[z.torsion[k]])[1]
        a, b = x[z.atom[2:]] - x[z.bond[2:]], towards - x[z.bond[2:]]
        angles = torch.atan2(torch.linalg.cross(a, b, dim=1).norm(dim=1), (a * b).sum(1))
        torsions = dihedral(x[z.atom[3:]], x[z.bond[3:]], towards[1:], about)
        return Internal(bonds, angles, torsions)

    def _with_guides(self, internal: Internal) -> Internal:
        """The internal coordinates of atoms and guides, by row of the extended Z-matrix."""
        if not self._n_guides:
            return internal
        rows = (internal.bonds, internal.angles, internal.torsions)
        fixed = (GUIDE_LENGTH, 0.5 * math.pi, 0.0)
        return Internal(
            *(
                torch.cat([t, t.new_full((self._n_guides, t.shape[1]), value)]).index_select(0, columns)
                for t, value, columns in zip(rows, fixed, self._columns, strict=True)
            )
        )

    def _frame(self, r: Tensor, theta: Tensor) -> Tensor:
        zero = torch.zeros_like(r[0])
        placed = [torch.stack([zero, zero, zero]), torch.stack([zero, zero, r[0]])]
        if self.zmatrix.n_atoms > 2:
            along = r[1] * theta[0].cos()
            placed.append(torch.stack([r[1] * theta[0].sin(), zero, along if self._third_on_root else r[0] - along]))
        return torch.stack(placed)


def with_guides(zmatrix: ZMatrix) -> np.ndarray:
    """Rows (atom, bond, angle, torsion) in which each linear row is preceded by that of its guide, n, n + 1, …"""
    rows: list[tuple[int, ...]] = []
    n_guides = 0
    for k, (a, b, c, d) in enumerate(zip(zmatrix.atom, zmatrix.bond, zmatrix.angle, zmatrix.torsion, strict=True)):
        if zmatrix.linear[k] and k > 2:
            guide = zmatrix.n_atoms + n_guides
            n_guides += 1
            rows += [(guide, b, c, d), (a, b, guide, c)]
        else:
            rows.append((a, b, c, d))
    return np.asarray(rows, dtype=np.int64)


def _levels(table: np.ndarray) -> list[np.ndarray]:
    """Rows (from 3 on) in groups that can be placed at once, each after all its references."""
    depth = {int(a): 0 for a in table[:3, 0]}
    groups: dict[int, list[int]] = {}
    for k in range(3, len(table)):
        level = 1 + max(depth[int(reference)] for reference in table[k, 1:])
        depth[int(table[k, 0])] = level
        groups.setdefault(level, []).append(k)
    return [np.asarray(groups[level]) for level in sorted(groups)]


class _Place(torch.autograd.Function):
    """The compiled placement with its analytic adjoint."""

    @staticmethod
    def forward(
        ctx: Any, bonds: Tensor, angles: Tensor, torsions: Tensor, rows: np.ndarray, compiled: Kernels
    ) -> tuple[Tensor, Tensor]:
        inputs = bonds.contiguous(), angles.contiguous(), torsions.contiguous()
        ctx.save_for_backward(*inputs)
        ctx.rows, ctx.compiled = rows, compiled
        batch = bonds.shape[-1]
        x, volume = bonds.new_empty(len(rows), 3, batch), bonds.new_empty(batch)
        _run_placement(compiled, rows, inputs, positions=x, log_volume=volume)
        return x, volume

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_x: Tensor, g_volume: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        adjoints = tuple(torch.empty_like(t) for t in inputs)
        bonds, angles, torsions = adjoints
        _run_placement(
            ctx.compiled,
            ctx.rows,
            inputs,
            positions_adjoint=g_x.contiguous(),
            log_volume_adjoint=g_volume.contiguous(),
            bonds_adjoint=bonds,
            angles_adjoint=angles,
            torsions_adjoint=torsions,
        )
        return *adjoints, None, None


def _run_placement(compiled: Kernels, rows: np.ndarray, inputs: tuple[Tensor, ...], **arrays: Tensor) -> None:
    bonds, angles, torsions = inputs
    named = {"bonds": bonds, "angles": angles, "torsions": torsions, **arrays}
    if bonds.shape[-1] == 0:
        return
    job = Placement(
        n_atoms=len(rows),
        rows=rows.ctypes.data,
        batch=bonds.shape[-1],
        **{name: array.data_ptr() for name, array in named.items()},
    )
    compiled.run("place_float32" if bonds.dtype == torch.float32 else "place_float64", job, torch.get_num_threads())


def _place(b: Tensor, c: Tensor, d: Tensor, r: Tensor, theta: Tensor, phi: Tensor) -> Tensor:
    """Positions ``(k, 3, batch)`` at distance r from b, angle θ to c, torsion φ to d."""
    u, m = _across(b, c, d)
    k = torch.linalg.cross(m, u, dim=1)
    sine = r * theta.sin()
    along, across, up = r * theta.cos(), sine * phi.cos(), sine * phi.sin()
    return b + along[:, None] * u + across[:, None] * m + up[:, None] * k


def _across(b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors u from b to c and m ⊥ u towards d."""
    u = c - b
    u = u * u.square().sum(1, keepdim=True).rsqrt()
    v = d - c
    m = v - (v * u).sum(1, keepdim=True) * u
    return u, m * m.square().sum(1, keepdim=True).rsqrt()


def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """IUPAC torsion a–b–c–d in (−π, π]; inputs ``(k, 3, batch)``, result ``(k, batch)``."""
    b1, b2, b3 = b - a, c - b, d - c
    n1, n2 = torch.linalg.cross(b1, b2, dim=1), torch.linalg.cross(b2, b3, dim=1)
    return torch.atan2((b1 * n2).sum(1) * b2.norm(dim=1), (n1 * n2).sum(1))
