"""The states that an analysis reports, as masks over the frames of any trajectory of the molecule."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from boltzgen.analysis.states import TorsionStates
from boltzgen.analysis.surfaces import RING_SHAPE
from boltzgen.analysis.torsions import BASINS, POSITIVE_PHI, assign_basins, is_positive_phi, ramachandran_pairs

Angles = Mapping[str, NDArray]
"""Radians of any one shape, by names as in ``Molecule.torsions``."""


def own_states(name: str) -> bool:
    """Whether a torsion has states of its own, found in an ensemble; φ and ψ have the basins of their plane."""
    return name.startswith("tor:")


def state_masks(
    angles: Angles, states: Mapping[str, TorsionStates], shape: NDArray | None = None, n_shapes: int = 1
) -> dict[str, NDArray[np.bool_]]:
    """Which frames are in each state, by the names of :class:`~boltzgen.analysis.surfaces.EnsembleAnalysis`.

    ``ALA2:alpha_R`` and ``ALA2:phi>0`` for residues, ``C1-C2-C3-C4:ap`` for torsions by the cuts ``states``, which
    have the names of ``angles``, and ``ring shape 1`` for the charts ``shape`` of a molecule with several.
    """
    masks: dict[str, NDArray[np.bool_]] = {}
    for label, _, _ in ramachandran_pairs(dict.fromkeys(angles, ())):
        phi, psi = angles[f"phi:{label}"], angles[f"psi:{label}"]
        basin = assign_basins(phi, psi)
        masks |= {f"{label}:{name}": basin == k for k, name in enumerate(BASINS)}
        masks[f"{label}:{POSITIVE_PHI}"] = is_positive_phi(phi)
    for name, cuts in states.items():
        state = cuts.assign(angles[name])
        masks |= {f"{name.removeprefix('tor:')}:{state_name}": state == k for k, state_name in enumerate(cuts.names)}
    if shape is not None and n_shapes > 1:
        masks |= {f"{RING_SHAPE} {k + 1}": shape == k for k in range(n_shapes)}
    return masks
