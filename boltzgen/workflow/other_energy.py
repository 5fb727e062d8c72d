"""Another force field for the samples of a run: asked for, built, converted, checked, and evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from boltzgen.config import ReweightConfig
from boltzgen.constants import thermal_energy
from boltzgen.coordinates.layout import batch_last
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.progress import Progress, Reporter
from boltzgen.storage.runs import RunDirectory
from boltzgen.target import Target
from boltzgen.workflow.stage import stored_summary

if TYPE_CHECKING:
    from boltzgen.chemistry.external import SystemFile

BATCH = 1024


@dataclass(frozen=True)
class Request:
    """A force field that was asked for by name, or as the text of a System."""

    force_field: str
    solvent: str
    system_file: SystemFile | None

    @property
    def settings(self) -> dict[str, str]:
        """What tells it from others, beside :attr:`parents`."""
        return {} if self.system_file else {"force_field": self.force_field, "solvent": self.solvent}

    @property
    def parents(self) -> dict[str, str]:
        """SHA-256 of the System, if one is given."""
        return {"system": self.system_file.sha256} if self.system_file else {}


@dataclass(frozen=True)
class OtherEnergy:
    """A converted energy of the run's molecule in kJ/mol, and the names of its force field and solvent."""

    potential: PotentialEnergy
    force_field: str
    solvent: str


def open_request(directory: RunDirectory, settings: ReweightConfig) -> Request | None:
    """Read what is asked for; None if nothing is. A solvent alone goes with the run's own force field.

    Raises
    ------
    InputError
        If names and a System are both given, or the System cannot be read.
    """
    if settings.system is None and settings.force_field is None and settings.solvent is None:
        return None
    from boltzgen.chemistry.external import read_system_file

    own = stored_summary(directory.system_h5)["force_field"]
    return Request(
        settings.force_field or ("auto" if settings.system else own),
        settings.solvent or "auto",
        read_system_file(settings.system) if settings.system else None,
    )


def build_energy(
    directory: RunDirectory, target: Target, request: Request, seed: int, reporter: Reporter
) -> OtherEnergy:
    """Assign the force field to the molecule of the run, and convert its energy, checked against OpenMM.

    Raises
    ------
    InputError
        If a name is unknown, the System is of other atoms, or its energy is not what OpenMM says.
    UnsupportedError
        If the force field does not know the molecule.
    ConflictError
        If the atoms come out in another order.
    """
    # Imported here: they bring OpenMM and RDKit, which all else does without.
    from boltzgen.chemistry.rebuild import rebuild
    from boltzgen.workflow.energy import checked_energy

    chemical = rebuild(directory.system_pdb, target.molecule, request.force_field, request.solvent, request.system_file)
    for warning in chemical.warnings:
        reporter.warn(warning)
    energy = checked_energy(chemical, seed, reporter)
    return OtherEnergy(energy.potential, chemical.force_field, chemical.solvent)


def reduced_potentials(
    energy: OtherEnergy, positions: NDArray, temperature: float, reporter: Reporter
) -> NDArray[np.float64]:
    """U/kT ``(n,)`` at a temperature in K, of structures ``(n, atoms, 3)`` in nm; +inf where it cannot be computed."""
    parts: list[NDArray[np.float64]] = []
    done = 0
    reporter.progress(Progress("reweight", 0.0, None, {"energies": 0}))
    with torch.no_grad():
        for frames in np.array_split(positions, max(1, -(-len(positions) // BATCH))):
            x = batch_last(frames)
            parts.append((energy.potential.batch_last(x, None) / thermal_energy(temperature)).numpy())
            done += len(frames)
            reporter.progress(Progress("reweight", done / len(positions), None, {"energies": done}))
    reporter.done("reweight")
    return np.concatenate(parts)
