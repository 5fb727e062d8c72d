"""Amide bonds of a molecule, and which share of an ensemble has them cis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from boltzgen.analysis.torsions import dihedral
from boltzgen.molecule import Molecule
from boltzgen.statistics.free_energy import Estimate, weighted_probability


def amide_torsions(molecule: Molecule) -> dict[str, tuple[int, int, int, int]]:
    """Torsions C–C(=O)–N–C of amides by name, by the names that the molecule's own torsions have for them if any.

    The oxygen is one without other neighbours, and no bond in a ring counts; a formamide takes its hydrogen in place
    of the first carbon. Primary amides, whose two sides are equal, are left out.
    """
    near = molecule.neighbours
    number = molecule.atomic_numbers
    named = {frozenset(atoms[1:3]): (name, atoms) for name, atoms in molecule.torsions.items()}
    found = {}
    for carbon, nitrogen in sorted((i, j) if number[i] == 6 else (j, i) for i, j in molecule.bonds):
        if (number[carbon], number[nitrogen]) != (6, 7) or len(near[carbon]) != 3 or len(near[nitrogen]) != 3:
            continue
        oxygens = [a for a in near[carbon] if number[a] == 8 and len(near[a]) == 1]
        left = [a for a in near[carbon] if a not in (nitrogen, *oxygens)]
        right = sorted((a for a in near[nitrogen] if a != carbon and number[a] > 1), key=lambda a: (number[a] != 6, a))
        if (
            len(oxygens) != 1
            or not left
            or not right
            or _connected(near, left[0], right[0], without=(carbon, nitrogen))
        ):
            continue
        name = "-".join(f"{molecule.atom_names[a]}:{molecule.residue_label(a)}" for a in (carbon, nitrogen))
        default = name, (left[0], carbon, nitrogen, right[0])
        label, atoms = named.get(frozenset((carbon, nitrogen)), default)
        found[label] = atoms
    return found


def cis_shares(
    molecule: Molecule,
    positions: NDArray,
    log_w: NDArray[np.float64],
    rng: np.random.Generator,
    n_bootstrap: int = 200,
) -> dict[str, Estimate]:
    """Share of each amide of :func:`amide_torsions` with |ω| below 90°, of positions (n, atoms, 3) in nm."""
    return {
        name: weighted_probability(np.abs(dihedral(positions, atoms)) < 0.5 * np.pi, log_w, rng, n_bootstrap)
        for name, atoms in amide_torsions(molecule).items()
    }


def _connected(near: Sequence[Sequence[int]], start: int, end: int, without: tuple[int, int]) -> bool:
    """Whether a path that avoids two atoms joins two others: whether the bond between those is in a ring."""
    seen, stack = {start, *without}, [start]
    while stack:
        new = [b for b in near[stack.pop()] if b not in seen]
        seen.update(new)
        stack += new
    return end in seen
