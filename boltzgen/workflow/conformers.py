"""Conformer search: embedding, then minimisation in the force field that counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from boltzgen.dynamics.minimise import minimise
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.molecule import Molecule

MINIMISED = 2.0
"""Largest force on an atom of a minimised conformer, kJ/mol/nm; at 10, copies of a soft one still look different."""


@dataclass(frozen=True)
class Conformers:
    """Minimised structures ``(k, atoms, 3)`` nm with their energies ``(k,)`` kJ/mol, copies included, and the cost."""

    positions: np.ndarray
    energies: np.ndarray
    n_energies: int


def search_conformers(
    molecule: Molecule, reference: np.ndarray, potential: PotentialEnergy, n: int, seed: int
) -> Conformers:
    """Embed up to ``n`` conformers with the labels and stereo of a reference ``(atoms, 3)`` nm, and minimise them.

    Those that lose their stereo or have no energy are left out.
    """
    from boltzgen.chemistry.conformers import ConformerSearch

    search = ConformerSearch(molecule, reference)
    start = torch.as_tensor(search.embed(n, seed)).permute(1, 2, 0).contiguous()
    minimum = minimise(potential, start, tolerance=MINIMISED)
    x = search.relabelled(minimum.positions.permute(2, 0, 1).numpy())
    energies = minimum.energy.numpy()
    good = np.isfinite(energies) & search.has_stereo(x)
    return Conformers(x[good], energies[good], (minimum.n_steps + 1) * start.shape[-1])
