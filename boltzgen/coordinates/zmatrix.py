"""Z-matrix of a molecular graph: for every atom the three atoms that place it, and what kind its torsion is.

The tree starts at an end of the molecule and runs in chain order. Each rotatable bond has one *proper* torsion; every
further atom on the same axis is placed by its torsion *relative to the first child*, so that a rotor turns as one
and its siblings are stiff offsets.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from boltzgen.errors import UnsupportedError

ROTOR_ORDER = 3
"""Images of a methyl-like rotor."""


@dataclass(frozen=True)
class Rotor:
    """A terminal group of three equivalent atoms (methyl, ammonium) whose images are the same molecule."""

    atoms: tuple[int, int, int]
    """The equivalent atoms, the first child of the axis first; cyclic shifts are rotations of the group."""


@dataclass(frozen=True)
class ZMatrix:
    """Placement of atoms, in order.

    Row k places ``atom[k]`` at a distance from ``bond[k]``, an angle to ``angle[k]`` and a torsion to ``torsion[k]``;
    −1 where the first three atoms need no reference. Where ``sibling[k]``, ``torsion[k]`` is the first child on the
    same axis, so that the torsion is the offset between the two about the axis; elsewhere it is a proper torsion.
    ``slow`` lists the rows whose proper torsion is a slow degree of freedom.
    """

    atom: np.ndarray
    bond: np.ndarray
    angle: np.ndarray
    torsion: np.ndarray
    sibling: np.ndarray
    slow: tuple[int, ...]
    rotors: tuple[Rotor, ...]

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atom)

    def levels(self) -> list[np.ndarray]:
        """Rows (from 3 on) in groups that can be placed at once, each after all its references."""
        depth = {int(self.atom[k]): 0 for k in range(min(3, self.n_atoms))}
        groups: dict[int, list[int]] = {}
        for k in range(3, self.n_atoms):
            level = 1 + max(depth[int(ref[k])] for ref in (self.bond, self.angle, self.torsion))
            depth[int(self.atom[k])] = level
            groups.setdefault(level, []).append(k)
        return [np.asarray(groups[level]) for level in sorted(groups)]


def build_zmatrix(
    atomic_numbers: tuple[int, ...],
    bonds: tuple[tuple[int, int], ...],
    rigid_bonds: tuple[tuple[int, int], ...] = (),
) -> ZMatrix:
    """Build the Z-matrix of a connected molecular graph.

    Parameters
    ----------
    atomic_numbers
        One per atom.
    bonds
        Index pairs.
    rigid_bonds
        Bonds whose torsion is stiff (double, amide, ring).

    Raises
    ------
    UnsupportedError
        If there are fewer than three atoms or the graph is not connected.
    """
    n = len(atomic_numbers)
    if n < 3:
        raise UnsupportedError(f"the molecule has {n} atoms; internal coordinates need at least three.")
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for i, j in bonds:
        neighbours[i].append(j)
        neighbours[j].append(i)
    order, parent = _spanning_tree(atomic_numbers, neighbours)
    if len(order) < n:
        raise UnsupportedError("the input holds several molecules; their relative position is unbounded.")
    rows = _references(order, parent)
    slow = _slow_rows(rows, atomic_numbers, neighbours, rigid_bonds)
    rotors = _rotors(rows, atomic_numbers, neighbours)
    atom, bond, angle, torsion, sibling = (np.ascontiguousarray(column) for column in rows.T)
    return ZMatrix(atom, bond, angle, torsion, sibling.astype(bool), slow, rotors)


def _spanning_tree(numbers: tuple[int, ...], neighbours: list[list[int]]) -> tuple[list[int], list[int]]:
    """Breadth-first tree from a chain end, heavy atoms before hydrogens; returns the order and each atom's parent."""

    def rank(a: int) -> tuple[bool, int, int, int]:
        heavy_neighbours = sum(numbers[b] > 1 for b in neighbours[a])
        return (numbers[a] == 1, -heavy_neighbours, -numbers[a], a)

    heavy = [a for a, z in enumerate(numbers) if z > 1]
    ends = [a for a in heavy if sum(numbers[b] > 1 for b in neighbours[a]) <= 1] or heavy or list(range(len(numbers)))
    # Carbon ends before oxygen: a chain is then walked from its first cap and not from a carbonyl.
    root = min(ends, key=lambda a: (len(neighbours[a]) == 1, a))
    parent = [-1] * len(numbers)
    order, queue, seen = [], deque([root]), {root}
    while queue:
        a = queue.popleft()
        order.append(a)
        for b in sorted((b for b in neighbours[a] if b not in seen), key=rank):
            seen.add(b)
            parent[b] = a
            queue.append(b)
    return _second_and_third_first(order, parent), parent


def _second_and_third_first(order: list[int], parent: list[int]) -> list[int]:
    """Move the third atom of the frame (a grandchild of the root if there is one) to the third place."""
    root, second = order[:2]
    third = next((a for a in order if parent[a] == second), None) or next(a for a in order[2:] if parent[a] == root)
    return [root, second, third] + [a for a in order if a not in (root, second, third)]


def _references(order: list[int], parent: list[int]) -> np.ndarray:
    """Rows (atom, bond, angle, torsion, sibling) for the atoms in order."""
    root, second, third = order[:3]
    middle = parent[third]
    other = second if middle == root else root
    rows = [[root, -1, -1, -1, 0], [second, root, -1, -1, 0], [third, middle, other, -1, 0]]
    # The third atom fixes the orientation: it leads its axis, with a torsion of zero by convention.
    leaders = {(middle, other): third}
    for a in order[3:]:
        b = parent[a]
        c = second if b == root else parent[b]
        leader = leaders.setdefault((b, c), a)
        if leader != a:
            d = leader
        elif b == root:
            d = third
        else:
            d = second if c == root else parent[c]
        rows.append([a, b, c, d, int(leader != a)])
    return np.asarray(rows)


def _slow_rows(
    rows: np.ndarray,
    numbers: tuple[int, ...],
    neighbours: list[list[int]],
    rigid_bonds: tuple[tuple[int, int], ...],
) -> tuple[int, ...]:
    """Rows of proper torsions about rotatable bonds; heavy groups along the chain first, methyl-like rotors last."""
    rigid = {frozenset(pair) for pair in rigid_bonds}
    slow = [
        k for k in range(3, len(rows)) if not rows[k, 4] and frozenset((int(rows[k, 1]), int(rows[k, 2]))) not in rigid
    ]
    return tuple(sorted(slow, key=lambda k: (_is_rotor(rows, k, numbers, neighbours), k)))


def _group(rows: np.ndarray, k: int) -> tuple[int, ...]:
    """The atoms on the axis that row k leads, the leader first."""
    leader = int(rows[k, 0])
    return leader, *(int(row[0]) for row in rows if row[4] and row[3] == leader)


def _is_rotor(rows: np.ndarray, k: int, numbers: tuple[int, ...], neighbours: list[list[int]]) -> bool:
    """Whether row k leads a group of exactly three hydrogens on one atom."""
    group = _group(rows, k)
    return len(group) == ROTOR_ORDER and all(numbers[a] == 1 and len(neighbours[a]) == 1 for a in group)


def _rotors(rows: np.ndarray, numbers: tuple[int, ...], neighbours: list[list[int]]) -> tuple[Rotor, ...]:
    leaders = [k for k in range(3, len(rows)) if not rows[k, 4] and _is_rotor(rows, k, numbers, neighbours)]
    return tuple(Rotor(_group(rows, k)) for k in leaders)  # type: ignore[arg-type]  # length is ROTOR_ORDER
