"""Cuts of a molecule's torsions into named states: the same for whatever ensembles are to be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boltzgen.analysis.states import TorsionStates
from boltzgen.analysis.torsions import BASINS, POSITIVE_PHI, assign_basins, is_positive_phi, ramachandran_pairs

Angles = Mapping[str, np.ndarray]
"""Radians by names as in ``Molecule.torsions``, ring torsions as ``ring:…``."""


@dataclass(frozen=True)
class Cut:
    """Named states of some torsions; called with the angles of an ensemble, it gives the state of each frame."""

    title: str
    names: tuple[str, ...]
    torsions: tuple[str, ...]
    assign: Callable[..., np.ndarray]

    def __call__(self, angles: Angles) -> np.ndarray:
        """Index into ``names`` of each frame, in the shape of the angles."""
        return self.assign(*(angles[name] for name in self.torsions))


def basin_cuts(torsions: Mapping[str, tuple[int, ...]]) -> list[Cut]:
    """The Ramachandran basins of each residue."""
    return [
        Cut(label, BASINS, (f"phi:{label}", f"psi:{label}"), assign_basins)
        for label, _, _ in ramachandran_pairs(torsions)
    ]


def positive_phi_cuts(torsions: Mapping[str, tuple[int, ...]]) -> list[Cut]:
    """The sign of φ in each residue: unions of basins."""
    return [
        Cut(label, ("phi<0", POSITIVE_PHI), (f"phi:{label}",), lambda phi: is_positive_phi(phi).astype(int))
        for label, _, _ in ramachandran_pairs(torsions)
    ]


def well_cuts(torsions: Mapping[str, tuple[int, ...]], wells: Callable[[str], TorsionStates]) -> list[Cut]:
    """The wells, by name, of all torsions that belong to no Ramachandran plane."""
    planes = {name for cut in basin_cuts(torsions) for name in cut.torsions}
    cuts = []
    for name in torsions:
        if name not in planes:
            states = wells(name)
            cuts.append(Cut(name.removeprefix("tor:"), states.names, (name,), states.assign))
    return cuts


def finer(known: TorsionStates | None, seen: TorsionStates) -> TorsionStates:
    """The states of one ensemble, unless another one shows more wells: those then part states that it lumps."""
    return seen if known is None or len(seen.names) > len(known.names) else known


def joint(columns: Sequence[np.ndarray], *others: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Joint states of several partitions, of one ensemble or more.

    Each ensemble is a sequence of labels, one array for each partition. Returns the states that occur ``(k, parts)``,
    and the state of each frame of each ensemble.
    """
    stacked = [np.stack(labels, axis=-1) for labels in (columns, *others)]
    rows = np.concatenate([labels.reshape(-1, labels.shape[-1]) for labels in stacked])
    states, index = np.unique(rows, axis=0, return_inverse=True)
    parts = np.split(index.reshape(-1), np.cumsum([labels[..., 0].size for labels in stacked])[:-1])
    return states, [part.reshape(labels.shape[:-1]) for part, labels in zip(parts, stacked, strict=True)]
