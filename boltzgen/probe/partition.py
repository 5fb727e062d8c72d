"""States of a system's slow coordinates, cut where its samples or its challengers show wells.

A well that only challengers visit must have a cut of its own: both ensembles count alike when cuts are sought.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from boltzgen.analysis.cuts import Cut, basin_cuts, well_cuts
from boltzgen.analysis.states import TorsionStates, find_states
from boltzgen.analysis.surfaces import RING_SHAPE
from boltzgen.analysis.torsions import dihedral
from boltzgen.coordinates.layout import batch_last
from boltzgen.molecule import Molecule
from boltzgen.target import AnyTarget, Target

RIGID = "rigid"
"""Stands for the torsions of a molecule in which nothing turns."""

LINE_WIDTH = 3.0
"""Of a line, in its whitened units, that is shown on a circle by 2 atan(z/width)."""

Angles = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Partition:
    """Cuts of several slow coordinates, which together name a joint state."""

    angles: Callable[[NDArray], Angles]
    cuts: tuple[Cut, ...]

    def __call__(self, positions: NDArray) -> NDArray[np.intp]:
        """States ``(n, parts)`` of structures ``(n, sites, components)``: indices into the names of each cut."""
        angles = self.angles(positions)
        return np.stack([cut(angles) for cut in self.cuts], axis=-1)

    def name(self, cell: NDArray[np.intp] | Sequence[int], parts: Sequence[int]) -> str:
        """A state by the names in some parts; ``cell`` has an entry for each of these.

        Parts with one state alone are left out, as they tell nothing.
        """
        named = [(self.cuts[part], k) for part, k in zip(parts, cell, strict=True) if len(self.cuts[part].names) > 1]
        return ", ".join(f"{cut.title} {cut.names[k]}".strip() for cut, k in named) or "all structures"


def find_partition(target: AnyTarget, samples: NDArray, log_w: NDArray[np.float64], challengers: NDArray) -> Partition:
    """Cut by samples ``(n, sites, components)`` with ln w ``(n,)`` and challengers ``(m, sites, components)``.

    Of a molecule: the Ramachandran plane of each residue, the wells of all other torsions that turn, and the shapes of
    its rings. Of any other system: the wells of each of its circles and lines.
    """
    angles = _molecular_angles(target) if isinstance(target, Target) else _latent_angles(target)
    drawn, seen = angles(samples), angles(challengers)
    cuts = basin_cuts(target.molecule.torsions) if isinstance(target, Target) else []
    turning: dict[str, tuple[int, ...]] = {name: () for name in seen if name != RING_SHAPE}
    cuts += well_cuts(turning, lambda name: common_states(drawn[name], log_w, seen[name]))
    if RING_SHAPE in seen:
        shapes = tuple(str(k + 1) for k in range(target.coordinates.n_charts))
        cuts.append(Cut(RING_SHAPE, shapes, (RING_SHAPE,), lambda shape: shape.astype(np.intp)))
    return Partition(angles, tuple(cuts))


def common_states(drawn: NDArray, log_w: NDArray[np.float64], seen: NDArray) -> TorsionStates:
    """Wells of a torsion in samples ``(n,)`` with ln w and challengers ``(m,)`` together, half of the weight each."""
    parts = [log_w - logsumexp(log_w), np.full(len(seen), -np.log(len(seen)))]
    return find_states(np.concatenate([drawn, seen]), np.concatenate(parts))


def turning_torsions(target: Target) -> dict[str, tuple[int, ...]]:
    """Named torsions of the molecule, then slow ones that have no name, such as those of hydroxyl groups."""
    molecule, atlas = target.molecule, target.coordinates
    torsions: dict[str, tuple[int, ...]] = dict(molecule.torsions)
    known = {frozenset(atoms[1:3]) for atoms in torsions.values()}
    for atoms in atlas.slow_atoms[: atlas.n_slow]:
        if frozenset(atoms[1:3]) not in known:
            torsions[f"tor:{_label(molecule, atoms)}"] = atoms
    return torsions


def _label(molecule: Molecule, atoms: tuple[int, ...]) -> str:
    names = "-".join(molecule.atom_names[atom] for atom in atoms)
    several = len(set(molecule.residue_of_atom)) > 1
    return f"{molecule.residue_label(atoms[0])}:{names}" if several else names


def _molecular_angles(target: Target) -> Callable[[NDArray], Angles]:
    torsions, atlas = turning_torsions(target), target.coordinates

    def angles(positions: NDArray) -> Angles:
        found: dict[str, NDArray] = {name: dihedral(positions, atoms) for name, atoms in torsions.items()}
        if atlas.n_charts > 1:
            found[RING_SHAPE] = atlas.assign(batch_last(positions)).numpy()
        return found or {RIGID: np.zeros(len(positions))}

    return angles


def _latent_angles(target: AnyTarget) -> Callable[[NDArray], Angles]:
    chart = target.coordinates.charts[0]

    def angles(positions: NDArray) -> Angles:
        circles, lines, _ = chart.from_cartesian(batch_last(positions))
        columns = torch.cat([circles, 2.0 * (lines / LINE_WIDTH).atan()], dim=1).numpy().T
        return {f"coordinate {k}": column for k, column in enumerate(columns, start=1)}

    return angles
