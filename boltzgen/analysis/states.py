"""States of a torsion: the wells of its free energy between barriers, with names, and cuts that can be kept.

::

    states = find_states(angle, log_w)   # where the barriers are, in a weighted ensemble
    states.assign(other_angle)           # the same states in any other trajectory
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boltzgen.statistics.weights import normalized_weights

LEAST_BARRIER = 1.0
"""Height in kT above the bottom of a well, on its lower side, from which a maximum of the free energy parts states."""

LEAST_SIGNIFICANCE = 4.0
"""Standard errors by which the density in a well exceeds that on its barrier; less is noise, and no well."""

LARGEST_WEIGHT = 10.0
"""What larger weights are cut to when wells are looked for, in units of the mean weight: one heavy sample would drown
a well of hundreds in its own noise. Populations use the weights as they are."""

BANDWIDTH = 5.0
"""Standard deviation of the kernel in degrees: below the width of any well of a bond that turns at room temperature."""

FREE = "free"
"""Name of the one state of a torsion without an established barrier."""

_RANGES = (
    (30.0, "sp"),
    (80.0, "sc"),
    (100.0, "c"),
    (150.0, "ac"),
    (180.0, "ap"),
)


@dataclass(frozen=True)
class TorsionStates:
    """Named states of one torsion that tile the circle.

    Attributes
    ----------
    names
        One name for each state.
    edges
        (k,) degrees in [-180, 180), in the order of the names and rising around the circle: state i is
        ``[edges[i], edges[i + 1])``, over ±180° where the second is the smaller, and the last one ends at the first
        edge. A single state is the whole circle.
    minima
        (k,) degrees in [-180, 180), where the free energy of each state is lowest.
    """

    names: tuple[str, ...]
    edges: NDArray[np.float64]
    minima: NDArray[np.float64]

    def assign(self, angle: ArrayLike) -> NDArray[np.intp]:
        """State of each angle, an index into ``names``, for radians in any period."""
        turned = np.mod(np.degrees(np.asarray(angle, dtype=np.float64)) - self.edges[0], 360.0)
        return np.searchsorted(np.mod(self.edges - self.edges[0], 360.0), turned, side="right") - 1

    def to_tree(self) -> dict[str, Any]:
        """Names and degrees, to be stored."""
        return {"names": list(self.names), "edges": self.edges, "minima": self.minima}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> TorsionStates:
        """Build from what :meth:`to_tree` returned."""
        return cls(tuple(tree["names"]), np.asarray(tree["edges"]), np.asarray(tree["minima"]))


def find_states(angle: ArrayLike, log_w: ArrayLike) -> TorsionStates:
    """States of a torsion in a weighted ensemble: wells of its free energy, cut on the barriers between them.

    The density p is a sum of Gaussian kernels of :data:`BANDWIDTH` on a grid of 1°, with weights cut to
    :data:`LARGEST_WEIGHT`; F = -ln p. A well is a state if on its lower side the barrier stands :data:`LEAST_BARRIER`
    above its bottom (its topological persistence), and the densities at bottom and barrier differ by
    :data:`LEAST_SIGNIFICANCE` standard errors, p₁ - p₂ > z (Σ w² (K₁² + K₂²))^½: neither ripples nor a few heavy
    weights make a state. Of the wells that fail, the shallowest goes to its neighbour over the lower barrier, until
    none fails. Cuts are where F is highest between two bottoms. A torsion whose only well fails too is ``free``.

    Names are those of Klyne and Prelog (IUPAC 1996, *torsion angle*) for the bottom of the well: ``sp`` within 30° of
    0 (cis), ``+sc`` to 90° (gauche), ``+ac`` to 150°, ``ap`` beyond (trans), ``-ac``, ``-sc``. Within 10° of ±90°,
    where rings stand across a bond by symmetry and noise would choose between the two, it is ``+c`` or ``-c``,
    clinal, their common name. States of one name get the angle: ``sp(20)``, ``sp(-20)``.

    The cuts depend on the ensemble, and are settled before errors are estimated: to compare with another
    ensemble, keep them and call :meth:`TorsionStates.assign`.

    Parameters
    ----------
    angle, log_w
        (n,) radians in any period, and log-weights.

    Raises
    ------
    ValueError
        If lengths differ or log-weights are invalid.
    """
    weights = normalized_weights(log_w)
    weights = np.minimum(weights, LARGEST_WEIGHT / weights.size)
    cell = np.rint(np.degrees(np.asarray(angle, dtype=np.float64))).astype(np.intp) % 360
    if cell.shape != weights.shape:
        raise ValueError(f"angles {cell.shape} and log-weights {weights.shape} differ in shape.")
    distance = np.abs(np.arange(-180, 180))
    kernel = np.roll(np.exp(-0.5 * (distance / BANDWIDTH) ** 2), -180)
    kernels = kernel[np.arange(360)[:, None] - np.arange(360)]
    # A sum of positive terms, not a Fourier transform: p keeps its digits, and its minimum, where it is 1e-200.
    density = kernels @ np.bincount(cell, weights, 360)
    variance = kernels**2 @ np.bincount(cell, weights**2, 360)
    bottoms, barriers, found = _wells(density, variance)
    degrees = np.mod(np.arange(360.0) + 180.0, 360.0) - 180.0
    # Each well begins at the barrier before it. States go by their bottoms from -150°, so that one near ±180° is last.
    edges, minima = degrees[np.roll(barriers, 1)], degrees[bottoms]
    order = np.argsort(np.mod(minima + 150.0, 360.0))
    names = _names(minima[order]) if found else (FREE,)
    return TorsionStates(names, edges[order], minima[order])


def _wells(
    density: NDArray[np.float64], variance: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp], bool]:
    """Cells of the bottoms of all wells and of the barrier behind each, and whether they are established.

    One well is left where none is.
    """
    rises = density > np.roll(density, 1)
    bottoms = np.flatnonzero(rises & (density >= np.roll(density, -1)))
    if bottoms.size == 0:
        bottoms = np.array([np.argmax(density)])
    while True:
        barriers = np.array(
            [_barrier(density, a, b) for a, b in zip(bottoms.tolist(), np.roll(bottoms, -1).tolist(), strict=True)]
        )
        before = np.roll(barriers, 1)
        lower = np.where(density[before] > density[barriers], before, barriers)
        heights = np.log(density[bottoms]) - np.log(density[lower])
        noise = np.sqrt(variance[bottoms] + variance[lower])
        clear = density[bottoms] - density[lower] > LEAST_SIGNIFICANCE * noise
        failing = ~((heights > LEAST_BARRIER) & clear)
        if bottoms.size == 1 or not failing.any():
            return bottoms, barriers, not failing.any()
        bottoms = np.delete(bottoms, np.argmin(np.where(failing, heights, np.inf)))


def _barrier(density: NDArray[np.float64], start: int, end: int) -> int:
    """Cell of lowest density on the way up from one bottom to the next, which may be the same after a full turn."""
    cells = np.arange(start, start + (end - start - 1) % 360 + 2) % 360
    return int(cells[np.argmin(density[cells])])


def _names(minima: NDArray[np.float64]) -> tuple[str, ...]:
    names = [_klyne_prelog(angle) for angle in minima]
    count = Counter(names)
    return tuple(f"{name}({angle:.0f})" if count[name] > 1 else name for name, angle in zip(names, minima, strict=True))


def _klyne_prelog(degrees: float) -> str:
    name = next(name for limit, name in _RANGES if abs(degrees) <= limit)
    return name if name in ("sp", "ap") else f"{'+' if degrees > 0 else '-'}{name}"
