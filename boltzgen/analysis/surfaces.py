"""From weighted structures to the numbers of an analysis: surfaces, profiles, populations, histograms."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boltzgen.analysis.states import TorsionStates, find_states
from boltzgen.analysis.torsions import (
    BASINS,
    POSITIVE_PHI,
    assign_basins,
    dihedral,
    is_positive_phi,
    named_rotors,
    ramachandran_pairs,
)
from boltzgen.molecule import Molecule
from boltzgen.statistics.free_energy import (
    Estimate,
    Profile,
    free_energy_profile,
    free_energy_surface,
    weighted_probabilities,
    weighted_probability,
)
from boltzgen.statistics.weights import (
    WeightSummary,
    checked_log_weights,
    normalized_weights,
    summarize_weights,
)

N_HISTOGRAM_BINS = 80
RING_SHAPE = "ring shape"
"""Name of the states of rings, which are numbered from 1 by the energy of their lowest minimum."""

LOG_WEIGHT_WINDOW = 30.0
"""How far below log Z the log-weight histogram reaches, in nats; nothing further down can matter."""


@dataclass(frozen=True)
class Histogram:
    """Densities of the samples as drawn and as weighted over common bins.

    Attributes
    ----------
    edges
        (m + 1,) bin edges.
    raw, reweighted
        (m,) densities. They are normalised over all samples, also those outside the bins.
    """

    edges: NDArray[np.float64]
    raw: NDArray[np.float64]
    reweighted: NDArray[np.float64]


@dataclass(frozen=True)
class ResidueAnalysis:
    """The Ramachandran plane of one residue, as drawn (raw) and reweighted.

    Attributes
    ----------
    phi, psi
        (n,) radians in (-π, π].
    basin
        (n,) index into :data:`boltzgen.analysis.torsions.BASINS`.
    edges
        (bins + 1,) bin edges of both angles, radians.
    surface_raw, surface
        (bins, bins) free energy in kT over (φ, ψ), lowest value 0, +inf where empty.
    phi_raw, phi_profile, psi_raw, psi_profile
        Profiles F(φ) and F(ψ).
    """

    phi: NDArray[np.float64]
    psi: NDArray[np.float64]
    basin: NDArray[np.intp]
    edges: NDArray[np.float64]
    surface_raw: NDArray[np.float64]
    surface: NDArray[np.float64]
    phi_raw: Profile
    phi_profile: Profile
    psi_raw: Profile
    psi_profile: Profile


@dataclass(frozen=True)
class TorsionAnalysis:
    """One torsion, as drawn (raw) and reweighted.

    Attributes
    ----------
    angle
        (n,) radians in (-π, π].
    states
        Names and cuts of the states, found in the reweighted ensemble.
    state
        (n,) index into ``states.names``.
    raw, profile
        Profiles of the free energy.
    """

    angle: NDArray[np.float64]
    states: TorsionStates
    state: NDArray[np.intp]
    raw: Profile
    profile: Profile


@dataclass(frozen=True)
class EnsembleAnalysis:
    """All numbers of an analysis.

    Attributes
    ----------
    weights
        Diagnostics of the weights.
    residues
        By residue label, such as ``ALA2``.
    torsions
        By the names of the four atoms, such as ``C1-C2-C3-C4``, of molecules without residue templates.
    populations
        By state, such as ``ALA2:alpha_R``, ``ALA2:phi>0``, ``C1-C2-C3-C4:ap`` or ``ring shape 1``.
    energy
        Histogram of the reduced potential, in kT.
    log_weight
        Histogram of the log-weights.
    """

    weights: WeightSummary
    residues: dict[str, ResidueAnalysis]
    torsions: dict[str, TorsionAnalysis]
    populations: dict[str, Estimate]
    energy: Histogram
    log_weight: Histogram

    def to_tree(self) -> dict[str, Any]:
        """Nested dictionary of arrays, numbers and strings, to be stored; the undetermined is left out."""
        weights = asdict(self.weights)
        weights["ess_without_largest"] = {str(k): v for k, v in self.weights.ess_without_largest.items()}
        return {
            "weights": _without_none(weights),
            "populations": {name: _without_none(asdict(p)) for name, p in self.populations.items()},
            "residues": {name: _tree(residue) for name, residue in self.residues.items()},
            "torsions": {name: _tree(torsion) for name, torsion in self.torsions.items()},
            "energy_histogram": asdict(self.energy),
            "log_weight_histogram": asdict(self.log_weight),
            "basin_names": list(BASINS),
        }


def analyze_ensemble(
    positions: ArrayLike,
    log_w: ArrayLike,
    reduced_potential: ArrayLike,
    molecule: Molecule,
    *,
    shape: ArrayLike | None = None,
    n_shapes: int = 1,
    bins: int = 72,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> EnsembleAnalysis:
    """Analyse a weighted ensemble of one molecule.

    Parameters
    ----------
    positions
        (n, n_atoms, 3) nm.
    log_w, reduced_potential
        (n,) log-weights, and U/kT with +inf where the energy failed.
    shape, n_shapes
        (n,) which of ``n_shapes`` shapes the rings of each frame have, from 0; needed where there are several.
    bins
        Bins of each torsion over the full circle.
    n_bootstrap, seed
        Resamples behind the error bars, and their seed.

    Raises
    ------
    ValueError
        If lengths differ or log-weights are invalid.
    """
    frames = np.asarray(positions)
    log_weights = checked_log_weights(log_w)
    energies = np.asarray(reduced_potential, dtype=np.float64)
    if not frames.shape[0] == log_weights.size == energies.size:
        raise ValueError(
            f"{frames.shape[0]} structures, {log_weights.size} log-weights, {energies.size} energies: "
            "the numbers must be equal."
        )
    rng = np.random.default_rng(seed)
    summary = summarize_weights(log_weights)
    residues: dict[str, ResidueAnalysis] = {}
    populations: dict[str, Estimate] = {}
    for label, phi_atoms, psi_atoms in ramachandran_pairs(molecule.torsions):
        phi, psi = dihedral(frames, phi_atoms), dihedral(frames, psi_atoms)
        residues[label] = _analyze_residue(phi, psi, log_weights, bins, n_bootstrap, rng)
        populations |= _residue_populations(label, residues[label], log_weights, n_bootstrap, rng)
    torsions: dict[str, TorsionAnalysis] = {}
    for label, atoms in named_rotors(molecule.torsions).items():
        torsions[label] = _analyze_torsion(dihedral(frames, atoms), log_weights, bins, n_bootstrap, rng)
        names = torsions[label].states.names
        shares = weighted_probabilities(torsions[label].state, len(names), log_weights, rng, n_bootstrap)
        populations |= {f"{label}:{name}": share for name, share in zip(names, shares, strict=True)}
    if shape is not None and n_shapes > 1:
        shares = weighted_probabilities(np.asarray(shape), n_shapes, log_weights, rng, n_bootstrap)
        populations |= {f"{RING_SHAPE} {k}": share for k, share in enumerate(shares, start=1)}
    return EnsembleAnalysis(
        weights=summary,
        residues=residues,
        torsions=torsions,
        populations=populations,
        energy=energy_histogram(energies, log_weights),
        log_weight=log_weight_histogram(log_weights, summary.log_z),
    )


def energy_histogram(reduced_potential: ArrayLike, log_w: ArrayLike) -> Histogram:
    """Histogram of U/kT over the range that holds 99.99 % of the weight and 98 % of the samples.

    The flow's own samples have a long tail of clashes, which would squeeze the rest into one bin.
    """
    energies = np.asarray(reduced_potential, dtype=np.float64)
    weights = normalized_weights(log_w)
    finite = np.isfinite(energies)
    order = np.argsort(energies[finite])
    ascending = energies[finite][order]
    cumulative = np.cumsum(weights[finite][order])
    of_weight = ascending[min(int(np.searchsorted(cumulative, 0.9999)), ascending.size - 1)]
    low, high = ascending[0], max(of_weight, np.quantile(ascending, 0.98))
    return _histogram(energies, weights, low, high)


def log_weight_histogram(log_w: ArrayLike, log_z: float) -> Histogram:
    """Histogram of the log-weights from the lowest, or 30 below log Z, to the highest."""
    values = checked_log_weights(log_w)
    low = max(values[np.isfinite(values)].min(), log_z - LOG_WEIGHT_WINDOW)
    return _histogram(values, normalized_weights(values), low, values.max())


def _histogram(values: NDArray[np.float64], weights: NDArray[np.float64], low: float, high: float) -> Histogram:
    if not high > low:
        low, high = low - 0.5, low + 0.5  # all values equal
    edges = np.linspace(low, high, N_HISTOGRAM_BINS + 1)
    width = edges[1] - edges[0]
    finite = np.isfinite(values)
    raw, _ = np.histogram(values[finite], edges)
    reweighted, _ = np.histogram(values[finite], edges, weights=weights[finite])
    return Histogram(edges, raw / (values.size * width), reweighted / width)


def _analyze_residue(
    phi: NDArray[np.float64],
    psi: NDArray[np.float64],
    log_w: NDArray[np.float64],
    bins: int,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> ResidueAnalysis:
    edges = np.linspace(-np.pi, np.pi, bins + 1)
    unweighted = np.zeros_like(log_w)

    def profile(angle: NDArray[np.float64], log_weights: NDArray[np.float64]) -> Profile:
        return free_energy_profile(angle, log_weights, edges, rng, n_bootstrap, periodic=True)

    return ResidueAnalysis(
        phi=phi,
        psi=psi,
        basin=assign_basins(phi, psi),
        edges=edges,
        surface_raw=free_energy_surface(phi, psi, unweighted, edges, edges),
        surface=free_energy_surface(phi, psi, log_w, edges, edges),
        phi_raw=profile(phi, unweighted),
        phi_profile=profile(phi, log_w),
        psi_raw=profile(psi, unweighted),
        psi_profile=profile(psi, log_w),
    )


def _analyze_torsion(
    angle: NDArray[np.float64], log_w: NDArray[np.float64], bins: int, n_bootstrap: int, rng: np.random.Generator
) -> TorsionAnalysis:
    edges = np.linspace(-np.pi, np.pi, bins + 1)
    raw, profile = (
        free_energy_profile(angle, log_weights, edges, rng, n_bootstrap, periodic=True)
        for log_weights in (np.zeros_like(log_w), log_w)
    )
    states = find_states(angle, log_w)
    return TorsionAnalysis(angle, states, states.assign(angle), raw, profile)


def _residue_populations(
    label: str,
    residue: ResidueAnalysis,
    log_w: NDArray[np.float64],
    n_bootstrap: int,
    rng: np.random.Generator,
) -> dict[str, Estimate]:
    estimates = weighted_probabilities(residue.basin, len(BASINS), log_w, rng, n_bootstrap)
    populations = {f"{label}:{name}": estimate for name, estimate in zip(BASINS, estimates, strict=True)}
    positive = weighted_probability(is_positive_phi(residue.phi), log_w, rng, n_bootstrap)
    return populations | {f"{label}:{POSITIVE_PHI}": positive}


def _tree(part: ResidueAnalysis | TorsionAnalysis) -> dict[str, Any]:
    return {field.name: _leaf(getattr(part, field.name)) for field in fields(part)}


def _leaf(value: Any) -> Any:
    if isinstance(value, TorsionStates):
        return value.to_tree()
    return _without_none(asdict(value)) if isinstance(value, Profile) else value


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
