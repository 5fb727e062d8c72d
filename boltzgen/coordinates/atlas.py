"""Several charts of one molecule: one for each shape of its rings, and each side of its inverting nitrogens.

A pucker lies too far from another one for a single map of stiff coordinates around one centre. Each basin has a chart
of its own, and a generator draws the label k of a chart first: q(x) = Σ_k q(k) q(x | k). Charts may overlap: the sum
is the density wherever they do, so weights are exact.

For training, the target of chart k is p(x) r_k(x) with a smooth partition of unity, Σ_k r_k = 1. It decides only which
chart learns what; where it is not ideal it costs efficiency, never correctness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boltzgen.coordinates.charts import wrap
from boltzgen.coordinates.internal import dihedral
from boltzgen.coordinates.molecular import Chart, MolecularCoordinates
from boltzgen.coordinates.symmetry import random_images
from boltzgen.coordinates.zmatrix import ZMatrix

SHARE_WIDTH = 0.35
"""Width in radians of the wells 1 − cos of which the partition is made."""

UNEVEN = 0.1
"""Mean squared ln of the variance of a whitened coordinate from which on it is a lever: it changes by a third."""

UNEVEN_IN_ALL = 1.9
"""Sum of that over all coordinates below which none is treated as a lever: what a network learns soon enough."""

SAME_CENTRE = 0.2
"""Stiff torsions whose centres agree within this, in radians, tell no charts apart."""


class Atlas:
    """Charts with the same Z-matrix: (label, torsions, stiff) ↔ positions ``(atoms, 3, batch)`` in nm."""

    def __init__(self, charts: Sequence[MolecularCoordinates]) -> None:
        self.charts = tuple(charts)
        first = self.charts[0]
        self.zmatrix: ZMatrix = first.zmatrix
        self.n_torsions, self.n_stiff = first.n_torsions, first.n_stiff
        rows, centres = self._telling_torsions()
        z = self.zmatrix
        self._corners = [
            torch.as_tensor(c[rows + 3], device=first.device) for c in (z.atom, z.bond, z.angle, z.torsion)
        ]
        self._centres = torch.as_tensor(centres, dtype=first.dtype, device=first.device)
        turned = {a for rotor in z.rotors for branch in rotor.branches for a in branch}
        self._are_carried = self.n_charts > 1 and bool(turned & {int(a) for c in self._corners for a in c})

    @property
    def n_charts(self) -> int:
        """Number of charts."""
        return len(self.charts)

    @property
    def n_slow(self) -> int:
        """Number of slow torsions, the first; the others are symmetric rotors."""
        return self.n_torsions - len(self.zmatrix.rotors)

    @property
    def slow_atoms(self) -> list[tuple[int, int, int, int]]:
        """The atoms of each slow torsion, in the order of the circles."""
        z = self.zmatrix
        return [(int(z.atom[k]), int(z.bond[k]), int(z.angle[k]), int(z.torsion[k])) for k in z.slow]

    @property
    def levers(self) -> tuple[int, ...]:
        """Stiff coordinates whose width depends on the torsions: amide torsions above all, which swing half a chain."""
        uneven = [chart.chart.unevenness for chart in self.charts if len(chart.chart.unevenness)]
        most = np.max(uneven, axis=0) if uneven else np.zeros(0)
        return tuple(np.flatnonzero(most > UNEVEN).tolist()) if most.sum() > UNEVEN_IN_ALL else ()

    @property
    def shape(self) -> tuple[int, int]:
        """Atoms, and their three coordinates."""
        return self.zmatrix.n_atoms, 3

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Atlas:
        """The same charts in another precision, on another device."""
        return Atlas([chart.to(dtype, device) for chart in self.charts])

    def to_cartesian(self, label: Tensor, torsions: Tensor, stiff: Tensor) -> tuple[Tensor, Tensor]:
        """Positions and ln |det ∂x/∂(torsions, stiff)| ``(batch,)``, by the charts of labels ``(batch,)``."""
        if self.n_charts == 1:
            return self.charts[0].to_cartesian(torsions, stiff)
        order = torch.argsort(label, stable=True)
        counts = torch.bincount(label, minlength=self.n_charts).tolist()
        groups = zip(self.charts, torsions[order].split(counts), stiff[order].split(counts), strict=True)
        parts = [chart.to_cartesian(t, z) for chart, t, z in groups if len(t)]
        x, log_det = (torch.cat(column, dim=-1) for column in zip(*parts, strict=True))
        back = torch.argsort(order)
        return x.index_select(-1, back), log_det[back]

    def from_cartesian(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Torsions, stiff and ln |det| in the charts of given labels; stiff is NaN outside a chart's support."""
        torsions, stiff = x.new_empty(x.shape[-1], self.n_torsions), x.new_empty(x.shape[-1], self.n_stiff)
        log_det = x.new_empty(x.shape[-1])
        for k, chart in enumerate(self.charts):
            mine = label == k
            torsions[mine], stiff[mine], log_det[mine] = chart.from_cartesian(x[..., mine])
        return torsions, stiff, log_det

    def log_shares(self, x: Tensor) -> Tensor:
        """ln r_k(x) of the partition of unity, ``(n_charts, batch)``.

        r_k ∝ exp(−Σ (1 − cos(φ − μ_k))/σ²) over the stiff torsions φ whose centres μ differ between charts, with
        equivalent branches labelled as in chart k.
        """
        images = [chart.canonical_images(x) for chart in self.charts] if self._are_carried else [x]
        phi = torch.stack([dihedral(*(image[corner] for corner in self._corners)) for image in images])
        wells = (1.0 - (phi - self._centres[..., None]).cos()).sum(1) / SHARE_WIDTH**2
        return torch.log_softmax(-wells, dim=0)

    def log_share(self, x: Tensor, label: Tensor) -> Tensor:
        """ln r_k(x) of the chart ``label (batch,)`` that made x, among the charts that can make it; ``(batch,)``.

        Σ_k r_k = 1 over the charts in whose support x lies: a share of a chart that never makes x would be lost.
        """
        if self.n_charts == 1:
            return x.new_zeros(x.shape[-1])
        with torch.no_grad():
            reach = torch.stack([chart.reaches(x) for chart in self.charts])
            reach[label, torch.arange(len(label), device=x.device)] = True  # whatever rounding says at the edge
        shares = self.log_shares(x)
        within = torch.where(reach, shares, -torch.inf)
        return shares.gather(0, label[None])[0] - torch.logsumexp(within, dim=0)

    def random_images(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Every rotor of every sample in one of its images, all with equal probability."""
        return random_images(x, self.zmatrix.rotors, rng)

    def assign(self, x: Tensor) -> Tensor:
        """The chart with the largest share in each configuration, ``(batch,)``."""
        return self.log_shares(x).argmax(0)

    def is_in_support(self, x: Tensor) -> Tensor:
        """Whether positions, in any equivalent labelling, lie in the support of some chart, ``(batch,)``."""
        return torch.stack([chart.reaches(x) for chart in self.charts]).any(0)

    def _telling_torsions(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (counted from the first torsion) of what tells charts apart, and their centres ``(charts, rows)``."""
        z = self.zmatrix
        moving = {a for rotor in z.rotors for a in rotor.atoms}
        rows = [k for k in range(3, z.n_atoms) if not (k in z.slow or z.linear[k] or int(z.atom[k]) in moving)]
        index = np.asarray(rows, dtype=np.int64) - 3
        centres = np.stack([chart.chart.torsions[index] for chart in self.charts])
        differ = np.abs(wrap(torch.as_tensor(centres - centres[:1])).numpy()).max(axis=0, initial=0.0) > SAME_CENTRE
        return index[differ], centres[:, differ]

    def to_tree(self) -> dict[str, Any]:
        """Z-matrix and charts as nested arrays, to be stored in a file."""
        charts = {f"{k:04d}": asdict(chart.chart) for k, chart in enumerate(self.charts)}
        return {**self.zmatrix.to_tree(), "charts": charts}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], dtype: torch.dtype = torch.float64) -> Atlas:
        """Build from what :meth:`to_tree` returned."""
        zmatrix = ZMatrix.from_tree(tree)
        charts = (Chart(**chart) for _, chart in sorted(tree["charts"].items()))
        return cls([MolecularCoordinates(zmatrix, chart, dtype) for chart in charts])
