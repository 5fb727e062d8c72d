"""Which atoms place an atom: the order of placement, a spanning tree, and well-conditioned references.

An atom a is placed at a distance from b, at an angle to c and by a torsion to d. The volume element r² sin θ dr dθ dφ
is that of any choice of placed atoms, so the choice is free, and serves three ends: b, c and d must not be collinear,
θ must stay away from 0 and π, and what is stiff should be a coordinate itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

STRAIGHT = np.deg2rad(160.0)
"""An angle above this in the reference structure is described by two bends and not by itself."""

STRAIGHT_CARBON = np.deg2rad(140.0)
"""The same for a carbon with two neighbours."""

OFF_AXIS = 0.03
"""Least distance in nm from an axis of an atom that gives a direction across it."""


@dataclass(frozen=True)
class Row:
    """One line of a Z-matrix; the kinds are those of :class:`boltzgen.coordinates.zmatrix.ZMatrix`."""

    atom: int
    bond: int = -1
    angle: int = -1
    torsion: int = -1
    sibling: bool = False
    linear: bool = False
    closure: bool = False


class MolecularGraph:
    """A molecular graph, with the positions of a reference structure if there are any."""

    def __init__(
        self, atomic_numbers: tuple[int, ...], bonds: tuple[tuple[int, int], ...], positions: np.ndarray | None = None
    ) -> None:
        self.numbers, self.positions = atomic_numbers, positions
        self.neighbours: list[list[int]] = [[] for _ in atomic_numbers]
        for i, j in bonds:
            self.neighbours[i].append(j)
            self.neighbours[j].append(i)
        self.ring_bonds = frozenset(frozenset((i, j)) for i, j in bonds if self._is_in_ring(i, j))

    def component(self, start: int, without: frozenset[int] = frozenset()) -> set[int]:
        """The atoms that can be reached from ``start`` without passing those given."""
        seen, queue = {start}, [start]
        while queue:
            for b in self.neighbours[queue.pop()]:
                if b not in seen and b not in without:
                    seen.add(b)
                    queue.append(b)
        return seen

    def is_straight(self, a: int, b: int, c: int) -> bool:
        """Whether a–b–c is a linear group by the reference structure; false if there is none.

        A carbon with two neighbours is straight at rest, so it may be bent further in the reference than other atoms.
        """
        if self.positions is None:
            return False
        is_sp = self.numbers[b] == 6 and len(self.neighbours[b]) == 2
        return self._angle(a, b, c) > (STRAIGHT_CARBON if is_sp else STRAIGHT)

    def is_across(self, b: int, c: int, d: int) -> bool:
        """Whether d is off the axis through b and c in the reference structure; true if there is none."""
        if self.positions is None:
            return True
        axis, v = self.positions[c] - self.positions[b], self.positions[d] - self.positions[b]
        return bool(np.linalg.norm(np.cross(axis, v)) > OFF_AXIS * np.linalg.norm(axis))

    def _angle(self, a: int, b: int, c: int) -> float:
        assert self.positions is not None
        u, v = self.positions[a] - self.positions[b], self.positions[c] - self.positions[b]
        return float(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))

    def _is_in_ring(self, i: int, j: int) -> bool:
        seen, queue = {i}, [i]
        while queue:
            a = queue.pop()
            for b in self.neighbours[a]:
                if b not in seen and {a, b} != {i, j}:
                    seen.add(b)
                    queue.append(b)
        return j in seen


def spanning_tree(graph: MolecularGraph) -> tuple[list[int], list[int]]:
    """The order of placement and each atom's parent (−1 for the root), of the component that holds the root.

    Breadth first from a chain end, heavy atoms before hydrogens. Whole ring systems are placed before what hangs on
    them, so that substituents of a ring atom are oriented by its ring neighbours.
    """
    numbers, neighbours = graph.numbers, graph.neighbours

    def rank(a: int) -> tuple[bool, int, int, int]:
        heavy_neighbours = sum(numbers[b] > 1 for b in neighbours[a])
        return (numbers[a] == 1, -heavy_neighbours, -numbers[a], a)

    root = _root(graph)
    parent = [-1] * len(numbers)
    order: list[int] = []
    seen = {root}
    ring: deque[int] = deque()
    chain = deque([root])
    while ring or chain:
        a = (ring or chain).popleft()
        order.append(a)
        for b in sorted((b for b in neighbours[a] if b not in seen), key=rank):
            seen.add(b)
            parent[b] = a
            (ring if frozenset((a, b)) in graph.ring_bonds else chain).append(b)
    return _bent_frame_first(graph, order, parent), parent


def _root(graph: MolecularGraph) -> int:
    """A chain end, from which the first three atoms are not in line if that can be had."""
    numbers, neighbours = graph.numbers, graph.neighbours
    every = range(len(numbers))
    heavy = [a for a in every if numbers[a] > 1]
    ends = [a for a in heavy if sum(numbers[b] > 1 for b in neighbours[a]) <= 1] or heavy or list(every)

    def starts_bent(a: int) -> bool:
        ends_of = [(a, b, c) for b in neighbours[a] for c in neighbours[b] if c != a]
        ends_of += [(b, a, c) for b in neighbours[a] for c in neighbours[a] if b < c]
        return any(not graph.is_straight(*angle) for angle in ends_of)

    candidates = [a for a in ends if starts_bent(a)] or [a for a in heavy if starts_bent(a)] or ends
    alike = {a: sum(_is_twin(graph, a, b) for n in neighbours[a] for b in neighbours[n]) for a in candidates}
    # Carbon ends before oxygen: a chain is then walked from its first cap and not from a carbonyl. One of several equal
    # ends of a group last: the group can then turn as one.
    return min(candidates, key=lambda a: (len(neighbours[a]) == 1, alike[a], a))


def _is_twin(graph: MolecularGraph, a: int, b: int) -> bool:
    """Whether b is another atom of the element and number of neighbours of a."""
    return a != b and graph.numbers[a] == graph.numbers[b] and len(graph.neighbours[a]) == len(graph.neighbours[b])


def _bent_frame_first(graph: MolecularGraph, order: list[int], parent: list[int]) -> list[int]:
    """Move the third atom of the frame, one that is not in line with the first two, to the third place.

    A grandchild of the root if there is one. It has no torsion: where the second atom carries equal atoms and the root
    does not (phenol, t-butanol), it is a child of the root, so that the equal ones can turn as a group.
    """
    if len(order) < 3:
        return order
    root, second = order[:2]
    on_second = [a for a in order if parent[a] == second]
    on_root = [a for a in order[2:] if parent[a] == root]
    bent = [a for a in on_second if not graph.is_straight(a, second, root)]
    bent_on_root = [a for a in on_root if not graph.is_straight(a, root, second)]
    turns = _all_twins(graph, second, root) and not _all_twins(graph, root, second)
    bent = bent_on_root + bent if turns else bent + bent_on_root
    third = (bent or on_second or on_root)[0]
    return [root, second, third] + [a for a in order if a not in (root, second, third)]


def _all_twins(graph: MolecularGraph, centre: int, without: int) -> bool:
    group = [a for a in graph.neighbours[centre] if a != without]
    return len(group) > 1 and all(_is_twin(graph, group[0], a) for a in group[1:])


def reference_rows(graph: MolecularGraph, order: list[int], parent: list[int]) -> list[Row]:
    """The lines of the Z-matrix for the atoms in order."""
    rows = [Row(order[0])]
    if len(order) > 1:
        rows.append(Row(order[1], order[0]))
    if len(order) > 2:
        root, second, third = order[:3]
        middle, end = (root, second) if parent[third] == root else (second, root)
        rows.append(Row(third, middle, end, linear=graph.is_straight(third, middle, end)))
    placement = _Placement(graph, parent, order[:3])
    for a in order[3:]:
        rows.append(placement.row(a))
    return rows


class _Placement:
    """Chooses references among the atoms that are already placed."""

    def __init__(self, graph: MolecularGraph, parent: list[int], placed: list[int]) -> None:
        self.graph, self.parent = graph, parent
        self.placed = dict.fromkeys(placed)
        self.root, self.second = placed[:2]
        self.oriented: set[int] = set()  # centres with a neighbour that is placed relative to another one

    def row(self, a: int) -> Row:
        b = self.parent[a]
        c = self.second if b == self.root else self.parent[b]
        row = self._linear(a, b, c) if self.graph.is_straight(a, b, c) else self._bent(a, b, c)
        self.placed[a] = None
        if row.sibling:
            self.oriented.add(b)
        return row

    def _linear(self, a: int, b: int, c: int) -> Row:
        beside = [x for x in self._placed_neighbours(b, c) if self._is_beside(x, b, c)]
        return Row(a, b, c, beside[0] if beside else self._across(b, c), linear=True)

    def _bent(self, a: int, b: int, c: int) -> Row:
        leader = next((x for x in self._placed_neighbours(b, c) if self._is_beside(x, b, c)), None)
        if leader is None or b in self.oriented or len(self.graph.neighbours[b]) < 4 or self._has_branch(b, a):
            closing = self._closure(a, b, c)
            if closing is not None:
                return closing
        if leader is not None:
            return Row(a, b, c, leader, sibling=True)
        return Row(a, b, c, self._across(b, c))

    def _closure(self, a: int, b: int, c: int) -> Row | None:
        """Place a ring's last atom by its distance from one ring neighbour and its direction to the other."""
        others = [q for q in self._placed_neighbours(a, b) if q != c and not self.graph.is_straight(b, a, q)]
        for q in others:
            for d in (*(x for x in others if x != q), c, *self._placed_neighbours(b, c)):
                if d != q and self.graph.is_across(b, q, d):
                    return Row(a, b, q, d, closure=True)
        return None

    def _has_branch(self, b: int, a: int) -> bool:
        """Whether something outside the ring will be placed on b later, and then orient it."""
        waiting = (x for x in self.graph.neighbours[b] if x != a and x not in self.placed)
        return any(frozenset((b, x)) not in self.graph.ring_bonds for x in waiting)

    def _placed_neighbours(self, b: int, without: int) -> list[int]:
        neighbours = set(self.graph.neighbours[b])
        return [x for x in self.placed if x in neighbours and x != without]

    def _is_beside(self, x: int, b: int, c: int) -> bool:
        return not self.graph.is_straight(x, b, c)

    def _across(self, b: int, c: int) -> int:
        """A placed atom off the axis b–c, looked for along the chain beyond c; any atom if all are in line."""
        last = -1
        for d, on_axis in self._walk(b, c):
            last = d
            if not on_axis and self.graph.is_across(b, c, d):
                return d
        return last

    def _walk(self, b: int, c: int) -> Iterator[tuple[int, bool]]:
        """Placed atoms beyond c, nearest and those towards the root first, and whether linear groups lead to them."""
        queue = deque([(c, b, True)])
        seen = {b, c}
        while queue:
            at, before, on_axis = queue.popleft()
            found = [x for x in self._placed_neighbours(at, before) if x not in seen]
            for x in sorted(found, key=lambda x: x != self.parent[at]):
                seen.add(x)
                straight = on_axis and self.graph.is_straight(before, at, x)
                queue.append((x, at, straight))
                yield x, straight
