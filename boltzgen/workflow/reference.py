"""A reference by replica exchange for the ensemble of a run: whether it is one, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from boltzgen.analysis.comparison import Compared, Comparison, compare_ensembles
from boltzgen.analysis.coverage import Coverage, CoveredState, find_lost_states
from boltzgen.analysis.surfaces import EnsembleAnalysis
from boltzgen.config import AnalyzeConfig
from boltzgen.coordinates.configuration import Configuration
from boltzgen.coordinates.layout import batch_last
from boltzgen.errors import ConflictError
from boltzgen.simulation import Simulation
from boltzgen.statistics.agreement import free_energy, sample_mean
from boltzgen.statistics.free_energy import Estimate
from boltzgen.statistics.verdict import ReferenceCheck
from boltzgen.storage.atomic import open_hdf5, sha256_of
from boltzgen.storage.runs import RunDirectory, read_provenance
from boltzgen.storage.simulation import read_simulation
from boltzgen.storage.trajectory import Frames, read_molecule
from boltzgen.storage.tree import get_tree
from boltzgen.target import Target
from boltzgen.workflow.load import load_drawn
from boltzgen.workflow.stage import Summary, stored_summary

PROBES = 100
"""Frames whose energy is computed anew."""

ENERGY_TOLERANCE = (1e-4, 0.05)
"""Relative, and in kT: what float32 dynamics rounds. Another force field or solvent differs by several kT."""

BATCH = 512


@dataclass(frozen=True)
class Reference:
    """A simulation of the same molecule, energy and temperature as the run's ensemble.

    ``shares_charts``: it was made from the run's own ``system.h5``, so that its shapes of rings have the same numbers.
    ``target`` has the energy of both.
    """

    path: Path
    digest: str
    simulation: Simulation
    summary: Summary
    shares_charts: bool
    target: Target


@dataclass(frozen=True)
class Checked:
    """What a reference says of an ensemble: as numbers, in words, and as plain values under ``reference``.

    ``lost (k, atoms, 3)`` in nm is a frame of each lost state.
    """

    comparison: Comparison
    check: ReferenceCheck
    summary: Summary
    lost: NDArray


def open_reference(path: Path, directory: RunDirectory, target: Target, temperature: float) -> Reference:
    """Read a reference for an ensemble at ``temperature`` in K.

    Raises
    ------
    InputError
        If it is missing, damaged, or no simulation.
    ConflictError
        If it is of another molecule, temperature, configuration or energy.
    """
    simulation, molecule = read_simulation(path), read_molecule(path)
    own = target.molecule
    if (molecule.atomic_numbers, molecule.bonds) != (own.atomic_numbers, own.bonds):
        raise ConflictError(
            f"{path} is of {molecule.formula} {molecule.smiles}, {directory.path} of {own.formula} {own.smiles}, or "
            "its atoms have another order. Give the md.h5 of this molecule."
        )
    if abs(float(simulation.temperatures[0]) - temperature) > 1e-6 * temperature:
        raise ConflictError(
            f"{path} is at {simulation.temperatures[0]:g} K, the ensemble at {temperature:g} K. Simulate at this "
            "temperature, or reweight to that of the reference."
        )
    _check_energy(path, simulation, target, temperature)
    _check_configuration(path, simulation, target, directory)
    parent = read_provenance(path).parents.get("system.h5")
    shares_charts = parent == sha256_of(directory.system_h5)
    return Reference(path, sha256_of(path), simulation, stored_summary(path), shares_charts, target)


def _probes(simulation: Simulation) -> NDArray[np.intp]:
    places = np.argwhere(simulation.kept[..., 0])
    return places[np.unique(np.linspace(0, len(places) - 1, PROBES).round().astype(np.intp))]


def _positions(simulation: Simulation, places: NDArray[np.intp]) -> torch.Tensor:
    return batch_last(simulation.positions[places[:, 0], places[:, 1]])


def _check_energy(path: Path, simulation: Simulation, target: Target, temperature: float) -> None:
    places = _probes(simulation)
    expected = target.reduced_potential(_positions(simulation, places), temperature).numpy()
    off = np.abs(simulation.reduced_potentials[places[:, 0], places[:, 1]] - expected)
    relative, absolute = ENERGY_TOLERANCE
    if not np.all(off <= absolute + relative * np.abs(expected)):
        raise ConflictError(
            f"{path} has another force field or solvent than the ensemble: energies of its frames differ by up to "
            f"{off.max():.3g} kT. Simulate with the ensemble's; if that is the run's: boltzgen md RUN."
        )


def _check_configuration(path: Path, simulation: Simulation, target: Target, directory: RunDirectory) -> None:
    with open_hdf5(directory.system_h5) as file:
        structure = get_tree(file["conformers"])["positions"][0]
    kept = Configuration(target.molecule, structure).is_kept(_positions(simulation, _probes(simulation)))
    if not bool(kept.all()):
        raise ConflictError(
            f"{path} has other stereocentres, or another cis or trans, than the run. Simulate the run's own: boltzgen "
            "md RUN."
        )


def check_against(
    reference: Reference,
    directory: RunDirectory,
    analysis: EnsembleAnalysis,
    frames: Frames,
    shape: NDArray | None,
    temperature: float,
    settings: AnalyzeConfig,
    seed: int,
) -> Checked:
    """Compare an ensemble with its reference, and look in this for states that the flow has lost."""
    simulation, stored = reference.simulation, reference.summary
    target, generator = load_drawn(directory, reference.target)
    effective = stored["effective_samples"] or float(simulation.n_frames)
    shapes = (shape, simulation.shapes[..., 0]) if shape is not None and reference.shares_charts else None
    comparison = compare_ensembles(
        analysis,
        frames.positions,
        frames.log_weight,
        target.molecule,
        simulation,
        effective,
        shapes=shapes,
        n_shapes=target.coordinates.n_charts,
        n_bootstrap=settings.bootstrap,
        seed=seed,
    )

    def log_weight(positions: NDArray) -> NDArray[np.float64]:
        parts = np.array_split(positions, max(1, -(-len(positions) // BATCH)))
        scale = target.temperature / temperature
        return np.concatenate([-generator.reduced_potential(x) * scale - generator.log_prob(x) for x in parts])

    coverage = find_lost_states(simulation, comparison.parts, log_weight, analysis.weights.log_z, seed)
    check = ReferenceCheck(
        tuple(stored["reasons"]),
        tuple(_lost_in_words(one) for one in coverage.lost),
        tuple(_off_in_words(name, one) for name, one in comparison.populations.items() if one.is_off),
    )
    plain = frames.inner == 1 and frames.refine == 0
    finite = frames.log_weight[np.isfinite(frames.log_weight)]
    elbo = sample_mean(finite) if plain else None
    summary = {
        **_costs(directory, analysis.weights.ess, reference),
        "converged": stored["converged"],
        "populations": {name: _population(one, analysis.weights.ess) for name, one in comparison.populations.items()},
        "largest_z": comparison.worst,
        **_coverage(coverage, elbo),
    }
    lost = np.array([simulation.positions[one.frame] for one in coverage.lost])
    return Checked(comparison, check, summary, lost)


def _costs(directory: RunDirectory, ess: float, reference: Reference) -> Summary:
    """Effective samples and what they cost; a second is one of the wall clock, with so many threads."""
    stored, training = reference.summary, stored_summary(directory.flow_h5)
    seconds = training["seconds"] + sum(stored_summary(file)["seconds"] for file in directory.sample_files())
    rate = stored["effective_samples_per_second"]
    return {
        "file": str(reference.path),
        "n_frames": stored["n_frames"],
        "n_ladders": stored["n_ladders"],
        "nanoseconds": stored["nanoseconds"],
        "seconds": stored["seconds"],
        "threads": stored["threads"],
        "effective_samples": stored["effective_samples"],
        "effective_samples_per_second": rate,
        "flow_seconds": seconds,
        "flow_threads": training.get("threads"),  # runs of older versions do not say
        "flow_effective_samples": ess,
        "flow_effective_samples_per_second": ess / seconds,
        "effective_samples_at_equal_cost": None if rate is None else rate * seconds,
    }


def _population(one: Compared, ess: float) -> Summary:
    def estimate(value: Estimate) -> Summary:
        state = free_energy(value)
        p, error = value.value, value.stderr
        return {
            "value": p,
            "stderr": error,
            "effective": p * (1.0 - p) / error**2 if error else None,
            "free_energy": state.value if np.isfinite(state.value) else None,
            "free_energy_stderr": state.stderr,
        }

    mbar = one.reference.mbar
    return {
        "flow": estimate(one.flow),
        "counted": estimate(one.reference.counted),
        "mbar": None if mbar is None else estimate(mbar),
        "z": one.z,
    }


def _coverage(coverage: Coverage, elbo: Estimate | None) -> Summary:
    def error(*parts: Estimate) -> float | None:
        errors = [part.stderr for part in parts]
        return None if None in errors else float(np.linalg.norm(np.array(errors, dtype=np.float64)))

    eubo = coverage.eubo
    return {
        "states": [_state(one) for one in coverage.states],
        "states_share": coverage.joint_share,
        "lost_states": [_state(one) for one in coverage.lost],
        "outside_share": coverage.outside,
        "forward_ess_fraction": _plain(coverage.forward_ess),
        "eubo": _plain(eubo),
        "elbo": None if elbo is None else _plain(elbo),
        "gap": None if elbo is None else {"value": eubo.value - elbo.value, "stderr": error(eubo, elbo)},
    }


def _state(one: CoveredState) -> Summary:
    return {
        "state": one.name,
        "share": one.share.value,
        "share_stderr": one.share.stderr,
        "drawn_share": one.flow,
        "excess": one.excess,
        "n_frames": one.n_frames,
    }


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "stderr": estimate.stderr}


def _lost_in_words(one: CoveredState) -> str:
    error = "" if one.share.stderr is None else f" ± {100 * one.share.stderr:.2g}"
    weight = f"weights {one.excess:.1f} nats too large" if np.isfinite(one.excess) else "of density zero"
    return f"{one.name} ({100 * one.share.value:.2g}{error} % of the reference, {weight})"


def _off_in_words(name: str, one: Compared) -> str:
    return f"{name} ({one.flow.value:.4f} against {one.reference.counted.value:.4f}, z = {one.z:+.1f})"
