"""The file of replica exchange: frames at the run's temperature as a trajectory, and series of all temperatures.

``docs/format.md`` specifies it. Reading is the side that comparisons need::

    simulation = read_simulation(Path("mol.run/md.h5"))
    phi = simulation.torsions["phi:ALA2"][..., 0]       # (ladders, frames) at the run's temperature
    simulation.kept[..., 0], simulation.energies[..., 0]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from boltzgen.errors import InputError
from boltzgen.molecule import Molecule
from boltzgen.simulation import Simulation
from boltzgen.storage.atomic import open_hdf5, read_array
from boltzgen.storage.runs import read_provenance
from boltzgen.storage.trajectory import fill_frames, put_observable
from boltzgen.storage.tree import get_tree, put_tree

GROUP = "replica_exchange"
SERIES = ("temperatures", "energies", "torsions", "kept", "shapes", "first_time", "interval")


def fill_simulation(file: h5py.File, molecule: Molecule, simulation: Simulation, others: Mapping[str, Any]) -> None:
    """Write a simulation into an empty HDF5 file, with the tree ``others`` beside its series."""
    fill_frames(
        file,
        molecule,
        simulation.positions.reshape(-1, *simulation.positions.shape[2:]),
        simulation.reduced_potentials.reshape(-1),
        np.tile(simulation.times, simulation.n_ladders),
        "simulated time of the frame in its ladder, from the start of the dynamics; it begins anew with each ladder",
        float(simulation.temperatures[0]),
    )
    ladder = np.repeat(np.arange(simulation.n_ladders, dtype=np.int32), simulation.energies.shape[1])
    put_observable(file, "ladder", ladder, "index of the ladder; ladders are independent of each other")
    kept = simulation.kept[..., 0].reshape(-1).astype(np.int8)
    put_observable(file, "kept", kept, "1 where the frame has the configuration of the input, else 0")
    series = {name: getattr(simulation, name) for name in SERIES}
    put_tree(file.create_group(GROUP), {**series, **others})


def read_simulation(path: Path) -> Simulation:
    """Read what :func:`fill_simulation` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged, or of another kind.
    StorageError
        If it cannot be read.
    """
    if read_provenance(path).stage != "md":
        raise InputError(f"{path} is no simulation. Give the md.h5 of a run.")
    with open_hdf5(path) as file:
        try:
            tree = get_tree(file[GROUP])
            series = {name: tree[name] for name in SERIES}
            positions = read_array(file["coordinates"])
            shape = series["energies"].shape[:2]
            return Simulation(positions=positions.reshape(*shape, *positions.shape[1:]), **series)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path} lacks a part of its simulation. Make the file again.") from error
