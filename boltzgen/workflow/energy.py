"""The energy of a molecule as later stages use it, and the checks it passes before anything is fitted to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from boltzgen.errors import InputError
from boltzgen.progress import Reporter

if TYPE_CHECKING:
    from boltzgen.chemistry.build import ChemicalSystem
    from boltzgen.energy.parity import Parity
    from boltzgen.energy.potential import PotentialEnergy

STRAIN_LIMIT = 1000.0
"""How far a structure may lie above the minimum next to it, kJ/mol."""


@dataclass(frozen=True)
class CheckedEnergy:
    """A converted energy, how well it agrees with OpenMM, and what the checks cost."""

    potential: PotentialEnergy
    parity: Parity
    n_energies: int


def checked_energy(chemical: ChemicalSystem, seed: int, reporter: Reporter) -> CheckedEnergy:
    """Convert the energy of a molecule, see that its structure can have it, and check it against OpenMM.

    ``seed`` is that of the frames that are compared; ``reporter`` is warned of forces that are not converted.

    Raises
    ------
    InputError
        If the energy of the structure is not finite or far above the minimum next to it, or if the converted energy
        is another function than OpenMM's.
    UnsupportedError
        If the System has something that can be neither converted nor left to OpenMM.
    """
    from boltzgen.energy import OpenMMEnergy, from_openmm
    from boltzgen.energy.parity import check_parity

    potential = from_openmm(chemical.system, fallback=True)
    if any(isinstance(term, OpenMMEnergy) for term in potential.terms):
        reporter.warn("OpenMM itself evaluates the forces that cannot be converted, one sample at a time: slow")
    n_energies = _check_strain(potential, chemical)
    parity = check_parity(chemical.system, potential, chemical.positions, seed=seed)
    if not parity.agrees:
        raise InputError(
            f"the converted energy deviates from OpenMM by {parity.energy:.3g} kJ/mol and "
            f"{parity.force:.3g} kJ/mol/nm. Please report this molecule."
        )
    return CheckedEnergy(potential, parity, n_energies)


def _check_strain(potential: PotentialEnergy, chemical: ChemicalSystem) -> int:
    """Refuse a structure that no molecule has, naming the atom with the largest force; returns the energies spent."""
    from boltzgen.dynamics.minimise import minimise

    where, start = chemical.source.where, torch.as_tensor(chemical.positions)[..., None]
    energy, gradient = potential.evaluate(start)
    if not bool(torch.isfinite(energy).all()):
        raise InputError(f"{where}: the energy of the structure is not finite. Check its coordinates.")
    minimum = minimise(potential, start, tolerance=100.0, max_steps=500)
    strain = (energy - minimum.energy).item()
    if strain > STRAIN_LIMIT:
        worst = int(gradient.square().sum(dim=1)[:, 0].argmax())
        molecule = chemical.molecule
        label = f"{molecule.atom_names[worst]} of {molecule.residue_label(worst)}"
        raise InputError(
            f"{where}: the structure lies {strain:,.0f} kJ/mol above the minimum next to it; the force is largest on "
            f"{label}. Correct its coordinates."
        )
    return minimum.n_steps + 2
