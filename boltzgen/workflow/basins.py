"""Structures of the states that an analysis found lost, for a training to go on with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from numpy.typing import NDArray

from boltzgen.errors import InputError
from boltzgen.probe.result import TROUBLES
from boltzgen.storage.atomic import open_hdf5
from boltzgen.storage.runs import RunDirectory, check_parent, read_provenance
from boltzgen.storage.tree import get_tree
from boltzgen.workflow.load import check_samples, require
from boltzgen.workflow.stage import stored_summary


@dataclass(frozen=True)
class Basins:
    """Names of lost states, structures of them ``(n, atoms, 3)`` nm, and the files that this rests on."""

    states: tuple[str, ...]
    positions: NDArray
    parents: dict[str, Path]


def read_basins(directory: RunDirectory) -> Basins:
    """What the analysis of the run's flow, as it is now, found lost.

    Raises
    ------
    InputError
        If there is no analysis, or nothing is lost.
    ConflictError
        If the analysis is of another flow.
    """
    require(directory.flow_h5, f"boltzgen train {directory.path}")
    require(directory.analysis_h5, f"boltzgen analyze {directory.path}")
    for record in check_samples(directory):
        check_parent(read_provenance(directory.ensemble_h5), record.path)
    check_parent(read_provenance(directory.analysis_h5), directory.ensemble_h5)
    summary = stored_summary(directory.analysis_h5)
    states = [one["state"] for one in summary.get("reference", {}).get("lost_states", [])]
    states += [one["state"] for one in summary.get("probe", {}).get("states", []) if one["kind"] in TROUBLES]
    with open_hdf5(directory.analysis_h5) as file:
        tree = get_tree(file["lost_states"]) if "lost_states" in file else None
    if tree is None:
        raise InputError(
            f"{directory.analysis_h5} names no lost state. Train longer without --seed-basins, or look for lost "
            f"states first: boltzgen analyze {directory.path}."
        )
    parents = {"analysis.h5": directory.analysis_h5, "flow.h5": directory.flow_h5}
    return Basins(tuple(dict.fromkeys(states)), tree["positions"], parents)
