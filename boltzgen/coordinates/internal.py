"""Internal coordinates (bonds, angles, torsions) ↔ Cartesian positions, with log-determinants.

Layout: ``(rows, batch)`` for internal coordinates and ``(atoms, 3, batch)`` for positions, batch last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from boltzgen.coordinates.zmatrix import ZMatrix
from boltzgen.errors import InputError
from boltzgen.native import Kernels, Placement, kernels


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
    the torsion undefined; angles strictly between 0 and π keep away from that.
    """

    def __init__(self, zmatrix: ZMatrix, device: torch.device | str = "cpu") -> None:
        self.zmatrix = zmatrix
        levels = zmatrix.levels()
        self._levels = [torch.as_tensor(level, device=device) for level in levels]
        placed = [int(a) for a in zmatrix.atom[:3]] + [int(zmatrix.atom[k]) for level in levels for k in level]
        slot = np.empty(zmatrix.n_atoms, dtype=np.int64)
        slot[placed] = np.arange(zmatrix.n_atoms)
        references = (zmatrix.bond, zmatrix.angle, zmatrix.torsion)
        self._slots = [
            torch.as_tensor(np.concatenate([slot[ref[level]] for ref in references]), device=device) for level in levels
        ]
        self._order = torch.as_tensor(slot, device=device)
        self._third_on_root = zmatrix.bond[2] == zmatrix.atom[0]
        self._rows = np.stack([zmatrix.atom, *references], axis=1).astype(np.int32)

    def positions(self, internal: Internal) -> Tensor:
        """Positions ``(atoms, 3, batch)`` in nm."""
        r, theta, phi = internal.bonds, internal.angles, internal.torsions
        placed = self._frame(r[0], r[1], theta[0])
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
        compiled = kernels() if internal.bonds.device.type == "cpu" and self.zmatrix.n_atoms > 3 else None
        if compiled is None:
            return self.positions(internal), log_volume(internal)
        return _Place.apply(internal.bonds, internal.angles, internal.torsions, self._rows, compiled)

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
        a, b = x[z.atom[2:]] - x[z.bond[2:]], x[z.angle[2:]] - x[z.bond[2:]]
        angles = torch.atan2(torch.linalg.cross(a, b, dim=1).norm(dim=1), (a * b).sum(1))
        torsions = dihedral(x[z.atom[3:]], x[z.bond[3:]], x[z.angle[3:]], x[z.torsion[3:]])
        return Internal(bonds, angles, torsions)

    def _frame(self, r1: Tensor, r2: Tensor, theta: Tensor) -> Tensor:
        zero = torch.zeros_like(r1)
        second = torch.stack([zero, zero, r1])
        along = r2 * theta.cos()
        third = torch.stack([r2 * theta.sin(), zero, along if self._third_on_root else r1 - along])
        return torch.stack([torch.zeros_like(second), second, third])


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
    u = c - b
    u = u * u.square().sum(1, keepdim=True).rsqrt()
    v = d - c
    m = v - (v * u).sum(1, keepdim=True) * u
    m = m * m.square().sum(1, keepdim=True).rsqrt()
    k = torch.linalg.cross(m, u, dim=1)
    sine = r * theta.sin()
    along, across, up = r * theta.cos(), sine * phi.cos(), sine * phi.sin()
    return b + along[:, None] * u + across[:, None] * m + up[:, None] * k


def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """IUPAC torsion a–b–c–d in (−π, π]; inputs ``(k, 3, batch)``, result ``(k, batch)``."""
    b1, b2, b3 = b - a, c - b, d - c
    n1, n2 = torch.linalg.cross(b1, b2, dim=1), torch.linalg.cross(b2, b3, dim=1)
    return torch.atan2((b1 * n2).sum(1) * b2.norm(dim=1), (n1 * n2).sum(1))
