"""The check of fitted coordinates at the end of prepare: their own figures, and what an independent search finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from boltzgen.coordinates.quality import Quality, judge
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.target import Target
from boltzgen.workflow.conformers import search_conformers

MOST_EMBEDDED, ATOMS_EMBEDDED = 30, 1200
"""Conformers that are sought, and atoms in all of them: so that the search takes seconds at 60 atoms."""


@dataclass(frozen=True)
class States:
    """What conformer search finds.

    Attributes
    ----------
    n, n_inside
        Distinct conformers, and how many of them have a copy in the support of the coordinates.
    lowest_outside
        Energy of the lowest one outside above the lowest known conformer, kJ/mol; None if all are inside.
    n_energies
        What the search cost.
    """

    n: int
    n_inside: int
    lowest_outside: float | None
    n_energies: int

    @property
    def warning(self) -> str | None:
        """What is lost, if anything is."""
        if self.n == 0:
            return "conformer search (ETKDG) finds no conformer: nothing says whether the coordinates reach all states"
        if self.lowest_outside is None:
            return None
        height = f"{self.lowest_outside:.1f} kJ/mol above the lowest of all"
        return (
            f"{self.n - self.n_inside} of {self.n} conformers that an independent search (ETKDG) finds lie outside the "
            "support of the coordinates and are never sampled; the lowest of them is "
            f"{height if self.lowest_outside > 0.0 else 'the lowest of all'}"
        )


@dataclass(frozen=True)
class CoordinatesCheck:
    """All figures that judge the coordinates of a target."""

    quality: Quality
    states: States

    @property
    def warnings(self) -> list[str]:
        """What the user should know, one sentence each."""
        faults = [
            f"{fault}. Do not trust samples of this run, and please report the molecule"
            for fault in self.quality.faults
        ]
        return [*faults, *filter(None, [self.states.warning])]

    @property
    def n_energies(self) -> int:
        """Energies spent on the check."""
        return self.quality.n_samples + self.states.n_energies

    def summary(self) -> dict[str, Any]:
        """The figures by name, as ``--json`` and ``system.h5`` have them."""
        return {
            **asdict(self.quality),
            "states": self.states.n,
            "states_inside": self.states.n_inside,
            "lowest_outside": self.states.lowest_outside,
            "in_bounds": not self.quality.faults,
        }


def check_coordinates(
    target: Target, potential: PotentialEnergy, conformers: np.ndarray, seed: int
) -> CoordinatesCheck:
    """Judge the coordinates of a target, with its minimised ``conformers (k, atoms, 3)`` nm, lowest first."""
    quality = judge(target.coordinates, target.reduced_potential, conformers, seed=seed)
    # With another seed than the search that fitted the coordinates: the same one would find what it found.
    return CoordinatesCheck(quality, find_states(target, potential, conformers, seed + 1))


def find_states(target: Target, potential: PotentialEnergy, conformers: np.ndarray, seed: int) -> States:
    """Search conformers by ETKDG, minimise them in ``potential``, and see which ones the coordinates of a target reach.

    ``conformers (k, atoms, 3)`` nm are known ones, minimised: the first is the reference for stereo and labels, and all
    are candidates for the lowest energy.
    """
    from boltzgen.chemistry.conformers import distinct_conformers

    molecule = target.molecule
    n = min(MOST_EMBEDDED, max(1, ATOMS_EMBEDDED // molecule.n_atoms))
    found = search_conformers(molecule, conformers[0], potential, n, seed)
    known = torch.as_tensor(conformers).permute(1, 2, 0)
    with torch.no_grad():
        energies = potential.batch_last(known.contiguous()).numpy()
        inside = target.coordinates.is_in_support(torch.as_tensor(found.positions).permute(1, 2, 0)).numpy()
    lowest = np.concatenate([energies, found.energies]).min()
    states = distinct_conformers(molecule, found.positions, found.energies)
    outside = np.setdiff1d(states, states[inside])  # a state is inside if any copy of it is
    return States(
        n=len(np.unique(states)),
        n_inside=len(np.unique(states)) - len(outside),
        lowest_outside=float(found.energies[states == outside[0]].min() - lowest) if len(outside) else None,
        n_energies=found.n_energies + len(conformers),
    )
