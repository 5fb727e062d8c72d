"""States of a reference that a generator has lost: where its frames carry far more weight than samples do.

A frame x of the equilibrium ensemble has the log-weight ln w = −u(x) − ln q(x), and samples of q have ln ⟨w⟩ = log Z.
Where the median of ln w over the frames of a state stands Δ nats above log Z, the state is drawn about e^Δ times too
rarely. That needs no sample of the flow in the state, so that it sees what weights of samples cannot. States are joint
ones of all torsions: every torsion alone may look right where a combination is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boltzgen.analysis.cuts import joint
from boltzgen.simulation import Simulation
from boltzgen.statistics.agreement import chain_mean, forward_ess
from boltzgen.statistics.correlated import chain_population
from boltzgen.statistics.free_energy import Estimate

LEAST_SHARE = 0.01
"""Of the reference, from which on a state is looked at."""

LOST = 3.0
"""Nats by which the median weight of a state may exceed the mean: it is then drawn twenty times too rarely."""

FRAMES_PER_STATE = 200

EVEN_FRAMES = 2000
"""Frames of all states alike, evenly spaced in time, for averages and for the states of single torsions."""

EVERYTHING = "all frames"
OUTSIDE = "outside the support of the coordinates"


@dataclass(frozen=True)
class Part:
    """States of one torsion, plane or ring in both ensembles: names, and indices into them.

    ``flow (n,)`` of samples, ``reference (W, F)`` of frames at the run's temperature.
    """

    names: tuple[str, ...]
    flow: NDArray[np.intp]
    reference: NDArray[np.intp]


@dataclass(frozen=True)
class CoveredState:
    """A state of the reference, and how well the flow draws it.

    Attributes
    ----------
    name
        States of the torsions that make it up.
    share
        Of the reference.
    flow
        Share of the samples, as they were drawn.
    excess
        Median of ln w of its frames less log Z, nats; +inf where the coordinates do not reach them.
    n_frames
        Frames behind the median.
    frame
        Ladder and number of the frame of the lowest energy among them.
    """

    name: str
    share: Estimate
    flow: float
    excess: float
    n_frames: int
    frame: tuple[int, int]

    @property
    def is_lost(self) -> bool:
        """Whether the flow draws it far too rarely."""
        return self.excess > LOST


@dataclass(frozen=True)
class Coverage:
    """All that frames of the reference say of the flow.

    Attributes
    ----------
    states
        Joint states of at least :data:`LEAST_SHARE` of the reference, the worst first.
    lost
        Those that are lost; then lost states of single torsions that no lost joint state is part of, and what lies
        outside the support.
    joint_share
        Share of the reference in ``states``.
    outside
        Share outside the support of the coordinates, which averages leave out.
    forward_ess
        Effective share of the flow's samples, seen from the reference.
    eubo
        ⟨ln w⟩ over frames of the reference, nats: the evidence upper bound of log Z.
    """

    states: tuple[CoveredState, ...]
    lost: tuple[CoveredState, ...]
    joint_share: float
    outside: float
    forward_ess: Estimate
    eubo: Estimate


def find_lost_states(
    simulation: Simulation,
    parts: Sequence[Part],
    log_weight: Callable[[NDArray], NDArray[np.float64]],
    log_z: float,
    seed: int = 0,
) -> Coverage:
    """Look at the frames of a reference through the weights ``log_weight(positions (n, atoms, 3)) -> (n,)``.

    Frames that left the configuration of the input are passed over: a flow keeps it.
    """
    kept = simulation.kept[..., 0]
    whole = Part((EVERYTHING,), np.zeros(1, np.intp), np.zeros(kept.shape, np.intp))
    several = [part for part in parts if len(part.names) > 1] or [whole]
    cells, [seen, drawn] = joint([part.reference for part in several], [part.flow for part in several])
    look = _Look(simulation, log_z)
    rng = np.random.default_rng(seed)
    shares = np.bincount(seen[kept], minlength=len(cells)) / np.count_nonzero(kept)
    states = []
    for k in np.flatnonzero(shares >= LEAST_SHARE).tolist():
        places = np.argwhere((seen == k) & kept)
        places = places[rng.permutation(len(places))[:FRAMES_PER_STATE]]
        name = ", ".join(part.names[i] for part, i in zip(several, cells[k], strict=True))
        log_w = log_weight(look.positions(places))
        states.append((cells[k], look.state(name, seen == k, float(np.mean(drawn == k)), places, log_w)))
    states.sort(key=lambda pair: -pair[1].excess)
    lost = [one for _, one in states if one.is_lost]

    places = np.argwhere(kept)
    places = places[np.unique(np.linspace(0, len(places) - 1, EVEN_FRAMES).round().astype(np.intp))]
    log_w = log_weight(look.positions(places))
    inside = np.isfinite(log_w)
    singles = []
    for column, part in enumerate(several):
        told = {cell[column] for cell, one in states if one.is_lost}
        labels = part.reference[places[:, 0], places[:, 1]]
        frequent = np.flatnonzero(np.bincount(labels) >= LEAST_SHARE * len(labels)).tolist()
        for k in (state for state in frequent if state not in told):
            mask, here = part.reference == k, labels == k
            singles.append(look.state(part.names[k], mask, float(np.mean(part.flow == k)), places[here], log_w[here]))
    lost += sorted((one for one in singles if one.is_lost), key=lambda one: -one.excess)
    outside = chain_mean(~inside, places[:, 0])
    if outside.value >= LEAST_SHARE and not any(np.isinf(one.excess) for one in lost):
        lost.append(look.outside(places[~inside], outside))
    none = Estimate(float("nan"), None)
    return Coverage(
        tuple(one for _, one in states),
        tuple(lost),
        float(sum(one.share.value for _, one in states)),
        outside.value,
        forward_ess(log_w[inside], places[inside, 0]) if inside.any() else none,
        chain_mean(log_w[inside], places[inside, 0]) if inside.any() else none,
    )


class _Look:
    """Frames of a simulation at the run's temperature by their places ``(n, 2)``: ladder and number in it."""

    def __init__(self, simulation: Simulation, log_z: float) -> None:
        self._simulation, self._log_z = simulation, log_z
        self._kept = simulation.kept[..., 0]

    def positions(self, places: NDArray[np.intp]) -> NDArray:
        return self._simulation.positions[places[:, 0], places[:, 1]]

    def state(
        self, name: str, mask: NDArray[np.bool_], flow: float, places: NDArray[np.intp], log_w: NDArray[np.float64]
    ) -> CoveredState:
        """The state of the frames ``mask (W, F)``, judged by those at ``places`` with ``log_w (n,)``."""
        share, excess = chain_population(mask, self._kept), float(np.median(log_w)) - self._log_z
        return CoveredState(name, share, flow, excess, len(places), self._lowest(places))

    def outside(self, places: NDArray[np.intp], share: Estimate) -> CoveredState:
        return CoveredState(OUTSIDE, share, 0.0, float("inf"), len(places), self._lowest(places))

    def _lowest(self, places: NDArray[np.intp]) -> tuple[int, int]:
        ladder, number = places[np.argmin(self._simulation.energies[places[:, 0], places[:, 1], 0])]
        return int(ladder), int(number)
