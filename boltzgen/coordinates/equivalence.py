"""Finding rotors: groups about a rotatable bond whose cyclic exchange is an automorphism of the graph.

Methyl, CF₃, sulfonate and t-butyl have three equivalent branches; nitro, carboxylate and phenyl two in a plane.
Whether the force field agrees is for :mod:`boltzgen.coordinates.fitting` to find out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np

from boltzgen.coordinates.rotor import Rotor
from boltzgen.coordinates.spanning import MolecularGraph, Row

PLANAR_OFFSET = np.deg2rad(150.0)
"""A group of two turns by half a circle if its atoms are at least this far apart about the axis."""

FLAT = 0.3
"""Triple product of unit bond vectors below which a centre has no handedness; it is 0.77 at a tetrahedral one."""

LARGEST_GROUP = 40
"""Atoms in a group beyond which no equivalence is looked for."""


def find_rotors(graph: MolecularGraph, rows: Sequence[Row], slow: Sequence[int]) -> tuple[Rotor, ...]:
    """The rotors among the slow rows, those nearer to the root first.

    Without positions, only groups of three single atoms.
    """
    found = (_rotor(graph, rows, rows[k]) for k in slow)
    return tuple(rotor for rotor in found if rotor)


def _rotor(graph: MolecularGraph, rows: Sequence[Row], lead: Row) -> Rotor | None:
    b, c = lead.bond, lead.angle
    group = [lead.atom, *(row.atom for row in rows if row.sibling and row.bond == b and row.torsion == lead.atom)]
    if len(group) not in (2, 3) or set(group) != set(graph.neighbours[b]) - {c}:
        return None
    if graph.positions is None:
        kinds = {(graph.numbers[a], len(graph.neighbours[a])) for a in group}
        single = len(group) == 3 and len(kinds) == 1 and len(graph.neighbours[group[0]]) == 1
        return Rotor(tuple((a,) for a in group)) if single else None
    if len(group) == 2 and not _is_planar(graph.positions, group, b, c):
        return None
    colours = colours_of(graph, (b, c))
    if len({colours[a] for a in group}) > 1:
        return None
    return _half_turn(graph, colours, group, b) if len(group) == 2 else _third_turn(graph, colours, group, b)


def _half_turn(graph: MolecularGraph, colours: list[int], group: list[int], b: int) -> Rotor | None:
    first, second = group
    if len(graph.component(first, frozenset({b}))) > LARGEST_GROUP:
        return None
    mapping = _match(graph, colours, {b: b, first: second, second: first}, [first], involution=True)
    if mapping is None:
        return None
    moved = [a for a in mapping if mapping[a] != a and mapping[a] != first]
    half: list[int] = []
    for a in moved:
        if mapping[a] not in half and a != second:
            half.append(a)
    return Rotor((tuple(half), tuple(mapping[a] for a in half)))


def _third_turn(graph: MolecularGraph, colours: list[int], group: list[int], b: int) -> Rotor | None:
    branches = [graph.component(a, frozenset({b})) for a in group]
    if len(branches[0]) > LARGEST_GROUP or branches[0] & branches[1]:
        return None
    maps = [_match(graph, colours, {b: b, group[0]: a}, [group[0]], involution=False) for a in group[1:]]
    if any(mapping is None for mapping in maps):
        return None
    first = [a for a in maps[0] or {} if a != b]
    return Rotor((tuple(first), *(tuple(mapping[a] for a in first) for mapping in maps if mapping)))


def _match(
    graph: MolecularGraph, colours: list[int], mapping: dict[int, int], todo: list[int], *, involution: bool
) -> dict[int, int] | None:
    """Extend a mapping of atoms to an isomorphism that keeps the handedness of every centre; None if there is none."""
    if not todo:
        return mapping
    v, *rest = todo
    w = mapping[v]
    for pairs in _neighbour_maps(graph, colours, mapping, v, w):
        extended = {**mapping, **pairs, **({y: x for x, y in pairs.items()} if involution else {})}
        if not _is_one_to_one(extended, pairs, mapping) or not _keeps_hand(graph, extended, v, w):
            continue
        following = [x for x in pairs if x not in mapping]
        found = _match(graph, colours, extended, [*rest, *following], involution=involution)
        if found is not None:
            return found
    return None


def _neighbour_maps(
    graph: MolecularGraph, colours: list[int], mapping: dict[int, int], v: int, w: int
) -> Iterator[dict[int, int]]:
    """Maps of the neighbours of v that are not mapped yet onto those of w, atoms that stay in place first."""
    images = {mapping[x] for x in graph.neighbours[v] if x in mapping}
    if not images <= set(graph.neighbours[w]):
        return
    free = [x for x in graph.neighbours[v] if x not in mapping]
    targets = [y for y in graph.neighbours[w] if y not in images]
    if sorted(colours[x] for x in free) != sorted(colours[y] for y in targets):
        return
    for choice in sorted(permutations(targets), key=lambda p: -sum(x == y for x, y in zip(free, p, strict=True))):
        if all(colours[x] == colours[y] for x, y in zip(free, choice, strict=True)):
            yield dict(zip(free, choice, strict=True))


def _is_one_to_one(extended: dict[int, int], pairs: dict[int, int], before: dict[int, int]) -> bool:
    consistent = all(extended[x] == y for part in (pairs, before) for x, y in part.items())
    return consistent and len(set(extended.values())) == len(extended)


def _keeps_hand(graph: MolecularGraph, mapping: dict[int, int], v: int, w: int) -> bool:
    neighbours = graph.neighbours[v][:3]
    if len(neighbours) < 3:
        return True
    before = _triple_product(graph, v, neighbours)
    return abs(before) < FLAT or before * _triple_product(graph, w, [mapping[x] for x in neighbours]) > 0.0


def _triple_product(graph: MolecularGraph, centre: int, atoms: list[int]) -> float:
    assert graph.positions is not None
    vectors = graph.positions[atoms] - graph.positions[centre]
    return float(np.linalg.det(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))


def _is_planar(positions: np.ndarray, group: list[int], b: int, c: int) -> bool:
    axis = positions[c] - positions[b]
    across = [v - axis * (v @ axis) / (axis @ axis) for v in positions[group] - positions[b]]
    cosine = across[0] @ across[1] / (np.linalg.norm(across[0]) * np.linalg.norm(across[1]))
    return bool(cosine < np.cos(PLANAR_OFFSET))


def colours_of(graph: MolecularGraph, fixed: tuple[int, ...] = ()) -> list[int]:
    """Atoms by element and surroundings (refined until nothing changes); those ``fixed`` are unlike all others."""
    keys: list[tuple] = [(z, fixed.index(a) if a in fixed else -1) for a, z in enumerate(graph.numbers)]
    colours = _numbered(keys)
    while True:
        refined = _numbered([(c, *sorted(colours[b] for b in graph.neighbours[a])) for a, c in enumerate(colours)])
        if max(refined) == max(colours):
            return colours
        colours = refined


def _numbered(keys: list[tuple]) -> list[int]:
    number = {key: i for i, key in enumerate(sorted(set(keys)))}
    return [number[key] for key in keys]
