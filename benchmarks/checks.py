"""A trained flow against a long replica exchange, and against one that had as much time as its training and sampling.

lost states
    Joint states of all torsions with at least 1 % of the reference: the median of ln w = −u − ln q of its frames, less
    log Z of the flow. A good flow has about 0; one that hardly ever draws the state, many nats.
TV
    Total variation of histograms with ``BINS`` bins of each angle, averaged over the Ramachandran planes or, where
    there are none, over the torsions. The floor is what a perfect flow would show: half the distance between halves of
    the reference made of different ladders, and half of that between halves of the samples, in quadrature. The smoothed
    one is that of the histograms after a Gaussian of ``SMOOTHING`` bins: noise of single bins counts less.
replica exchange
    Of the same time; or the long one itself, its effective samples scaled to that time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from compare import Compared, Partition, compared, cuts_for, joint_states, partitions
from exchange import Ladders, Trajectory, exchange, reference_of
from reference import Reference, ring_torsions
from scipy.ndimage import gaussian_filter
from trained import SAMPLING_SEED, Folder, Record, angles_of, load_samples

import boltzgen
from boltzgen.analysis.coverage import FRAMES_PER_STATE, LEAST_SHARE, LOST
from boltzgen.analysis.cuts import Cut, joint
from boltzgen.analysis.torsions import POSITIVE_PHI
from boltzgen.molecule import Molecule
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.statistics.weights import normalized_weights

BINS = 36
SMOOTHING = 1.0
Ensemble = tuple[Mapping[str, np.ndarray], np.ndarray]
"""Torsions by name, and the weight of each frame."""


def check(
    folder: Folder, training: Record, ladders: Ladders | None, seed: int, fresh_samples: int | None = None
) -> Record:
    """All checks of one training, as a line of the results; without ladders, none of exchange in the same time.

    Histograms are of the samples of the training, or of so many fresh ones.
    """
    name, system = training["name"], training["system"]
    generator = boltzgen.load(folder.trained(name))
    angles, log_w = load_samples(folder.samples(name))
    reference, trajectory = Reference.load(folder.reference(system)), Trajectory.load(folder.reference(system))
    molecule = generator.target.molecule
    several, others = cuts_of(molecule, reference)
    parts = partitions(several, angles, reference)
    states = joint_states(parts, reference, normalized_weights(log_w), LEAST_SHARE) if parts else None
    compared_parts = [*partitions(others, angles, reference), *parts, *([states] if states and len(parts) > 1 else [])]
    rows = [row for part in compared_parts for row in compared(part, log_w, reference)]
    scored = [row for row in rows if row.z is not None]
    drawn = fresh(generator, fresh_samples, training["seed"]) if fresh_samples else (angles, log_w)
    worst = max(scored, key=lambda row: abs(row.z or 0.0), default=None)
    return {
        "kind": "check",
        "name": name,
        "of": training["date"],
        "system": system,
        "reference": {"ladders": len(reference.outside), **_cost(trajectory), "left_out": reference.left_out()},
        "lost": lost_states(generator, training["log_z"], states, reference, trajectory.positions),
        "tv": {"bins": BINS, **total_variation(*drawn, reference)},
        "smoothed_tv": {"bins": BINS, "smoothing": SMOOTHING, **total_variation(*drawn, reference, SMOOTHING)},
        "phi_positive": [_row(row) for row in rows if row.title.endswith(POSITIVE_PHI)],
        "worst_population": _row(worst) if worst else None,
        "n_populations": len(scored),
        "n_samples_of_tv": len(drawn[1]),
        "exchange": same_time(folder, training, reference, several, others, ladders, seed)
        if ladders or _same_time(folder, training, seed).exists()
        else scaled(training, reference, trajectory, several),
    }


def cuts_of(molecule: Molecule, reference: Reference) -> tuple[list[Cut], list[Cut]]:
    """Those that make joint states, with several states each, and the others."""
    cuts, others = cuts_for(molecule.torsions | ring_torsions(molecule), reference, {})
    return [cut for cut in cuts if len(cut.names) > 1], others


def fresh(generator: BoltzmannGenerator, n: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Torsions and log weights of ``n`` samples that are not those of the training."""
    samples = generator.sample(n, seed=[SAMPLING_SEED, seed, 2])
    return angles_of(generator.target.molecule, samples), samples.log_weight


def lost_states(
    generator: BoltzmannGenerator, log_z: float, states: Partition | None, reference: Reference, positions: np.ndarray
) -> Record:
    """How far each frequent state of the reference stands above log Z, the worst three by name; without cuts, all."""
    rows = []
    for name, share, frames in frequent_states(states, reference, positions):
        log_w = -generator.reduced_potential(frames) - generator.log_prob(frames)
        rows.append({"state": name, "share": share, "excess": float(np.median(log_w)) - log_z})
    rows.sort(key=lambda row: -row["excess"])
    lost = [row for row in rows if row["excess"] > LOST]
    return {
        "n_states": len(rows),
        "n_lost": len(lost),
        "share_lost": sum(row["share"] for row in lost),
        "worst": rows[:3],
    }


def frequent_states(
    states: Partition | None, reference: Reference, positions: np.ndarray
) -> Iterator[tuple[str, float, np.ndarray]]:
    """Name, share and some frames ``(n, atoms, 3)`` of each state with ``LEAST_SHARE`` of the reference."""
    rng, inside = np.random.default_rng(0), reference.outside == 0
    names, labels = (states.names[1:], states.reference) if states else (("all",), np.ones_like(reference.outside))
    for k, name in enumerate(names, start=1):
        share, _ = reference.population(labels == k)
        if share >= LEAST_SHARE:
            places = np.argwhere((labels == k) & inside)
            some = places[rng.permutation(len(places))[:FRAMES_PER_STATE]]
            yield name, share, positions[some[:, 0], some[:, 1]]


def planes(torsions: Mapping[str, np.ndarray]) -> list[tuple[str, ...]]:
    """Names of the torsions of each histogram."""
    residues = [name.removeprefix("phi:") for name in torsions if name.startswith("phi:")]
    pairs: list[tuple[str, ...]] = [
        (f"phi:{label}", f"psi:{label}") for label in residues if f"psi:{label}" in torsions
    ]
    return pairs or [(name,) for name in torsions]


def total_variation(
    angles: Mapping[str, np.ndarray], log_w: np.ndarray, reference: Reference, smoothing: float = 0.0
) -> Record:
    """TV of a weighted ensemble and a reference, with its floor; ``smoothing`` in bins."""
    kept, weights = (reference.outside == 0).astype(float), normalized_weights(log_w)
    half, ladders = np.arange(len(weights)) % 2 == 0, np.arange(len(kept))[:, None] % 2 == 0
    series = reference.torsions
    chosen = planes(series)
    value = _mean_distance(chosen, (angles, weights), (series, kept), smoothing)
    noise = (
        _mean_distance(chosen, (series, kept * ladders), (series, kept * ~ladders), smoothing),
        _mean_distance(chosen, (angles, weights * half), (angles, weights * ~half), smoothing),
    )
    of = "Ramachandran" if len(chosen[0]) == 2 else "torsions"
    return {"of": of, "value": value, "floor": float(0.5 * np.hypot(*noise))}


def same_time(
    folder: Folder,
    training: Record,
    reference: Reference,
    cuts: list[Cut],
    others: list[Cut],
    ladders: Ladders | None,
    seed: int,
) -> Record:
    """Replica exchange with the seconds and threads of the training and its samples, against the long reference.

    Trainings of nearly the same time (two digits) share one.
    """
    path = _same_time(folder, training, seed)
    if ladders and not path.exists():
        run = folder.path / f"{training['system']}.run"
        trajectory = exchange(run, ladders, _rounded(_seconds(training)), seed, max(1, training["threads"]))
        trajectory.save(path, reference_of(run, trajectory))
    short, trajectory = Reference.load(path), Trajectory.load(path)
    weights = (short.outside == 0).astype(float)
    chosen, kept = planes(reference.torsions), (reference.outside == 0).astype(float)
    rows = [
        _against(cut.title, cut(short.torsions) == 1, short, cut(reference.torsions) == 1, reference) for cut in others
    ]
    if cuts:
        _, (seen, labels) = joint(*([cut(ensemble.torsions) for cut in cuts] for ensemble in (reference, short)))
        largest = np.bincount(seen[reference.outside == 0]).argmax()
        rows.append(_against("largest", labels == largest, short, seen == largest, reference))
    return {
        **_cost(trajectory),
        "ladders": len(short.outside),
        "tv": _mean_distance(chosen, (short.torsions, weights), (reference.torsions, kept)),
        "populations": rows,
    }


def scaled(training: Record, reference: Reference, trajectory: Trajectory, cuts: list[Cut]) -> Record | None:
    """Effective samples of the long replica exchange, on one thread, for as many core seconds as the flow had."""
    if not cuts:
        return None
    _, [labels] = joint([cut(reference.torsions) for cut in cuts])
    value, error = reference.population(labels == np.bincount(labels[reference.outside == 0]).argmax())
    ratio = max(1, training["threads"]) * _seconds(training) / trajectory.seconds
    return {"scaled_by": ratio, "effective": ratio * value * (1.0 - value) / error**2}


def _same_time(folder: Folder, training: Record, seed: int) -> Path:
    """The file of a replica exchange of the same time."""
    seconds, threads = _rounded(_seconds(training)), max(1, training["threads"])
    return folder.path / "trained" / f"{training['system']}-exchange-{seconds:g}s-{threads}-{seed}.npz"


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.2g}")


def _seconds(training: Record) -> float:
    return training["training_seconds"] + training["sampling_seconds"]


def _against(title: str, mask: np.ndarray, short: Reference, seen: np.ndarray, reference: Reference) -> Record:
    """One population in both, and how many independent samples would give as small an error."""
    (value, error), (long_value, long_error) = short.population(mask), reference.population(seen)
    return {
        "title": title,
        "value": value,
        "error": error,
        "reference": long_value,
        "reference_error": long_error,
        "z": float((value - long_value) / np.hypot(error, long_error)),
        "effective": value * (1.0 - value) / error**2,
    }


def _cost(trajectory: Trajectory) -> Record:
    return {
        "nanoseconds": trajectory.nanoseconds,
        "energies": trajectory.energies,
        "seconds": trajectory.seconds,
        "acceptance": trajectory.acceptance.tolist(),
        "round_trips": trajectory.round_trips,
        "n_failed": trajectory.n_failed,
    }


def _row(row: Compared) -> Record:
    return {
        "title": row.title,
        "flow": row.flow.value,
        "flow_error": row.flow.stderr,
        "reference": row.reference.value,
        "reference_error": row.reference.stderr,
        "z": row.z,
    }


def _mean_distance(chosen: list[tuple[str, ...]], a: Ensemble, b: Ensemble, smoothing: float = 0.0) -> float:
    differences = (_histogram(names, *a) - _histogram(names, *b) for names in chosen)
    smooth = (gaussian_filter(difference, smoothing, mode="wrap") for difference in differences)
    return float(np.mean([0.5 * np.abs(difference).sum() for difference in smooth]))


def _histogram(names: tuple[str, ...], torsions: Mapping[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Share of the weight in each cell."""
    angles = np.stack([torsions[name].reshape(-1) for name in names], axis=-1)
    edges = [np.linspace(-np.pi, np.pi, BINS + 1)] * len(names)
    counts, _ = np.histogramdd(np.clip(angles, -np.pi, np.pi), edges, weights=weights.reshape(-1))
    return counts / counts.sum()
