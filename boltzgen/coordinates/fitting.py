"""Fitting an atlas to a molecule: which basins its rings have, and a chart around each.

Conformers come from outside (embedding) and from random slow torsions. Those that differ in a stiff torsion, a ring's
above all, are in different basins, and every basin gets a chart of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from boltzgen.coordinates.atlas import Atlas
from boltzgen.coordinates.charts import wrap
from boltzgen.coordinates.harmonic import ReducedPotential, chart_of_structure, minimise_from, whitened
from boltzgen.coordinates.layout import batch_last
from boltzgen.coordinates.molecular import MolecularCoordinates
from boltzgen.coordinates.rotor import Rotor
from boltzgen.coordinates.symmetry import cycle_image
from boltzgen.coordinates.zmatrix import ZMatrix
from boltzgen.errors import InputError, UnsupportedError

SAME_BASIN = 0.7
"""Radians by which a stiff torsion may differ between conformers of one basin; ring puckers are further apart."""

SAME_CONFORMER = 0.3
"""Radians by which all slow torsions of one conformer may differ."""

WINDOW = 12.0
"""kT above the lowest minimum beyond which a basin gets no chart."""

MOST_CHARTS = 32
"""Basins that get a chart, the lowest first."""

STARTS = 4
"""Starts of minimisation for each conformer that is kept: low ones are alike, and whitening needs others."""

STRAIGHT = math.radians(170.0)
"""A reference angle above this at a minimum is refused: the thermal motion passes through the straight angle."""


@dataclass(frozen=True)
class Fitted:
    """An atlas fitted to a molecule and the minimised conformers ``(k, atoms, 3)`` nm, the lowest basin's first.

    ``n_basins`` counts those within :data:`WINDOW`, of which at most :data:`MOST_CHARTS` have a chart.
    """

    coordinates: Atlas
    conformers: np.ndarray
    reduced_potentials: np.ndarray
    n_basins: int


@dataclass(frozen=True)
class _Minimum:
    """A minimised conformer: u, positions ``(atoms, 3)``, and its slow and stiff torsions as labelled in one window."""

    u: float
    positions: np.ndarray
    slow: np.ndarray
    stiff: np.ndarray


def fit_coordinates(
    zmatrix: ZMatrix,
    positions: np.ndarray,
    potential: ReducedPotential,
    planar_atoms: tuple[int, ...] = (),
    *,
    conformers: np.ndarray | None = None,
    n_conformers: int = 6,
    seed: int = 0,
) -> Fitted:
    """Fit charts, their centres and whitening, to a molecule.

    The stereo (signs of sibling torsions, cis or trans of stiff torsions) is that of ``positions (atoms, 3)`` in nm.
    Minima are found from the input and from random slow torsions; ``conformers (k, atoms, 3)``, minimised and of the
    same stereo, show further basins. Each basin is whitened by all of its distinct minima; the lowest ``n_conformers``
    are kept.

    Raises
    ------
    InputError
        If no conformer can be minimised to a finite energy or the Hessian is not finite.
    UnsupportedError
        If atoms are in line at a minimum but not in ``positions``, by which the Z-matrix was built.
    """
    rng = np.random.default_rng(seed)
    reference = unfitted_chart(zmatrix, positions, potential, planar_atoms)
    found = _described(reference, potential, np.empty((0, *positions.shape)) if conformers is None else conformers)
    found += _search(reference, potential, positions, STARTS * n_conformers, rng)
    if not found:
        raise InputError("no conformer of the molecule minimises to a finite energy. Check the input structure.")
    for basin in _basins(found)[1:MOST_CHARTS]:
        if reference.n_torsions and len(_distinct(basin)) < 2:
            chart = chart_of_structure(reference.zmatrix, basin[0].positions, planar_atoms)
            found += _search(chart, potential, basin[0].positions, max(1, n_conformers // 2), rng, describe=reference)
    charts, members = [], []
    basins = _basins(found)
    for basin in basins[:MOST_CHARTS]:
        chosen = _distinct(basin)
        stacked = np.stack([minimum.positions for minimum in chosen])
        _check_angles(reference.zmatrix, stacked)
        start = chart_of_structure(reference.zmatrix, chosen[0].positions, planar_atoms)
        charts.append(whitened(start, stacked, potential, planar_atoms))
        members += chosen[:n_conformers]
    return Fitted(
        Atlas(charts),
        np.stack([minimum.positions for minimum in members]),
        np.asarray([minimum.u for minimum in members]),
        len(basins),
    )


def unfitted_chart(
    zmatrix: ZMatrix, positions: np.ndarray, potential: ReducedPotential, planar_atoms: tuple[int, ...] = ()
) -> MolecularCoordinates:
    """A chart centred on one structure ``(atoms, 3)`` nm, not whitened: blocks and rotors are those of fitted ones.

    Takes three energies, and three more for each rotor that the graph has.
    """
    bare = chart_of_structure(zmatrix, positions, planar_atoms)
    rotors = _exact_rotors(bare, positions, potential)
    return chart_of_structure(zmatrix.with_rotors(rotors), positions, planar_atoms)


def _search(
    chart: MolecularCoordinates,
    potential: ReducedPotential,
    positions: np.ndarray,
    n_starts: int,
    rng: np.random.Generator,
    describe: MolecularCoordinates | None = None,
) -> list[_Minimum]:
    """Minima from a structure and from random slow torsions, stiff coordinates at the centres of a chart."""
    start = chart.from_cartesian(torch.as_tensor(positions)[..., None])[0].numpy()
    n_random = n_starts - 1 if chart.n_torsions else 0
    angles = np.concatenate([start, rng.uniform(-math.pi, math.pi, (n_random, chart.n_torsions))])
    return _described(describe or chart, potential, np.stack([minimise_from(chart, potential, row) for row in angles]))


def _described(reference: MolecularCoordinates, potential: ReducedPotential, structures: np.ndarray) -> list[_Minimum]:
    """Structures ``(k, atoms, 3)`` with their energies and torsions, equivalent branches as in the reference."""
    if not len(structures):
        return []
    z = reference.zmatrix
    x = reference.canonical_images(batch_last(structures))
    rigid = [k - 3 for k in range(3, z.n_atoms) if k not in set(z.slow)]
    with torch.no_grad():
        u = potential(x).numpy()
    slow = reference.from_cartesian(x)[0].numpy()
    stiff = reference.geometry.internal(x).torsions[rigid].T.numpy()
    images = x.permute(2, 0, 1).numpy()
    return [_Minimum(float(u[k]), images[k], slow[k], stiff[k]) for k in range(len(u)) if math.isfinite(u[k])]


def _basins(minima: Sequence[_Minimum]) -> list[list[_Minimum]]:
    """Minima by basin, each with the lowest first, whose stiff torsions all others nearly share."""
    basins: list[list[_Minimum]] = []
    for minimum in sorted(minima, key=lambda m: m.u):
        home = next((basin for basin in basins if _apart(basin[0].stiff, minimum.stiff) < SAME_BASIN), None)
        if home is not None:
            home.append(minimum)
        elif not basins or minimum.u < basins[0][0].u + WINDOW:
            basins.append([minimum])
    return basins


def _distinct(basin: Sequence[_Minimum]) -> list[_Minimum]:
    """Those that differ in a slow torsion from all lower ones."""
    chosen: list[_Minimum] = []
    for minimum in basin:
        if all(_apart(other.slow, minimum.slow) > SAME_CONFORMER for other in chosen):
            chosen.append(minimum)
    return chosen


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of angles; 0 of none, which are the same."""
    return float(wrap(torch.as_tensor(a - b)).abs().max()) if len(a) else 0.0


def _check_angles(z: ZMatrix, conformers: np.ndarray) -> None:
    """Refuse reference atoms that are in line at a minimum, where the torsion behind them is undefined.

    If all atoms are, nothing else can be had, and the third atom's bend gives the direction.
    """
    if z.n_atoms > 2 and z.linear[2]:
        return
    bent = np.flatnonzero(~z.linear)
    placed = [(z.atom[k], z.bond[k], z.angle[k]) for k in bent[bent > 2]]
    for a, b, c in placed + [(z.bond[k], z.angle[k], z.torsion[k]) for k in bent[bent > 2]]:
        u, v = conformers[:, a] - conformers[:, b], conformers[:, c] - conformers[:, b]
        angles = np.arctan2(np.linalg.norm(np.cross(u, v), axis=1), (u * v).sum(axis=1))
        if angles.max() > STRAIGHT:
            raise UnsupportedError(
                f"atoms {a + 1}, {b + 1} and {c + 1} are in line at the minimum of the force field but not in the "
                "input. Give a structure in which they are."
            )


def _exact_rotors(
    coordinates: MolecularCoordinates, positions: np.ndarray, potential: ReducedPotential, tolerance: float = 1e-6
) -> tuple[Rotor, ...]:
    """The rotors that are exact by the force field and the stereo, and not only by the graph.

    Images of a distorted structure must have equal energies; the tolerance, relative to the energy, is float64
    rounding. Those of the structure itself must lie in the support of the stiff torsions.
    """
    rng = np.random.default_rng(0)
    distorted = positions + 0.005 * rng.standard_normal((2, *positions.shape))
    x = torch.as_tensor(np.concatenate([positions[None], distorted])).permute(1, 2, 0).contiguous()
    shift = torch.ones(x.shape[-1], dtype=torch.int64)
    with torch.no_grad():
        u = potential(x)
        bound = tolerance * u.abs().clamp(min=1.0)
        images = [(rotor, cycle_image(x, rotor, shift)) for rotor in coordinates.zmatrix.rotors]
        return tuple(
            rotor
            for rotor, image in images
            if bool(((potential(image) - u).abs() < bound).all()) and bool(coordinates.is_in_support(image[..., :1]))
        )
