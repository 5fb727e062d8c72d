"""Whether structures from elsewhere have the configuration of a molecule: its cis and trans, and its stereocentres.

Dynamics at high temperatures turns amides now and then; a generator keeps them. Averages are compared over the
structures that both can have.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from boltzgen.coordinates.equivalence import colours_of
from boltzgen.coordinates.internal import dihedral
from boltzgen.coordinates.spanning import MolecularGraph
from boltzgen.molecule import Molecule


class Configuration:
    """What a reference structure ``(atoms, 3)`` in nm holds.

    Rigid bonds outside rings, as they are turned, unless the turn exchanges equal atoms (amide NH₂); and the hands of
    atoms with four neighbours that the graph tells apart. Shapes of rings and the sides of nitrogens are free.
    """

    def __init__(self, molecule: Molecule, reference: np.ndarray) -> None:
        graph = MolecularGraph(molecule.atomic_numbers, molecule.bonds, np.asarray(reference, dtype=np.float64))
        colours = colours_of(graph)
        torsions = [
            torsion
            for pair in molecule.rigid_bonds
            if frozenset(pair) not in graph.ring_bonds and (torsion := _held_torsion(graph, colours, *pair))
        ]
        centres = [
            (atom, *near[:3])
            for atom, near in enumerate(graph.neighbours)
            if len({colours[other] for other in near}) == len(near) == 4
        ]
        self._torsions = torch.tensor(torsions, dtype=torch.int64).reshape(-1, 4).T
        self._centres = torch.tensor(centres, dtype=torch.int64).reshape(-1, 4).T
        x = torch.as_tensor(graph.positions)[..., None]
        self._angles, self._hands = self._turns(x), self._volumes(x).sign()

    @property
    def bonds(self) -> list[tuple[int, int]]:
        """The bonds that are kept as they are turned, by their atoms."""
        return [(int(b), int(c)) for b, c in self._torsions[1:3].T]

    @property
    def centres(self) -> list[int]:
        """The atoms whose hand is kept."""
        return [int(atom) for atom in self._centres[0]]

    def is_kept(self, x: Tensor) -> Tensor:
        """Whether positions ``(atoms, 3, batch)`` in nm have it, ``(batch,)``: turned by less than a quarter turn."""
        return self.parts_kept(x).all(0)

    def parts_kept(self, x: Tensor) -> Tensor:
        """The same for each of :attr:`bonds`, then of :attr:`centres`: ``(bonds + centres, batch)``."""
        turned = torch.cos(self._turns(x) - self._angles.to(x.dtype)) > 0.0
        return torch.cat([turned, self._volumes(x) * self._hands.to(x.dtype) > 0.0])

    def _turns(self, x: Tensor) -> Tensor:
        a, b, c, d = (x[row] for row in self._torsions)
        return dihedral(a, b, c, d)

    def _volumes(self, x: Tensor) -> Tensor:
        """Triple products of three bonds of each centre, ``(centres, batch)``."""
        centre, a, b, c = (x[row] for row in self._centres)
        return ((a - centre) * torch.linalg.cross(b - centre, c - centre, dim=1)).sum(1)


def _held_torsion(graph: MolecularGraph, colours: list[int], i: int, j: int) -> tuple[int, int, int, int] | None:
    """A torsion about a bond; None if it says nothing: at the end of the molecule, equal atoms, a straight group."""
    ends = [[other for other in graph.neighbours[a] if other != b] for a, b in ((i, j), (j, i))]
    if not all(ends) or any(len({colours[a] for a in end}) < len(end) for end in ends):
        return None
    a, d = ends[0][0], ends[1][0]
    return None if graph.is_straight(a, i, j) or graph.is_straight(i, j, d) else (a, i, j, d)
