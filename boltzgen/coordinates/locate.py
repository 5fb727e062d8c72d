"""Where structures from anywhere lie in the coordinates, and why those outside are outside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from boltzgen.coordinates.atlas import Atlas
from boltzgen.coordinates.internal import dihedral

CHUNK = 8192
"""Structures at a time."""

STRETCH = 1.6
"""A bond longer than this many times its centre, or shorter by it, is torn: a molecule cut by a periodic box, or wrong
units. Thermal bonds stay within a fifth."""


@dataclass(frozen=True)
class Located:
    """Latents of the structures in the support, in the chart with the largest share of those that support them.

    ``inside (n,)`` says which these are; ``label``, ``torsions``, ``stiff`` and ``log_det`` have their rows.
    ``outside`` counts the others by what left its support furthest: ``("torsion", four atoms)``,
    ``("bond", two atoms)`` or ``("position", ())`` where a coordinate is not finite.
    """

    inside: Tensor
    label: Tensor
    torsions: Tensor
    stiff: Tensor
    log_det: Tensor
    outside: dict[tuple[str, tuple[int, ...]], int]


def locate(atlas: Atlas, x: Tensor) -> Located:
    """Locate positions ``(atoms, 3, n)`` in nm, in any labelling of equivalent branches.

    The three atoms of a methyl may also be numbered the other way round, which no turn of it mends.
    """
    parts = [_locate(atlas, part) for part in x.split(CHUNK, dim=-1)]
    names = ("inside", "label", "torsions", "stiff", "log_det")
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    outside = sum((Counter(part.outside) for part in parts), Counter())
    return Located(**columns, outside=dict(outside.most_common()))


def _locate(atlas: Atlas, x: Tensor) -> Located:
    finite = torch.isfinite(x).all(0).all(0)
    safe = _of_one_hand(atlas, torch.where(finite, x, 0.0))
    images = [chart.canonical_images(safe) for chart in atlas.charts]
    excess = torch.stack([chart.support_excess(image) for chart, image in zip(atlas.charts, images, strict=True)])
    stretch = torch.stack([chart.stretches(image) for chart, image in zip(atlas.charts, images, strict=True)])
    torn = stretch.log().abs() / torch.tensor(STRETCH).log().item()
    excess, torn = (torch.nan_to_num(t, nan=torch.inf) for t in (excess, torn))
    supported = (excess < 1.0).all(1) & (torn < 1.0).all(1) & finite
    shares = atlas.log_shares(safe)
    label = shares.masked_fill(~supported, -torch.inf).argmax(0)
    torsions, stiff, log_det = atlas.from_cartesian(safe, label)
    inside = supported.any(0) & torch.isfinite(stiff).all(1) & torch.isfinite(log_det)
    reasons = Counter(
        _reason(atlas, bool(finite[i]), excess[k, :, i], torn[k, :, i])
        for i, k in zip((~inside).nonzero()[:, 0].tolist(), shares.argmax(0)[~inside].tolist(), strict=True)
    )
    return Located(inside, label[inside], torsions[inside], stiff[inside], log_det[inside], dict(reasons))


def _of_one_hand(atlas: Atlas, x: Tensor) -> Tensor:
    """Exchange two of the three equal atoms of a methyl or the like where a file numbers them the other way round."""
    z, chart = atlas.zmatrix, atlas.charts[0].chart
    for rotor in z.rotors:
        if [len(branch) for branch in rotor.branches] != [1, 1, 1]:
            continue
        _, second, third = rotor.atoms
        row = int((z.atom == second).nonzero()[0][0])
        corners = (z.atom[row], z.bond[row], z.angle[row], z.torsion[row])
        offset = dihedral(*(x[[int(atom)]] for atom in corners))[0]
        turned = offset * float(chart.torsions[row - 3]) < 0.0
        pair = x[[third, second]]
        x = x.index_copy(0, torch.tensor([second, third], device=x.device), torch.where(turned, pair, pair.flip(0)))
    return x


def _reason(atlas: Atlas, finite: bool, excess: Tensor, torn: Tensor) -> tuple[str, tuple[int, ...]]:
    """What is furthest outside the support of the nearest chart."""
    if not finite:
        return "position", ()
    if torn.max() >= 1.0:
        z, row = atlas.zmatrix, int(torn.argmax()) + 1
        return "bond", (int(z.atom[row]), int(z.bond[row]))
    return "torsion", atlas.charts[0].stiff_torsions[int(excess.argmax())]
