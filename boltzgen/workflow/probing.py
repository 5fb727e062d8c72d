"""The coverage probe of a run: its budget, what it says in words, and as plain values."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boltzgen.analysis.torsions import dihedral
from boltzgen.probe import ProbeCoverage, ProbedState, challenge, probe
from boltzgen.probe.partition import turning_torsions
from boltzgen.probe.result import TROUBLES
from boltzgen.probe.weight import ENERGIES
from boltzgen.statistics.free_energy import Estimate
from boltzgen.statistics.verdict import ProbeCheck
from boltzgen.storage.atomic import open_hdf5
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.trajectory import Frames
from boltzgen.storage.tree import get_tree
from boltzgen.target import Target
from boltzgen.workflow.load import load_drawn, load_weighted
from boltzgen.workflow.stage import Summary, stored_summary

TIME_SHARE = 0.06
"""Of the training's seconds that the probe plans to take, at the cost of an energy that follows: 10 % at most."""

COST, ATOMS, POWER = 6e-6, 22, 1.6
"""Seconds of an energy in dynamics, and of all around it: 6 µs of one core for 22 atoms, growing as this power."""

OVERHEAD = 1.5
"""Cost of a step of dynamics over that of its energy."""

LEAST_ENERGIES = 100_000
"""Also after the shortest training, so that the probe has a say."""

DYNAMICS_SHARE = 0.6
"""Of the energies, for replica exchange; the rest is for the weights of the states it finds."""

FEWEST_WEIGHED, MOST_WEIGHED = 4, 24

UNEXPLAINED = 0.1
"""Nats by which bridge sampling may stand above the flow's log Z where no state is lost; and 4 standard errors."""

SIGMAS = 4.0

BASIN_STRUCTURES = 64
"""Of each lost state, for a training that is to learn it."""


@dataclass(frozen=True)
class ProbeBudget:
    """Energies of replica exchange, and how many states may be weighed."""

    energies: int
    weighed: int

    @classmethod
    def of(cls, seconds: float, history: Mapping[str, Any], n_atoms: int) -> ProbeBudget:
        """From what a training is recorded to have taken, so that the same files give the same probe.

        ``seconds`` it took, and its ``history`` by columns.
        """
        last = {name: float(column[-1]) for name, column in history.items() if len(column)}
        own = last.get("energies", 0.0) - last.get("exchange_energies", 0.0)
        measured = OVERHEAD * last["seconds_energy"] / own if own > 0.0 else 0.0
        energies = max(LEAST_ENERGIES, TIME_SHARE * seconds / max(COST * (n_atoms / ATOMS) ** POWER, measured))
        weighed = int((1.0 - DYNAMICS_SHARE) * energies / ENERGIES)
        return cls(int(DYNAMICS_SHARE * energies), min(max(weighed, FEWEST_WEIGHED), MOST_WEIGHED))


@dataclass(frozen=True)
class Probed:
    """What the probe says of an ensemble: in words, as plain values, and structures of what is lost.

    ``structures (k, atoms, 3)`` nm: one of each lost, suspected and scarce state; ``basins (n, atoms, 3)``: up to
    :data:`BASIN_STRUCTURES` of each.
    """

    check: ProbeCheck
    summary: Summary
    structures: NDArray
    basins: NDArray


def probe_run(directory: RunDirectory, frames: Frames, temperature: float, log_z: Estimate, seed: int) -> Probed:
    """Probe the flow of a run, and its samples at ``temperature`` in K."""
    started = time.monotonic()
    target, density = load_drawn(directory, load_weighted(directory))
    target = Target(target.molecule, target.potential, target.coordinates, temperature)
    training = stored_summary(directory.flow_h5)
    with open_hdf5(directory.system_h5) as file:
        conformers = get_tree(file["conformers"])["positions"]
    with open_hdf5(directory.flow_h5) as file:
        history = get_tree(file["history"])
    budget = ProbeBudget.of(training["seconds"], history, target.molecule.n_atoms)
    challengers = challenge(target, budget.energies, seed, conformers)
    coverage = probe(
        density,
        target,
        frames.positions,
        frames.log_weight,
        challengers,
        seed=seed,
        guide=density.flow,
        most_weighed=budget.weighed,
        bridges=frames.inner == 1 and frames.refine == 0,
    )
    found = [state for kind in TROUBLES for state in coverage.of_kind(kind)]
    structures = np.array([challengers.positions[state.structures[0]] for state in found])
    basins = [challengers.positions[_some(state.structures)] for state in found]
    seconds = time.monotonic() - started
    summary: Summary = {
        "n_challengers": coverage.n_challengers,
        "n_states": coverage.n_states,
        "n_energy_evaluations": coverage.n_energies,
        "seconds": seconds,
        "share_of_training": seconds / training["seconds"] if training["seconds"] else None,
        "largest_excess": coverage.largest_excess if np.isfinite(coverage.largest_excess) else None,
        "states": [_state(state, target, challengers.positions) for state in coverage.states],
        "log_z": log_z.value,
        "bridged_log_z": _bridged(coverage),
        "bridged_log_z_stderr": coverage.bridged.stderr,
        "bridged_sigmas": _sigmas(coverage.bridged, log_z),
    }
    check = ProbeCheck(
        tuple(_in_words(state) for state in coverage.lost),
        tuple(_in_words(state) for state in coverage.of_kind("suspected")),
        tuple(_in_words(state) for state in coverage.of_kind("scarce")),
        _unexplained(coverage, log_z),
    )
    return Probed(check, summary, structures, np.concatenate(basins) if basins else structures)


def _some(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    return rows[np.unique(np.linspace(0, len(rows) - 1, BASIN_STRUCTURES).round().astype(np.intp))]


def _bridged(coverage: ProbeCoverage) -> float | None:
    return None if coverage.bridged.stderr is None else coverage.bridged.value


def _sigmas(bridged: Estimate, log_z: Estimate) -> float | None:
    """Difference in standard errors."""
    if bridged.stderr is None or log_z.stderr is None:
        return None
    return (bridged.value - log_z.value) / float(np.hypot(bridged.stderr, log_z.stderr))


def _unexplained(coverage: ProbeCoverage, log_z: Estimate) -> tuple[str, ...]:
    sigmas = _sigmas(coverage.bridged, log_z)
    difference = coverage.bridged.value - log_z.value
    if coverage.lost or sigmas is None or sigmas < SIGMAS or difference < UNEXPLAINED:
        return ()
    return (
        f"Bridge sampling with the challengers puts log Z {difference:.2f} nats ({sigmas:.1f} standard errors) above "
        "that of the samples, and no state tells why.",
    )


def _state(state: ProbedState, target: Target, positions: NDArray) -> Summary:
    lowest = positions[state.structures[:1]]
    angles = {name: dihedral(lowest, atoms)[0] for name, atoms in turning_torsions(target).items()}
    known = np.isfinite(state.share.value)
    return {
        "state": state.name,
        "kind": state.kind,
        "share": state.share.value if known else None,
        "share_stderr": state.share.stderr,
        "drawn_share": state.drawn,
        "weighted_share": state.weighted,
        "visited_share": state.visited,
        "excess": state.excess if np.isfinite(state.excess) else None,
        "n_structures": len(state.structures),
        "torsions": {name.removeprefix("tor:"): round(float(np.degrees(angle)), 1) for name, angle in angles.items()},
    }


def _in_words(state: ProbedState) -> str:
    if not np.isfinite(state.excess):
        return f"{state.name} ({100 * state.visited:.2g} % of the challengers)"
    weights = f"weights {state.excess:.1f} nats too large"
    if not np.isfinite(state.share.value):
        return f"{state.name} ({100 * state.visited:.2g} % of the challengers, {weights})"
    error = "roughly " if state.share.stderr is None else ""
    spread = "" if state.share.stderr is None else f" ± {100 * state.share.stderr:.1g}"
    share = f"{error}{100 * state.share.value:.2g}{spread} % of the ensemble"
    return (
        f"{state.name} ({share}, {100 * state.drawn:.2g} % of the draws and "
        f"{100 * state.weighted:.2g} % of their weights; {weights})"
    )
