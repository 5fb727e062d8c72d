"""The coverage probe: challengers under a flow, grouped by joint states, and which states the flow has lost.

::

    challengers = challenge(target, energies, seed, conformers)
    coverage = probe(flow, target, samples.positions, samples.log_weight, challengers, seed=seed)
    [state.name for state in coverage.lost]

A challenger x has ln w = −u(x) − ln q(x). In a state S that exchange has in local equilibrium the mean of ln w is at
least ln Z_S/q(S), so where the median stands less than 3 nats above log Z it is drawn. Where it stands higher,
or does so in a part of the state, there are three causes: the flow draws S, or a part of it, too rarely; its stiff
coordinates are too broad, or too narrow, there; or the state is so rare that it does not matter, for a short exchange
dwells where it was put. They are told apart by what is defined without any exchange: the weight Z_S of the state, by
:mod:`~boltzgen.probe.weight`, the share q(S) of the flow's draws, and the share that their weights give the state. A
state of 1 % of the ensemble is lost if Z_S/Z is more than e³ times q(S), or if draws come there whose weights
nevertheless miss a part of it.
"""

from __future__ import annotations

from typing import Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from boltzgen.flow.generator import Generator
from boltzgen.probe.challenge import Challenge
from boltzgen.probe.look import LEAST_SHARE, Look
from boltzgen.probe.partition import find_partition
from boltzgen.probe.result import Kind, ProbeCoverage, ProbedState
from boltzgen.probe.weight import weigh_state
from boltzgen.random_streams import Purpose, random_stream
from boltzgen.statistics.free_energy import Estimate
from boltzgen.target import AnyTarget

MOST_WEIGHED = 24
"""States that are weighed, by how often challengers came there."""

CHUNK = 512


class Density(Protocol):
    """A flow as the probe sees it."""

    def log_prob(self, positions: NDArray) -> NDArray[np.float64]:
        """ln q ``(n,)`` of structures ``(n, sites, components)``; −inf outside the support."""


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
    look = Look(partition, target, positions, log_weight, challengers, _log_weights(density, challengers))
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
            state = look.judged(one, look.rough_log_z(one, found))
            found += [state] if state.kind in ("suspected", "unsettled") else []
    found += look.outside()
    bridged = look.bridged(found) if bridges else unweighed
    found = look.of_the_whole(found) + look.scarce(found)
    order = get_args(Kind)
    found.sort(key=lambda state: (order.index(state.kind), -np.nan_to_num(state.share.value, nan=state.visited)))
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
