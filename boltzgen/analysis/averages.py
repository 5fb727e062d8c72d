"""Averages over an ensemble that most molecules have: energy, size, distance of the ends, directions of torsions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boltzgen.analysis.torsions import dihedral
from boltzgen.constants import thermal_energy
from boltzgen.molecule import Molecule
from boltzgen.statistics.averages import weighted_direction, weighted_means
from boltzgen.statistics.free_energy import Estimate

LEAST_DIRECTION = 0.5
"""Length of the mean unit vector of a torsion below which its mean direction says nothing."""


@dataclass(frozen=True)
class Average:
    """An ensemble average with its error, in ``unit``."""

    estimate: Estimate
    unit: str


def ensemble_averages(
    positions: NDArray,
    log_w: NDArray[np.float64],
    reduced_potential: NDArray[np.float64],
    molecule: Molecule,
    temperature: float,
    *,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> dict[str, Average]:
    """Averages by name.

    Potential energy ⟨U⟩ and its heat capacity (⟨U²⟩ − ⟨U⟩²)/kT² in units of k; radius of gyration by masses; distance
    of the two heavy atoms with most bonds between them; the mean direction of each named torsion that has one.

    Parameters
    ----------
    positions
        (n, atoms, 3) nm.
    log_w, reduced_potential
        (n,), U/kT at ``temperature`` in K.
    """
    rng = np.random.default_rng(seed)
    kT = thermal_energy(temperature)
    columns = {"potential energy": (reduced_potential * kT, "kJ/mol")}
    masses = np.asarray(molecule.masses)
    columns["radius of gyration"] = (radius_of_gyration(positions, masses), "nm")
    ends = farthest_atoms(molecule)
    if ends:
        a, b = ends
        name = "distance " + " to ".join(f"{molecule.atom_names[k]} of {molecule.residue_label(k)}" for k in ends)
        columns[name] = (np.linalg.norm(positions[:, a] - positions[:, b], axis=1), "nm")
    values = np.column_stack([values for values, _ in columns.values()])
    estimates = weighted_means(values, log_w, rng, n_bootstrap)
    averages = {
        name: Average(estimate, unit) for (name, (_, unit)), estimate in zip(columns.items(), estimates, strict=True)
    }
    mean = estimates[0].value / kT
    with np.errstate(invalid="ignore"):  # of failed energies, which have no weight
        squares = (reduced_potential - mean) ** 2
    averages["heat capacity of the potential energy"] = Average(
        weighted_means(squares[:, None], log_w, rng, n_bootstrap)[0], "k"
    )
    for name, atoms in molecule.torsions.items():
        direction, length = weighted_direction(dihedral(positions, atoms), log_w, rng, n_bootstrap)
        if length >= LEAST_DIRECTION:
            error = None if direction.stderr is None else float(np.degrees(direction.stderr))
            estimate = Estimate(float(np.degrees(direction.value)), error)
            averages[f"direction of {name}"] = Average(estimate, "degrees")
    return averages


def radius_of_gyration(positions: NDArray, masses: Sequence[float] | NDArray) -> NDArray[np.float64]:
    """√(Σ m |x − x̄|² / Σ m), (n,) in nm, of positions (n, atoms, 3); x̄ is the centre of mass."""
    share = np.asarray(masses, dtype=np.float64) / np.sum(masses)
    x = np.asarray(positions, dtype=np.float64)
    centred = x - np.einsum("a,nac->nc", share, x)[:, None]
    return np.sqrt(np.einsum("a,nac,nac->n", share, centred, centred))


def farthest_atoms(molecule: Molecule) -> tuple[int, int] | None:
    """The two heavy atoms with most bonds between them, the first such pair; None with fewer than two."""
    heavy = [k for k, number in enumerate(molecule.atomic_numbers) if number > 1]
    near = molecule.neighbours
    pairs = [(steps, -a, -b) for a in heavy for b, steps in _steps_from(near, a) if a < b and b in set(heavy)]
    if not pairs:
        return None
    _, a, b = max(pairs)
    return -a, -b


def _steps_from(near: Sequence[Sequence[int]], start: int) -> Iterator[tuple[int, int]]:
    """Every atom with the number of bonds to it from ``start``, breadth first."""
    seen, layer, steps = {start}, [start], 0
    while layer:
        yield from ((atom, steps) for atom in layer)
        layer = sorted({b for a in layer for b in near[a] if b not in seen})
        seen.update(layer)
        steps += 1
