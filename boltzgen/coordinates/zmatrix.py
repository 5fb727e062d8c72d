"""Z-matrix of a molecular graph: for every atom the three atoms that place it, and what kind its torsion is.

The tree starts at an end of the molecule and runs in chain order. Each rotatable bond has one *proper* torsion; every
further atom on the same axis is placed by its torsion *relative to the first child*, so that a rotor turns as one
and its siblings are stiff offsets. Atoms in line with their references have two bends instead of angle and torsion; the
last atom of a ring is placed by both ring neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from boltzgen.coordinates.equivalence import find_rotors
from boltzgen.coordinates.rotor import Rotor
from boltzgen.coordinates.spanning import MolecularGraph, Row, reference_rows, spanning_tree
from boltzgen.errors import UnsupportedError


@dataclass(frozen=True)
class ZMatrix:
    """Placement of atoms, in order.

    Row k places ``atom[k]`` at a distance from ``bond[k]``, an angle to ``angle[k]`` and a torsion to ``torsion[k]``;
    −1 where the first three atoms need no reference. Where ``sibling[k]``, ``torsion[k]`` is bonded to ``bond[k]`` and
    placed before, so that the torsion is the offset between the two about the axis; elsewhere it is a proper torsion or
    that of a ring closure. Where ``linear[k]``, atom, bond and angle are nearly in line: the angle is then the one from
    the direction m, across the axis and towards ``torsion[k]``, and the torsion the one about m from ``angle[k]``; both
    are regular at π/2 and π, where the three are in line. In row 2 it means that no three atoms are off a line, and the
    angle is the plain one.
    ``slow`` lists the rows whose proper torsion is a slow degree of freedom, those of rotors last.
    """

    atom: np.ndarray
    bond: np.ndarray
    angle: np.ndarray
    torsion: np.ndarray
    sibling: np.ndarray
    linear: np.ndarray
    slow: tuple[int, ...]
    rotors: tuple[Rotor, ...]

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atom)

    @property
    def n_internal(self) -> int:
        """Number of internal coordinates: 3N − 6, and 1 for two atoms."""
        n = self.n_atoms
        return max(n - 1, 0) + max(n - 2, 0) + max(n - 3, 0)

    @property
    def symmetry_number(self) -> int:
        """Number of images of a configuration by the rotors: labellings that are the same molecule."""
        return math.prod(rotor.order for rotor in self.rotors)

    def with_rotors(self, rotors: tuple[Rotor, ...]) -> ZMatrix:
        """The same placement with some of the rotors only; the others become ordinary slow torsions."""
        leaders = {rotor.atoms[0] for rotor in rotors}
        slow = tuple(sorted(self.slow, key=lambda k: (int(self.atom[k]) in leaders, k)))
        order = {int(self.atom[k]): place for place, k in enumerate(slow)}
        return replace(self, slow=slow, rotors=tuple(sorted(rotors, key=lambda rotor: order[rotor.atoms[0]])))

    def to_tree(self) -> dict[str, Any]:
        """All as nested arrays, to be stored in a file."""
        columns = (self.atom, self.bond, self.angle, self.torsion, self.sibling, self.linear)
        return {
            "zmatrix": np.stack([np.asarray(column, dtype=np.int64) for column in columns], axis=1),
            "slow": np.asarray(self.slow, dtype=np.int64),
            "rotors": {f"{i:04d}": np.asarray(rotor.branches, dtype=np.int64) for i, rotor in enumerate(self.rotors)},
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> ZMatrix:
        """Build from what :meth:`to_tree` returned."""
        atom, bond, angle, torsion, sibling, linear = np.asarray(tree["zmatrix"]).T
        rotors = tuple(Rotor(tuple(map(tuple, branches.tolist()))) for _, branches in sorted(tree["rotors"].items()))
        slow = tuple(int(k) for k in tree["slow"])
        return cls(atom, bond, angle, torsion, sibling.astype(bool), linear.astype(bool), slow, rotors)


def build_zmatrix(
    atomic_numbers: tuple[int, ...],
    bonds: tuple[tuple[int, int], ...],
    rigid_bonds: tuple[tuple[int, int], ...] = (),
    positions: np.ndarray | None = None,
) -> ZMatrix:
    """Build the Z-matrix of a connected molecular graph.

    Parameters
    ----------
    atomic_numbers
        One per atom.
    bonds
        Index pairs.
    rigid_bonds
        Bonds whose torsion is stiff (double, amide, ring). Ring bonds are found in any case.
    positions
        A reference structure ``(atoms, 3)`` in nm. It shows which groups are linear, and which equivalent groups agree
        in handedness: linear groups, and rotors of groups other than three single atoms, need it.

    Raises
    ------
    UnsupportedError
        If there are fewer than two atoms or the graph is not connected.
    """
    n = len(atomic_numbers)
    if n < 2:
        raise UnsupportedError("one atom alone has no internal coordinates, and nothing to sample.")
    graph = MolecularGraph(atomic_numbers, bonds, None if positions is None else np.asarray(positions, dtype=float))
    order, parent = spanning_tree(graph)
    if len(order) < n:
        raise UnsupportedError("the input holds several molecules; their relative position is unbounded.")
    rows = reference_rows(graph, order, parent)
    slow = _slow_rows(rows, graph, rigid_bonds)
    table = np.asarray([(row.atom, row.bond, row.angle, row.torsion) for row in rows], dtype=np.int64)
    atom, bond, angle, torsion = (np.ascontiguousarray(column) for column in table.T)
    sibling, linear = (np.asarray([getattr(row, kind) for row in rows]) for kind in ("sibling", "linear"))
    bare = ZMatrix(atom, bond, angle, torsion, sibling, linear, slow, ())
    return bare.with_rotors(find_rotors(graph, rows, slow))


def _slow_rows(rows: list[Row], graph: MolecularGraph, rigid_bonds: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Rows of proper torsions about rotatable bonds, in chain order."""
    rigid = {frozenset(pair) for pair in rigid_bonds} | graph.ring_bonds
    return tuple(
        k
        for k, row in enumerate(rows)
        if k > 2 and not (row.sibling or row.linear or row.closure) and frozenset((row.bond, row.angle)) not in rigid
    )
