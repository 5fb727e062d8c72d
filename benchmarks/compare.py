"""Populations of a run beside those of a reference by replica exchange, with z-scores.

    python benchmarks/compare.py glycerol.run reference.npz
    python benchmarks/compare.py alanine_dipeptide.run openmm.npz --blocks 4

For every state of every torsion, the Ramachandran basins of peptides and all joint states of at least 1 %: both
populations with their standard errors, and the difference in units of the combined error. Both ensembles are cut alike:
as ``analysis.h5`` says, and where it has no cuts for a torsion, or the reference shows more wells, on the barriers of
the reference. Frames outside the flow's support are left out, counted and named. Exits with 1 if any |z| exceeds 4.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from reference import Reference, ring_torsions

from boltzgen.analysis.cuts import Angles, Cut, basin_cuts, finer, joint, positive_phi_cuts, well_cuts
from boltzgen.analysis.states import TorsionStates, find_states
from boltzgen.analysis.torsions import dihedral
from boltzgen.statistics.free_energy import Estimate, weighted_probabilities
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.trajectory import read_molecule, read_trajectory
from boltzgen.storage.tree import get_tree

INDEPENDENT = 20_000
"""Frames of the reference among which wells are looked for: neighbouring frames are correlated, and noise is judged by
their number."""


@dataclass(frozen=True)
class Partition:
    """Names of states, and the state of each frame of the flow ``(n,)`` and of the reference ``(chains, frames)``."""

    title: str
    names: tuple[str, ...]
    flow: np.ndarray
    reference: np.ndarray


@dataclass(frozen=True)
class Compared:
    """Population of one state in both ensembles; z is None where the weights of the flow support no error bar."""

    title: str
    flow: Estimate
    reference: Estimate
    z: float | None


def cuts_for(
    torsions: Mapping[str, tuple[int, ...]], reference: Reference, stored: Mapping[str, Any]
) -> tuple[list[Cut], list[Cut]]:
    """Cuts that make up joint states, and others (φ > 0), which are unions of theirs."""
    torsions = {name: atoms for name, atoms in torsions.items() if name in reference.torsions}

    def wells(name: str) -> TorsionStates:
        title = name.removeprefix("tor:")
        known = TorsionStates.from_tree(stored[title]["states"]) if title in stored else None
        return common_states(title, known, reference.torsions[name][reference.outside == 0])

    return basin_cuts(torsions) + well_cuts(torsions, wells), positive_phi_cuts(torsions)


def partitions(cuts: list[Cut], flow: Angles, reference: Reference) -> list[Partition]:
    """Both ensembles in the states of each cut."""
    return [Partition(cut.title, cut.names, cut(flow), cut(reference.torsions)) for cut in cuts]


def common_states(title: str, stored: TorsionStates | None, angles: np.ndarray) -> TorsionStates:
    """Stored states, unless the reference shows wells that they do not tell apart."""
    thinned = angles[:: max(1, angles.size // INDEPENDENT)]
    seen = find_states(thinned, np.zeros(thinned.size))
    chosen = finer(stored, seen)
    if stored is not None and chosen is seen:
        print(
            f"{title}: analysis.h5 has {', '.join(stored.names)}; cut as the reference has it: {', '.join(seen.names)}"
        )
    return chosen


def joint_states(parts: list[Partition], reference: Reference, weights: np.ndarray, least: float) -> Partition:
    """Joint states with a share of at least ``least`` in either ensemble; the rest is the first state."""
    states, (flow, seen) = joint([part.flow for part in parts], [part.reference for part in parts])
    n = len(states)
    shares = np.bincount(flow, weights, n), np.bincount(seen[reference.outside == 0], minlength=n)
    frequent = np.flatnonzero(np.max([share / share.sum() for share in shares], axis=0) >= least)
    index = np.zeros(n, dtype=int)
    index[frequent] = 1 + np.arange(len(frequent))
    names = [" ".join(part.names[k] for part, k in zip(parts, states[i], strict=True)) for i in frequent]
    return Partition("", ("the rest", *names), index[flow], index[seen])


def compared(part: Partition, log_w: np.ndarray, reference: Reference) -> list[Compared]:
    """All states of one partition, but those that neither ensemble visits, or both never leave."""
    rows = []
    estimates = weighted_probabilities(part.flow, len(part.names), log_w, np.random.default_rng(0))
    for k, (name, estimate) in enumerate(zip(part.names, estimates, strict=True)):
        value, error = reference.population(part.reference == k)
        if value in (0.0, 1.0) and abs(estimate.value - value) < 1e-12:
            continue
        # A state that the flow never visits has no error of its own: the reference's decides.
        own = 0.0 if estimate.value == 0.0 else estimate.stderr
        z = None if own is None else float((estimate.value - value) / np.hypot(own, error))
        title = f"{part.title}:{name}" if part.title else name
        rows.append(Compared(title, Estimate(estimate.value, own), Estimate(value, error), z))
    return rows


def table(part: Partition, log_w: np.ndarray, reference: Reference) -> list[float]:
    """Print the rows of one partition; returns each z, but where the weights of the run support no error bar."""
    rows = compared(part, log_w, reference)
    for row in rows:
        flow = f"{row.flow.value:.5f} ± " + ("-      " if row.flow.stderr is None else f"{row.flow.stderr:.5f}")
        seen = f"{row.reference.value:.5f} ± {row.reference.stderr:.5f}"
        print(f"{row.title:<44} {flow}   {seen} {'-' if row.z is None else f'{row.z:.2f}':>7}")
    return [row.z for row in rows if row.z is not None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("reference", type=Path, help="npz file of training.py reference or replica_exchange.py")
    parser.add_argument("--blocks", type=int, default=1, help="blocks of each chain, for errors from few chains")
    parser.add_argument("--least", type=float, default=0.01, help="smallest share of a joint state that is shown")
    arguments = parser.parse_args()
    directory = RunDirectory(arguments.run)
    reference = Reference.load(arguments.reference).in_blocks(arguments.blocks)
    molecule, frames = read_molecule(directory.ensemble_h5), read_trajectory(directory.ensemble_h5)
    with h5py.File(directory.analysis_h5) as file:
        temperature = float(file["boltzgen"].attrs["temperature"])
        stored = get_tree(file["analysis/torsions"])
    if abs(temperature - reference.temperature) > 0.01:
        parser.error(f"the run is at {temperature:g} K, the reference at {reference.temperature:g} K.")
    torsions = molecule.torsions | ring_torsions(molecule)
    angles = {name: dihedral(frames.positions, atoms) for name, atoms in torsions.items()}
    parts, others = (partitions(cuts, angles, reference) for cuts in cuts_for(torsions, reference, stored))
    print(reference.left_out())
    several = [part for part in parts if len(part.names) > 1]
    single = [f"{part.title} ({part.names[0]})" for part in parts if len(part.names) == 1]
    if single:
        print(f"one state in both: {', '.join(single)}")
    print(f"\n{'state':<44} {'flow':<18}   {'replica exchange':<17} {'z':>7}")
    scores = [z for part in (*others, *several) for z in table(part, frames.log_weight, reference)]
    if len(several) > 1:
        weights = np.exp(frames.log_weight - frames.log_weight.max())
        print(f"\njoint states of {', '.join(part.title for part in several)}")
        scores += table(joint_states(several, reference, weights, arguments.least), frames.log_weight, reference)
    if not scores:
        print("\nno z: one state each, or weights that support no error bars")
        return 0
    worst = max(map(abs, scores))
    print(f"\nlargest |z| {worst:.2f}")
    return int(worst > 4.0)


if __name__ == "__main__":
    sys.exit(main())
