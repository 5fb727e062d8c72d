"""How near structures come to the edge of what the coordinates can reach."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from boltzgen.coordinates.atlas import Atlas
from boltzgen.coordinates.molecular import MolecularCoordinates


def edge_distance(atlas: Atlas, x: Tensor) -> tuple[Tensor, Tensor]:
    """Nearness to the edge of positions ``(atoms, 3, batch)`` in any equivalent labelling, ``(batch,)``, and its row.

    0 in the centre and 1 at the edge: |φ − μ|/W of a stiff torsion, |θ − π/2|/(π/2) of an angle, whose torsions are
    undefined at its limits; the largest of a structure, in the chart where this is smallest. The row is the place of
    the coordinate in :func:`edge_atoms`. Bonds and slow torsions have no edge.
    """
    nearest = torch.stack([torch.stack(_largest(chart, chart.canonical_images(x))) for chart in atlas.charts])
    best = nearest[:, 0].argmin(0)
    chosen = nearest[best, :, torch.arange(x.shape[-1], device=x.device)]
    return chosen[:, 0], chosen[:, 1].to(torch.int64)


def edge_atoms(atlas: Atlas) -> list[tuple[int, ...]]:
    """The atoms of the stiff torsions, four each, and then of the angles, three each."""
    z, chart = atlas.zmatrix, atlas.charts[0]
    angles = zip(
        z.atom[_first_angle(chart) :], z.bond[_first_angle(chart) :], z.angle[_first_angle(chart) :], strict=True
    )
    return [*chart.stiff_torsions, *((int(a), int(b), int(c)) for a, b, c in angles)]


def _largest(chart: MolecularCoordinates, x: Tensor) -> tuple[Tensor, Tensor]:
    angles = chart.geometry.internal(x).angles[_first_angle(chart) - 2 :]
    both = torch.cat([chart.support_excess(x), (angles - 0.5 * math.pi).abs() / (0.5 * math.pi)])
    if not len(both):
        return x.new_zeros(x.shape[-1]), x.new_zeros(x.shape[-1])
    value, row = both.max(0)
    return value, row.to(x.dtype)


def _first_angle(chart: MolecularCoordinates) -> int:
    """The first row with an angle that ends at 0 and π; that of atoms all in line rests at π and has no torsion."""
    z = chart.zmatrix
    return 3 if z.n_atoms > 2 and z.linear[2] else 2
