"""Torsion angles, and the named basins of a residue's Ramachandran plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

BASINS = ("alpha_R", "beta", "PII", "alpha_L", "C7ax")
"""Names of the basins, in the order of the labels that :func:`assign_basins` gives."""

POSITIVE_PHI = "phi>0"
"""Name of the derived state 0 < φ < π."""


def dihedral(positions: ArrayLike, atoms: Sequence[int]) -> NDArray[np.float64]:
    """Torsion angle of four atoms in each frame, radians in (-π, π], positive clockwise (IUPAC).

    φ = atan2(|b₂| b₁·(b₂×b₃), (b₁×b₂)·(b₂×b₃)) with bond vectors b₁, b₂, b₃. It is stable for every angle but
    undefined where three neighbouring atoms lie on one line (0 is returned where both arguments vanish).

    Parameters
    ----------
    positions
        (n, n_atoms, 3), any unit of length.
    atoms
        Indices of the four atoms along the chain.

    Returns
    -------
    (n,) angles
    """
    frames = np.asarray(positions)
    corners = frames[:, list(atoms)].astype(np.float64)
    b1, b2, b3 = np.moveaxis(np.diff(corners, axis=1), 1, 0)
    normal = np.cross(b2, b3)
    sine = np.linalg.norm(b2, axis=1) * np.einsum("ni,ni->n", b1, normal)
    cosine = np.einsum("ni,ni->n", np.cross(b1, b2), normal)
    angles = np.arctan2(sine, cosine)
    return np.where(angles == -np.pi, np.pi, angles)


def assign_basins(phi: ArrayLike, psi: ArrayLike) -> NDArray[np.intp]:
    """Basin of each (φ, ψ): an index into :data:`BASINS`, for radians in any period.

    The torus is cut into rectangles, so that every point is in exactly one basin. In degrees, where an
    interval (120, -90] runs through 180:

    ======== ============== =================== =====================================
    basin    φ              ψ                   minimum (ff14SB, OBC2), other names
    ======== ============== =================== =====================================
    alpha_R  (120, 0]       [-120, 50)          (-70, -30), right-handed helix
    beta     (120, -90]     outside [-120, 50)  (-150, 155), C5, extended
    PII      (-90, 0]       outside [-120, 50)  (-70, 150), with C7eq near (-80, 80)
    alpha_L  (0, 120]       [0, 120)            (55, 40), left-handed helix
    C7ax     (0, 120]       outside [0, 120)    (70, -50), with a well near (60, -165)
    ======== ============== =================== =====================================

    The cuts at φ = -90° and ψ = -120°, 50° are customary for alanine peptides, with the windows widened until
    they meet. beta and alpha_R reach over φ = ±180° up to the barrier at φ = 120°; hence the state ``phi>0``,
    with 0 < φ < 180°, is a little more than alpha_L and C7ax together. The cut between these two at ψ = 0 is a
    convention: in ff14SB with OBC2 a relaxed scan finds no barrier there, only a slope towards alpha_L.
    """
    phi_degrees = _wrapped_degrees(phi)
    psi_degrees = _wrapped_degrees(psi)
    right = (phi_degrees > 0) & (phi_degrees <= 120)
    helical = (psi_degrees >= -120) & (psi_degrees < 50)
    left_helical = (psi_degrees >= 0) & (psi_degrees < 120)
    polyproline = (phi_degrees > -90) & (phi_degrees <= 0)
    conditions = [right & left_helical, right, helical, polyproline]
    names = ["alpha_L", "C7ax", "alpha_R", "PII"]
    return np.select(conditions, [BASINS.index(name) for name in names], BASINS.index("beta"))


def is_positive_phi(phi: ArrayLike) -> NDArray[np.bool_]:
    """Whether 0 < φ < π, for radians in any period."""
    degrees = _wrapped_degrees(phi)
    return (degrees > 0) & (degrees < 180)


def named_rotors(torsions: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Torsions of bonds that turn in molecules without residue templates: ``{"C1-C2-C3-C4": atoms}``."""
    kinds = ((name.partition(":"), tuple(atoms)) for name, atoms in torsions.items())
    return {label: atoms for (kind, _, label), atoms in kinds if kind == "tor"}


def ramachandran_pairs(
    torsions: Mapping[str, Sequence[int]],
) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Residues that have both φ and ψ: (label, φ atoms, ψ atoms), in the order of the φ entries.

    ``torsions`` is :attr:`boltzgen.molecule.Molecule.torsions`, whose names read ``phi:ALA2``, ``psi:ALA2``;
    other kinds are passed over.
    """
    pairs = []
    for name, phi_atoms in torsions.items():
        kind, _, residue = name.partition(":")
        psi_atoms = torsions.get(f"psi:{residue}")
        if kind == "phi" and psi_atoms is not None:
            pairs.append((residue, tuple(phi_atoms), tuple(psi_atoms)))
    return pairs


def _wrapped_degrees(angle: ArrayLike) -> NDArray[np.float64]:
    """Degrees in (-180, 180]."""
    degrees = np.degrees(np.asarray(angle, dtype=np.float64))
    return 180.0 - np.mod(180.0 - degrees, 360.0)
