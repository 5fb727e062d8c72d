"""The coverage probe: challengers under a flow, grouped by joint states, and which states the flow has lost.

::

    challengers = challenge(target, energies, seed, conformers)
    coverage = probe(flow, target, samples.positions, samples.log_weight, challengers, seed=seed)
    [state.name for state in coverage.lost]

A challenger x has ln w = −u(x) − ln q(x). In a state S that exchange has in local equilibrium the mean of ln w is at
least ln Z_S/q(S), so where the median stands less than :data:`LOST` above log Z nothing is lost. Where it stands
higher there are three causes: the flow draws S too rarely; its stiff coordinates are too broad, or too narrow, there;
or the state is so rare that it does not matter, for a short exchange dwells where it was put. They are told apart by
what is defined without any exchange: the weight Z_S of the state, by :mod:`~boltzgen.probe.weight`, the share q(S) of
the flow's draws, and the share that their weights give the state. A state of 1 % of the ensemble is lost if Z_S/Z is
more than e³ times q(S), or if draws come there whose weights nevertheless miss most of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from boltzgen.flow.generator import Generator
from boltzgen.probe.challenge import Challenge
from boltzgen.probe.partition import Partition, find_partition
from boltzgen.probe.weight import weigh_state
from boltzgen.random_streams import Purpose, random_stream
from boltzgen.statistics.bridge import bridge_log_z
from boltzgen.statistics.free_energy import Estimate
from boltzgen.statistics.weights import kish_ess
from boltzgen.target import AnyTarget

LOST = 3.0
"""Nats between ln Z_S/Z and ln q(S) beyond which a state is lost: it is then drawn twenty times too rarely."""

LEAST_SHARE = 0.01
"""Of the ensemble, below which a state is rare: to lose it is told, and is no failure."""

MISSED, SIGMAS = 0.5, 4.0
"""A state is lost, too, if the samples' weights give it less than this share of its weight, by so many errors."""

MOST_WEIGHED = 24
"""States that are weighed, by how often challengers came there."""

FEWEST_STRUCTURES = 4
"""Challengers of a state from which on it is looked at."""

SETTLED_PART = 0.25
"""Share of the challengers of a state, in joint states that were weighed, from which on its weight is told roughly."""

DWELLING = 0.1
"""Share of the challengers from which on a state that was not weighed is suspected; exchange dwells in rare ones."""

ROUGH_ERROR = 2.0
"""Nats by which the weight of a state may be off where the bridge to it hardly holds."""

CHUNK = 512

Kind = Literal["lost", "suspected", "unsettled", "rare", "covered"]


class Density(Protocol):
    """A flow as the probe sees it."""

    def log_prob(self, positions: NDArray) -> NDArray[np.float64]:
        """ln q ``(n,)`` of structures ``(n, sites, components)``; −inf outside the support."""


@dataclass(frozen=True)
class ProbedState:
    """A state that challengers visit where weights are large, and what was found.

    Attributes
    ----------
    name
        By the cuts that tell it from others.
    kind
        ``lost``; ``suspected`` of it, where it could not be weighed and challengers are often there; ``unsettled``
        where they are not; ``rare``, below 1 % of the ensemble; ``covered`` after all: the flow draws it, with weights
        that scatter.
    share
        Z_S/Z, its estimated share of the ensemble; NaN, and no error, where it could not be weighed.
    drawn, weighted
        Its share of the flow's draws, as they are and by their weights.
    visited
        Its share of the challengers, which is no population.
    excess
        Median of ln w of its challengers less log Z, nats; +inf outside the support.
    structures
        Which challengers are in it, the one of the lowest energy first.
    cell
        The number of its state in each part of the partition that tells it; None if it is no state of these.
    """

    name: str
    kind: Kind
    share: Estimate
    drawn: float
    weighted: float
    visited: float
    excess: float
    structures: NDArray[np.intp]
    cell: Mapping[int, int] | None = None


@dataclass(frozen=True)
class ProbeCoverage:
    """What challengers say of a flow.

    Attributes
    ----------
    states
        Those with excess weights, lost ones first, then by their share.
    n_states, n_challengers, n_energies
        Joint states that challengers visit, challengers, and energies in all.
    largest_excess
        Over all joint states, nats.
    log_z, bridged
        Of the flow's samples alone; and of all that is known: by bridge sampling between samples and challengers, plus
        the weights of the states above. No error where that is not determined.
    """

    states: tuple[ProbedState, ...]
    n_states: int
    n_challengers: int
    n_energies: int
    largest_excess: float
    log_z: Estimate
    bridged: Estimate

    def of_kind(self, kind: Kind) -> tuple[ProbedState, ...]:
        """The states of one kind."""
        return tuple(state for state in self.states if state.kind == kind)

    @property
    def lost(self) -> tuple[ProbedState, ...]:
        """The states that the flow has lost."""
        return self.of_kind("lost")


def probe(
    density: Density,
    target: AnyTarget,
    positions: NDArray,
    log_weight: NDArray[np.float64],
    challengers: Challenge,
    *,
    seed: int = 0,
    guide: Generator | None = None,
    most_weighed: int = MOST_WEIGHED,
    bridges: bool = True,
) -> ProbeCoverage:
    """Look at challengers through a flow.

    Parameters
    ----------
    density, target
        The flow, and what it was trained for, in float64; any target if challengers are at hand.
    positions, log_weight
        Samples of the flow ``(n, sites, components)`` with ln w ``(n,)`` = −u − ln q, −inf where an energy failed.
    challengers
        Structures from outside the flow, in equilibrium inside each state.
    guide
        A flow that proposes stiff coordinates where a state is weighed; any, as weights are exact.
    most_weighed
        States that are weighed, at about 75,000 energies each.
    bridges
        Whether ``log_weight`` is that of plain draws of ``density``, as bridge sampling needs it.
    """
    partition = find_partition(target, positions, log_weight, challengers.positions)
    look = _Look(partition, target, positions, log_weight, challengers, _log_weights(density, challengers))
    candidates = look.candidates()
    found: list[ProbedState] = []
    spent = challengers.n_energies
    joint, lumps = candidates
    for number, one in enumerate(joint[:most_weighed], start=1):
        rng = random_stream(Purpose.PROBE, [seed, number])
        weighed = weigh_state(
            look.target,
            challengers.positions[one.structures],
            challengers.chain[one.structures],
            one.contains,
            rng,
            guide,
        )
        spent += weighed.n_energies
        found.append(look.judged(one, weighed.log_z))
    unweighed = Estimate(float("nan"), None)
    found += [look.judged(one, unweighed) for one in joint[most_weighed:] if one.visited >= LEAST_SHARE]
    for one in lumps:
        if not look.is_explained(one, found):
            found.append(look.judged(one, look.rough_log_z(one, found)))
    found += look.outside()
    bridged = look.bridged(found) if bridges else unweighed
    found = look.of_the_whole(found)
    order = {"lost": 0, "suspected": 1, "unsettled": 2, "covered": 3, "rare": 4}
    found.sort(key=lambda state: (order[state.kind], -np.nan_to_num(state.share.value, nan=state.visited)))
    return ProbeCoverage(
        tuple(found),
        look.n_states,
        len(challengers),
        spent,
        look.largest_excess,
        look.log_z,
        bridged,
    )


def _log_weights(density: Density, challengers: Challenge) -> NDArray[np.float64]:
    parts = np.array_split(challengers.positions, max(1, -(-len(challengers) // CHUNK)))
    return -challengers.reduced_potential - np.concatenate([density.log_prob(part) for part in parts])


@dataclass(frozen=True)
class _Candidate:
    """A state by its cell in some parts of a partition."""

    partition: Partition
    parts: tuple[int, ...]
    cell: tuple[int, ...]
    structures: NDArray[np.intp]
    visited: float
    drawn: float
    weighted: float
    excess: float

    def contains(self, positions: NDArray) -> NDArray[np.bool_]:
        return (self.partition(positions)[:, list(self.parts)] == self.cell).all(axis=1)

    @property
    def name(self) -> str:
        return self.partition.name(self.cell, self.parts)


class _Look:
    """Challengers and samples in the states of a partition."""

    def __init__(
        self,
        partition: Partition,
        target: AnyTarget,
        positions: NDArray,
        log_weight: NDArray[np.float64],
        challengers: Challenge,
        log_w: NDArray[np.float64],
    ) -> None:
        self.target, self.challengers, self.log_w = target, challengers, log_w
        self._partition, self._log_weight = partition, log_weight
        self._drawn, self._seen = partition(positions), partition(challengers.positions)
        self._n = len(positions)
        weights = np.exp(log_weight - log_weight.max())
        self._weights, self._ess = weights / weights.sum(), kish_ess(log_weight)
        error = float(weights.std(ddof=1) / weights.mean() / np.sqrt(self._n))
        self.log_z = Estimate(float(logsumexp(log_weight) - np.log(self._n)), error)
        self._several = [k for k, cut in enumerate(partition.cuts) if len(cut.names) > 1] or [0]
        joint = self._cells(tuple(self._several))
        self.n_states = len(joint)
        self.largest_excess = max((one.excess for one in joint), default=float("nan"))
        self._joint = joint

    def candidates(self) -> tuple[list[_Candidate], list[_Candidate]]:
        """Thin states that are not drawn often: joint ones, the most visited first; those of single parts and pairs.

        In a long molecule every joint state is rare; what is lost is then a state of one part or two, in many others.
        """
        singles = [one for k in self._several for one in self._cells((k,))]
        pairs = [one for pair in combinations(self._several, 2) for one in self._cells(pair)]
        # Two parts make a pair the joint state itself, one part a single.
        lumps = (singles if len(self._several) > 1 else []) + (pairs if len(self._several) > 2 else [])
        lumps = [one for one in lumps if one.visited >= LEAST_SHARE]
        thin = [one for one in self._joint if self._is_thin(one)]
        thin.sort(key=lambda one: -one.visited)
        return thin, sorted((one for one in lumps if self._is_thin(one)), key=lambda one: len(one.parts))

    def _is_thin(self, one: _Candidate) -> bool:
        # What is drawn more often than e⁻³ cannot be twenty times too rare.
        return LOST < one.excess < np.inf and one.drawn < np.exp(-LOST) and len(one.structures) >= FEWEST_STRUCTURES

    def _cells(self, parts: tuple[int, ...]) -> list[_Candidate]:
        seen, drawn = self._seen[:, list(parts)], self._drawn[:, list(parts)]
        cells, index = np.unique(np.concatenate([seen, drawn]), axis=0, return_inverse=True)
        index = index.reshape(-1)
        counts = np.bincount(index[len(seen) :], minlength=len(cells))
        weights = np.bincount(index[len(seen) :], self._weights, minlength=len(cells))
        found = []
        for k in np.unique(index[: len(seen)]).tolist():
            members = np.flatnonzero(index[: len(seen)] == k)
            excess = float(np.median(self.log_w[members])) - self.log_z.value
            found.append(
                _Candidate(
                    self._partition,
                    parts,
                    tuple(int(value) for value in cells[k]),
                    members,
                    len(members) / len(seen),
                    float(counts[k]) / self._n,
                    float(weights[k]),
                    excess,
                )
            )
        return found

    def is_explained(self, one: _Candidate, found: list[ProbedState]) -> bool:
        """Whether most structures of a state of parts are in states that were looked at before."""
        before = [state.structures for state in found]
        return bool(before) and float(np.isin(one.structures, np.concatenate(before)).mean()) > 0.5

    def rough_log_z(self, one: _Candidate, found: list[ProbedState]) -> Estimate:
        """ln Z of a state from the joint ones in it that were weighed, as if the rest weighed as much by structure."""
        inside = [
            state
            for state in found
            if state.cell is not None
            and len(state.cell) == len(self._several)
            and all(state.cell.get(part) == value for part, value in zip(one.parts, one.cell, strict=True))
            and np.isfinite(state.share.value)
        ]
        part = sum(len(state.structures) for state in inside) / len(one.structures)
        weight = sum(state.share.value for state in inside)
        if part < SETTLED_PART or not weight > 0.0:
            return Estimate(float("nan"), None)
        return Estimate(self.log_z.value + float(np.log(weight / part)), None)

    def judged(self, one: _Candidate, log_z: Estimate) -> ProbedState:
        """The state with its weight, in units of the flow's Z."""
        log_share = log_z.value - self.log_z.value
        share = Estimate(float("nan"), None)
        if np.isfinite(log_share):
            value = float(np.exp(min(log_share, 700.0)))
            share = Estimate(value, None if log_z.stderr is None else value * log_z.stderr)
        lowest = one.structures[np.argsort(self.challengers.reduced_potential[one.structures], kind="stable")]
        state = ProbedState(
            one.name,
            "covered",
            share,
            one.drawn,
            one.weighted,
            one.visited,
            one.excess,
            lowest,
            dict(zip(one.parts, one.cell, strict=True)),
        )
        return replace(state, kind=self._kind(log_share, log_z.stderr, one))

    def _kind(self, log_share: float, error: float | None, one: _Candidate) -> Kind:
        drawn = np.log((one.drawn * self._n + 0.5) / self._n)
        if not np.isfinite(log_share):
            # Challengers are in a thin state too often, not too seldom.
            if np.log(one.visited) - drawn <= LOST:
                return "covered"
            return "suspected" if one.visited >= DWELLING else "unsettled"
        margin = ROUGH_ERROR if error is None else error
        highest, lowest = log_share + margin, log_share - margin
        if highest < np.log(LEAST_SHARE):
            return "rare"
        if highest - drawn <= LOST and not self._is_missed(log_share, margin, one):
            return "covered"
        sure = error is not None or (lowest >= np.log(LEAST_SHARE) and lowest - drawn > LOST)
        return "lost" if sure else "suspected"

    def _is_missed(self, log_share: float, margin: float, one: _Candidate) -> bool:
        """Whether the weights of the samples contradict the weight of a state, of which they give too little."""
        share = min(1.0, float(np.exp(log_share)))
        error = np.hypot(share * margin, np.sqrt(share * (1.0 - share) / self._ess))
        return bool(one.weighted < MISSED * share and share - one.weighted > SIGMAS * error)

    def outside(self) -> list[ProbedState]:
        """What the coordinates do not reach, if challengers are often there."""
        rows = np.flatnonzero(~np.isfinite(self.log_w))
        visited = len(rows) / len(self.log_w)
        if visited < LEAST_SHARE:
            return []
        rows = rows[np.argsort(self.challengers.reduced_potential[rows], kind="stable")]
        nothing = Estimate(float("nan"), None)
        return [
            ProbedState("outside the support of the coordinates", "suspected", nothing, 0.0, 0.0, visited, np.inf, rows)
        ]

    def of_the_whole(self, found: list[ProbedState]) -> list[ProbedState]:
        """Shares of an ensemble that has the lost states too, not of what the flow knows of it."""
        missed = [state.share.value - state.weighted for state in found if state.kind == "lost"]
        whole = 1.0 + sum(max(0.0, one) for one in missed)

        def of_whole(share: Estimate) -> Estimate:
            return Estimate(share.value / whole, None if share.stderr is None else share.stderr / whole)

        return [replace(state, share=of_whole(state.share)) for state in found]

    def bridged(self, found: list[ProbedState]) -> Estimate:
        """log Z: by bridge sampling in all states but those found, and with the weights of these.

        Exchange dwells where it was put, so the challengers of thin states say nothing of how much there is of them.
        """
        seen, drawn = (np.zeros(len(labels), dtype=bool) for labels in (self._seen, self._drawn))
        log_parts, variances = [], []
        for state in found:
            if state.cell is not None and len(state.cell) < len(self._several) and state.kind != "lost":
                continue  # its joint states count, as far as they are thin
            if state.cell is None or not np.isfinite(state.share.value):
                return Estimate(float("nan"), None)
            parts = list(state.cell)
            seen |= (self._seen[:, parts] == list(state.cell.values())).all(axis=1)
            drawn |= (self._drawn[:, parts] == list(state.cell.values())).all(axis=1)
            if state.share.stderr is None:
                return Estimate(float("nan"), None)
            log_parts.append(self.log_z.value + np.log(state.share.value))
            variances.append((state.share.stderr / state.share.value) ** 2)
        rest = ~seen & np.isfinite(self.log_w)
        if not rest.any():
            return Estimate(float("nan"), None)
        chain = self.challengers.chain[rest]
        of_rest = bridge_log_z(
            np.where(drawn, -np.inf, self._log_weight), self.log_w[rest], chain, float(len(np.unique(chain)))
        )
        if of_rest.stderr is None:
            return of_rest
        logs = np.array([of_rest.value, *log_parts])
        log_z = float(logsumexp(logs))
        shares = np.exp(logs - log_z)
        return Estimate(log_z, float(np.sqrt(np.sum(shares**2 * np.array([of_rest.stderr**2, *variances])))))
