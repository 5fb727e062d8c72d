"""What replica exchange says of the ensemble: populations, what they are worth, and whether to trust them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boltzgen.analysis.partitions import own_states, state_masks
from boltzgen.analysis.states import TorsionStates, find_states
from boltzgen.analysis.surfaces import RING_SHAPE
from boltzgen.constants import thermal_energy
from boltzgen.simulation import Simulation
from boltzgen.statistics.correlated import (
    FEWEST_CHAINS,
    chain_inefficiencies,
    chain_population,
    chain_ratio,
    pooled_inefficiency,
    split_rhat,
)
from boltzgen.statistics.free_energy import Estimate
from boltzgen.statistics.mbar import MbarWeights, mbar

MOST_MBAR_FRAMES = 10_000
"""Of all temperatures together: MBAR then takes seconds."""

LARGEST_RHAT = 1.1
"""R̂ above which ladders disagree: below about five independent frames a ladder."""

LEAST_SHARE = 0.01
"""Population of a state from which on ladders have to agree about it."""

LEAST_FRAMES = 50
"""Frames a ladder below which agreement says nothing."""

MOST_FAILED = 0.1
"""Share of the ladders that may fail."""

ENERGY = "energy"


@dataclass(frozen=True)
class Correlation:
    """Statistical inefficiency of an observable in ps, pooled and of each ladder, and the frames it makes effective."""

    picoseconds: float
    effective: float
    of_ladders: NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """A state's share of the frames at the run's temperature, and by MBAR of all temperatures.

    ``asymptotic`` is MBAR's own error, which takes frames for independent; the errors of both estimates are from the
    scatter of ladders. None where undetermined.
    """

    counted: Estimate
    mbar: Estimate | None
    asymptotic: float | None

    @property
    def effective(self) -> float | None:
        """Independent frames that would give as small an error, p(1 − p)/σ²."""
        p, error = self.counted.value, self.counted.stderr
        return p * (1.0 - p) / error**2 if error else None


@dataclass(frozen=True)
class Equilibrium:
    """All numbers of the analysis of a simulation.

    Attributes
    ----------
    correlations
        By torsion (the slower of its sine and cosine), ring shape, and ``energy``; without those that never vary.
    states
        Cuts of the torsions outside Ramachandran planes, by name.
    populations
        By state, as ``analyze`` names them, over frames with the configuration of the input.
    kept_share
        Share of those frames.
    mbar_frames, mbar_effective
        Frames of all temperatures that went into MBAR, and how many at the run's temperature they are worth.
    reasons
        Why the simulation has not converged; empty where nothing speaks against it.
    """

    correlations: dict[str, Correlation]
    states: dict[str, TorsionStates]
    populations: dict[str, Population]
    kept_share: float
    mbar_frames: int
    mbar_effective: float | None
    reasons: tuple[str, ...]

    @property
    def slowest(self) -> str | None:
        """The observable with the fewest effective frames."""
        return min(self.correlations, key=lambda name: self.correlations[name].effective, default=None)

    @property
    def effective(self) -> float | None:
        """Its effective frames."""
        return None if self.slowest is None else self.correlations[self.slowest].effective


def analyze_simulation(
    simulation: Simulation, n_shapes: int, round_trips: int, n_failed_ladders: int = 0
) -> Equilibrium:
    """Analyse ladders, with what is known of those that were left out and of the trips between temperatures."""
    kept = simulation.kept[..., 0]
    if not kept.any():
        raise ValueError("no frame has the configuration of the input.")
    angles = {name: series[..., 0] for name, series in simulation.torsions.items()}
    correlations = _correlations(simulation, angles, n_shapes)
    states = {name: chain_states(angle, kept) for name, angle in angles.items() if own_states(name)}
    masks = state_masks(angles, states, simulation.shapes[..., 0], n_shapes)
    chosen = _choose(simulation, correlations)
    populations, effective = _populations(simulation, masks, chosen, states, n_shapes)
    counted = {name: population.counted for name, population in populations.items()}
    return Equilibrium(
        correlations,
        states,
        populations,
        float(kept.mean()),
        sum(len(frames) for frames in chosen),
        effective,
        tuple(_reasons(simulation, masks, counted, correlations, round_trips, n_failed_ladders)),
    )


def populations_by(simulation: Simulation, states: Mapping[str, TorsionStates], n_shapes: int) -> dict[str, Population]:
    """Populations of a simulation in states that come from elsewhere, such as another ensemble's."""
    angles = {name: series[..., 0] for name, series in simulation.torsions.items()}
    masks = state_masks(angles, states, simulation.shapes[..., 0], n_shapes)
    chosen = _choose(simulation, _correlations(simulation, angles, n_shapes))
    return _populations(simulation, masks, chosen, states, n_shapes)[0]


def _populations(
    simulation: Simulation,
    masks: Mapping[str, NDArray[np.bool_]],
    chosen: list[NDArray[np.intp]],
    states: Mapping[str, TorsionStates],
    n_shapes: int,
) -> tuple[dict[str, Population], float | None]:
    """Populations counted and by MBAR, and what its frames are worth."""
    solved, by_mbar = _by_mbar(simulation, chosen, states, n_shapes) if chosen else (None, {})
    asymptotic = solved.averages if solved else {}
    populations = {
        name: Population(
            chain_population(mask, simulation.kept[..., 0]),
            by_mbar.get(name),
            asymptotic[name][1] if name in asymptotic else None,
        )
        for name, mask in masks.items()
    }
    return populations, solved.effective if solved else None


def _series(angles: Mapping[str, NDArray], shapes: NDArray, energies: NDArray, n_shapes: int) -> dict[str, list]:
    """The series ``(W, F)`` of each observable: two of an angle."""
    series: dict[str, list] = {name: [np.cos(angle), np.sin(angle)] for name, angle in angles.items()}
    if n_shapes > 1:
        series |= {f"{RING_SHAPE} {k + 1}": [shapes == k] for k in range(n_shapes)}
    return series | {ENERGY: [energies]}


def _correlations(simulation: Simulation, angles: Mapping[str, NDArray], n_shapes: int) -> dict[str, Correlation]:
    found = {}
    for name, parts in _series(angles, simulation.shapes[..., 0], simulation.energies[..., 0], n_shapes).items():
        pooled = [pooled_inefficiency(part) for part in parts]
        if not np.isnan(pooled).all():
            slower = int(np.nanargmax(pooled))
            g = pooled[slower]
            of_ladders = chain_inefficiencies(parts[slower]) * simulation.interval
            found[name] = Correlation(g * simulation.interval, simulation.n_frames / g, of_ladders)
    return found


def chain_states(angle: NDArray, kept: NDArray) -> TorsionStates:
    """States of a torsion ``(W, F)`` in ``kept`` frames so far apart that their noise is that of independent ones."""
    g = max(np.nan_to_num([pooled_inefficiency(np.cos(angle)), pooled_inefficiency(np.sin(angle))], nan=1.0))
    stride = int(np.ceil(max(1.0, g)))
    chosen = angle[:, ::stride][kept[:, ::stride]]
    chosen = chosen if len(chosen) else angle[kept]
    return find_states(chosen, np.zeros(len(chosen)))


def _choose(simulation: Simulation, correlations: Mapping[str, Correlation]) -> list[NDArray[np.intp]]:
    """Uncorrelated frames of each temperature, as indices into ``W·F``; empty where the first has too few."""
    n_ladders, length, n_rungs = simulation.energies.shape
    slow = [name for name in correlations if name in simulation.torsions]
    slowest = min(slow, key=lambda name: correlations[name].effective, default=None)
    chosen = []
    for rung in range(n_rungs):
        series = [simulation.energies[..., rung]]
        if slowest is not None:
            angle = simulation.torsions[slowest][..., rung]
            series += [np.cos(angle), np.sin(angle)]
        g = max(np.nan_to_num([pooled_inefficiency(part) for part in series], nan=1.0))
        stride = int(np.ceil(max(g, simulation.n_frames * n_rungs / MOST_MBAR_FRAMES)))
        index = np.arange(n_ladders * length).reshape(n_ladders, length)[:, stride - 1 :: stride]
        index = index[simulation.kept[..., rung].reshape(-1)[index]]
        chosen.append(index)
    return chosen if all(len(index) for index in chosen) else []


def _by_mbar(
    simulation: Simulation, chosen: list[NDArray[np.intp]], states: Mapping[str, TorsionStates], n_shapes: int
) -> tuple[MbarWeights | None, dict[str, Estimate]]:
    """Populations by MBAR, with errors from the scatter of the ladders under fixed weights."""
    n_ladders, length, n_rungs = simulation.energies.shape

    def gathered(series: NDArray) -> NDArray:
        flat = series.reshape(-1, n_rungs)
        return np.concatenate([flat[index, rung] for rung, index in enumerate(chosen)])

    energies = gathered(simulation.energies).astype(np.float64)
    kT = np.array([thermal_energy(float(temperature)) for temperature in simulation.temperatures])
    angles = {name: gathered(series) for name, series in simulation.torsions.items()}
    masks = state_masks(angles, states, gathered(simulation.shapes), n_shapes)
    solved = mbar(energies / kT[:, None], [len(index) for index in chosen], masks)
    if solved is None:
        return None, {}
    ladder = np.concatenate([index // length for index in chosen])
    totals = np.bincount(ladder, solved.weights, n_ladders)
    return solved, {
        name: chain_ratio(np.bincount(ladder, solved.weights * mask, n_ladders), totals) for name, mask in masks.items()
    }


def _reasons(
    simulation: Simulation,
    masks: Mapping[str, NDArray[np.bool_]],
    counted: Mapping[str, Estimate],
    correlations: Mapping[str, Correlation],
    round_trips: int,
    n_failed_ladders: int,
) -> list[str]:
    reasons = []
    n, length = simulation.energies.shape[:2]
    if n < FEWEST_CHAINS:
        reasons.append(f"{n} ladders cannot tell whether they agree; {FEWEST_CHAINS} or more can.")
    if length < LEAST_FRAMES:
        reasons.append(f"ladders have {length} frames each, and less than {LEAST_FRAMES} say nothing of agreement.")
    if round_trips < n:
        reasons.append(f"{round_trips} round trips through the temperatures are less than one a ladder.")
    if n_failed_ladders > MOST_FAILED * (n + n_failed_ladders):
        reasons.append(f"{n_failed_ladders} ladders are left out because the energy of a walker could not be computed.")
    rhats = {
        name: split_rhat(mask & simulation.kept[..., 0])
        for name, mask in masks.items()
        if LEAST_SHARE <= counted[name].value <= 1.0 - LEAST_SHARE
    }
    angles = {name: series[..., 0] for name, series in simulation.torsions.items()}
    for name, parts in _series(angles, simulation.shapes[..., 0], simulation.energies[..., 0], 1).items():
        if name in correlations:
            rhats[name] = max(np.nan_to_num([split_rhat(part) for part in parts], nan=1.0, posinf=np.inf))
    apart = sorted((name for name in rhats if rhats[name] > LARGEST_RHAT), key=lambda name: -rhats[name])
    if apart:
        more = f", and about {len(apart) - 3} more" if len(apart) > 3 else ""
        worst = ", ".join(f"{name} (R-hat {rhats[name]:.2f})" for name in apart[:3])
        reasons.append(f"ladders disagree about {worst}{more}.")
    return reasons
