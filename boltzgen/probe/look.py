"""Challengers and samples in the states of a partition: which are thin, and what their weights say of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from boltzgen.probe.challenge import Challenge
from boltzgen.probe.partition import Partition
from boltzgen.probe.result import Kind, ProbedState
from boltzgen.statistics.bridge import bridge_log_z
from boltzgen.statistics.free_energy import Estimate
from boltzgen.statistics.weights import kish_ess
from boltzgen.target import AnyTarget

LOST = 3.0
"""Nats between ln Z_S/Z and ln q(S) beyond which a state is lost: it is then drawn twenty times too rarely."""

LEAST_SHARE = 0.01
"""Of the ensemble, below which a state is rare: to lose it is told, and is no failure."""

PART = 0.2
"""Share of the challengers of a state whose weights are e⁶ times too large, from which on it is looked at as well."""

MISSED, SIGMAS = 0.75, 4.0
"""A state is lost, too, if the samples' weights give it less than this share of its weight, by so many errors."""

SCARCE = 5.0
"""Times that the weights of the draws in a state exceed those of others on average, beyond which it is scarce."""

FEWEST_STRUCTURES = 4
"""Challengers of a state from which on it is looked at."""

SETTLED_PART = 0.25
"""Share of the challengers of a state, in joint states that were weighed, from which on its weight is told roughly."""

DWELLING = 0.1
"""Share of the challengers from which on a state that was not weighed is suspected; exchange dwells in rare ones."""

ROUGH_ERROR = 2.0
"""Nats by which the weight of a state may be off where the bridge to it hardly holds."""


@dataclass(frozen=True)
class Candidate:
    """A state by its ``cell`` in some ``parts`` of a partition, with its challengers and the figures of ProbedState."""

    partition: Partition
    parts: tuple[int, ...]
    cell: tuple[int, ...]
    structures: NDArray[np.intp]
    visited: float
    drawn: float
    weighted: float
    weighted_error: float
    excess: float

    def contains(self, positions: NDArray) -> NDArray[np.bool_]:
        """Whether structures ``(n, sites, components)`` are in it, ``(n,)``."""
        return (self.partition(positions)[:, list(self.parts)] == self.cell).all(axis=1)

    @property
    def name(self) -> str:
        """By the cuts that tell it."""
        return self.partition.name(self.cell, self.parts)


class Look:
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
        self._singles = [one for k in self._several for one in self._cells((k,))] if len(self._several) > 1 else []

    def candidates(self) -> tuple[list[Candidate], list[Candidate]]:
        """Thin states: joint ones, the most visited first; those of single parts and of pairs.

        In a long molecule every joint state is rare; what is lost is then a state of one part or two, in many others.
        """
        pairs = [one for pair in combinations(self._several, 2) for one in self._cells(pair)]
        # Two parts make a pair the joint state itself, one part a single.
        lumps = self._singles + (pairs if len(self._several) > 2 else [])
        lumps = [one for one in lumps if one.visited >= LEAST_SHARE]
        thin = [one for one in self._joint if self._is_thin(one)]
        thin.sort(key=lambda one: -one.visited)
        return thin, sorted((one for one in lumps if self._is_thin(one)), key=lambda one: len(one.parts))

    def _is_thin(self, one: Candidate) -> bool:
        if len(one.structures) < FEWEST_STRUCTURES or not np.isfinite(one.excess):
            return False
        # A part of a state may be lost that its median does not show.
        of_part = np.quantile(self.log_w[one.structures], 1.0 - PART) - self.log_z.value
        return bool(one.excess > LOST or of_part > 2.0 * LOST)

    def _cells(self, parts: tuple[int, ...]) -> list[Candidate]:
        seen, drawn = self._seen[:, list(parts)], self._drawn[:, list(parts)]
        cells, index = np.unique(np.concatenate([seen, drawn]), axis=0, return_inverse=True)
        index = index.reshape(-1)
        counts = np.bincount(index[len(seen) :], minlength=len(cells))
        own = index[len(seen) :]
        weights = np.bincount(own, self._weights, minlength=len(cells))
        # Of a weighted mean: Σ w² (1_S − share)².
        squares = np.bincount(own, self._weights**2, minlength=len(cells))
        errors = np.sqrt(squares * (1.0 - 2.0 * weights) + weights**2 * squares.sum())
        found = []
        for k in np.unique(index[: len(seen)]).tolist():
            members = np.flatnonzero(index[: len(seen)] == k)
            excess = float(np.median(self.log_w[members])) - self.log_z.value
            found.append(
                Candidate(
                    self._partition,
                    parts,
                    tuple(int(value) for value in cells[k]),
                    members,
                    len(members) / len(seen),
                    float(counts[k]) / self._n,
                    float(weights[k]),
                    float(errors[k]),
                    excess,
                )
            )
        return found

    def scarce(self, found: list[ProbedState]) -> list[ProbedState]:
        """States of 1 % and more that by the samples' own weights are drawn far too rarely, if nothing is worse there.

        Their figures are right on average, but rest on few draws, and what lies beside them may not be drawn at all.
        """
        told = [state.structures for state in found if state.kind in ("lost", "suspected")]
        worse = np.concatenate(told) if told else np.zeros(0, dtype=np.intp)
        scarce = []
        for one in [*self._joint, *self._singles]:
            sure = one.weighted - 2.0 * one.weighted_error > SCARCE * one.drawn
            if one.weighted >= LEAST_SHARE and sure and not np.isin(one.structures, worse).any():
                state = self.judged(one, Estimate(float("nan"), None))
                share = Estimate(one.weighted, one.weighted_error)
                scarce.append(replace(state, kind="scarce", share=share))
                worse = np.concatenate([worse, one.structures])
        return scarce

    def is_explained(self, one: Candidate, found: list[ProbedState]) -> bool:
        """Whether most structures of a state of parts are in states that were looked at before."""
        before = [state.structures for state in found]
        return bool(before) and float(np.isin(one.structures, np.concatenate(before)).mean()) > 0.5

    def rough_log_z(self, one: Candidate, found: list[ProbedState]) -> Estimate:
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

    def judged(self, one: Candidate, log_z: Estimate) -> ProbedState:
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

    def _kind(self, log_share: float, error: float | None, one: Candidate) -> Kind:
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
        # A rough weight is no reason to doubt what is drawn about as often as it says.
        often = log_share + min(margin, 1.0) - drawn <= LOST
        if often and not self._is_missed(log_share, margin, one):
            return "covered"
        sure = error is not None or (lowest >= np.log(LEAST_SHARE) and lowest - drawn > LOST)
        return "lost" if sure else "suspected"

    def _is_missed(self, log_share: float, margin: float, one: Candidate) -> bool:
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

        shared = [replace(state, share=of_whole(state.share)) for state in found]
        return [replace(state, kind="rare") if _is_rare(state) else state for state in shared]

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


def _is_rare(state: ProbedState) -> bool:
    """Whether a state that seemed lost holds less than 1 % of an ensemble with all that is lost in it."""
    share = state.share
    return state.kind == "lost" and share.value + (share.stderr or 0.0) < LEAST_SHARE
