"""An ensemble of the flow beside a reference by replica exchange: both in the same states, and the same surfaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boltzgen.analysis.coverage import Part
from boltzgen.analysis.cuts import basin_cuts, finer, well_cuts
from boltzgen.analysis.equilibrium import Population, chain_states, populations_by
from boltzgen.analysis.partitions import own_states, state_masks
from boltzgen.analysis.states import TorsionStates
from boltzgen.analysis.surfaces import RING_SHAPE, EnsembleAnalysis
from boltzgen.analysis.torsions import dihedral, ramachandran_pairs
from boltzgen.molecule import Molecule
from boltzgen.simulation import Simulation
from boltzgen.statistics.agreement import z_score
from boltzgen.statistics.correlated import chain_population
from boltzgen.statistics.free_energy import Estimate, Profile, free_energy_surface, weighted_probability

LARGEST_Z = 4.0
"""From this difference on, in standard errors, a population contradicts the reference."""

_DEVIATES = 1.96
"""Of a 95 % band."""


@dataclass(frozen=True)
class Compared:
    """Population of a state by the flow and by the reference, and their difference in standard errors, or None."""

    flow: Estimate
    reference: Population
    z: float | None

    @property
    def is_off(self) -> bool:
        """Whether the two contradict each other."""
        return self.z is not None and abs(self.z) > LARGEST_Z


@dataclass(frozen=True)
class ResidueReference:
    """The Ramachandran plane of a residue in the reference, over the bins of the flow's: kT, +inf where empty."""

    surface: NDArray[np.float64]
    phi_profile: Profile
    psi_profile: Profile


@dataclass(frozen=True)
class Comparison:
    """Both ensembles in common states.

    Attributes
    ----------
    populations
        By state, in the cuts of the flow's analysis, or of the reference where that shows more wells.
    residues, torsions
        Surfaces and profiles of the reference, by the labels of :class:`~boltzgen.analysis.surfaces.EnsembleAnalysis`.
    parts
        States of all torsions and rings of both, for joint states.
    """

    populations: dict[str, Compared]
    residues: dict[str, ResidueReference]
    torsions: dict[str, Profile]
    parts: tuple[Part, ...]

    @property
    def worst(self) -> float | None:
        """The largest difference, with its sign."""
        return max((one.z for one in self.populations.values() if one.z is not None), key=abs, default=None)

    def to_tree(self) -> dict[str, Any]:
        """Surfaces and profiles, to be stored; the undetermined is left out."""
        return {
            "residues": {
                label: {
                    "surface": one.surface,
                    "phi_profile": _profile_tree(one.phi_profile),
                    "psi_profile": _profile_tree(one.psi_profile),
                }
                for label, one in self.residues.items()
            },
            "torsions": {label: {"profile": _profile_tree(profile)} for label, profile in self.torsions.items()},
        }


def compare_ensembles(
    analysis: EnsembleAnalysis,
    positions: NDArray,
    log_w: NDArray[np.float64],
    molecule: Molecule,
    simulation: Simulation,
    effective: float,
    *,
    shapes: tuple[NDArray, NDArray] | None = None,
    n_shapes: int = 1,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> Comparison:
    """Compare a weighted ensemble with a simulation of ``effective`` independent frames.

    ``shapes`` are the charts of samples ``(n,)`` and of frames at the first temperature ``(W, F)``, of molecules with
    ``n_shapes`` of them.
    """
    kept = simulation.kept[..., 0]
    seen = {name: series[..., 0] for name, series in simulation.torsions.items()}
    drawn = {name: dihedral(positions, atoms) for name, atoms in molecule.torsions.items()}
    known = {f"tor:{label}": torsion.states for label, torsion in analysis.torsions.items()}
    states = {name: finer(known.get(name), chain_states(seen[name], kept)) for name in seen if name in drawn}
    own = {name: cuts for name, cuts in states.items() if own_states(name)}
    masks = state_masks(drawn, own, None if shapes is None else shapes[0], n_shapes)
    rng = np.random.default_rng(seed)
    sound = analysis.weights.log_z_stderr is not None
    recut = {name.removeprefix("tor:") for name, cuts in own.items() if cuts is not known[name]}
    populations = {}
    for name, population in populations_by(simulation, own, n_shapes).items():
        as_analyzed = name.rpartition(":")[0] not in recut
        share = (
            analysis.populations[name] if as_analyzed else weighted_probability(masks[name], log_w, rng, n_bootstrap)
        )
        found = z_score(share, analysis.weights.ess, population.counted, effective, simulation.n_ladders)
        populations[name] = Compared(share, population, found if sound else None)
    return Comparison(
        populations,
        {
            label: _residue(seen[f"phi:{label}"], seen[f"psi:{label}"], kept, analysis.residues[label].edges)
            for label, _, _ in ramachandran_pairs(molecule.torsions)
        },
        {
            label: chain_profile(seen[f"tor:{label}"], kept, len(t.raw.centers))
            for label, t in analysis.torsions.items()
        },
        tuple(_parts(molecule, states, drawn, seen, shapes, n_shapes)),
    )


def _parts(
    molecule: Molecule,
    states: Mapping[str, TorsionStates],
    drawn: Mapping[str, NDArray],
    seen: Mapping[str, NDArray],
    shapes: tuple[NDArray, NDArray] | None,
    n_shapes: int,
) -> list[Part]:
    cuts = basin_cuts(molecule.torsions) + well_cuts(molecule.torsions, states.__getitem__)
    parts = [Part(tuple(f"{cut.title}:{name}" for name in cut.names), cut(drawn), cut(seen)) for cut in cuts]
    if shapes is not None:
        parts.append(Part(tuple(f"{RING_SHAPE} {k + 1}" for k in range(n_shapes)), *shapes))
    return parts


def chain_profile(angle: NDArray, kept: NDArray[np.bool_], n_bins: int) -> Profile:
    """Free energy of a torsion ``(W, F)`` in kT over the circle, with a 95 % band from the scatter of the chains."""
    edges = np.linspace(-np.pi, np.pi, n_bins + 1)
    width = edges[1] - edges[0]
    index = np.clip(((np.asarray(angle, dtype=np.float64) + np.pi) / width).astype(np.intp), 0, n_bins - 1)
    shares = [chain_population(index == k, kept) for k in range(n_bins)]
    density = np.array([share.value for share in shares]) / width
    errors = np.array([share.stderr or 0.0 for share in shares]) / width
    with np.errstate(divide="ignore"):
        free_energy = -np.log(density)
        lower, upper = (-np.log(np.maximum(density + sign * _DEVIATES * errors, 0.0)) for sign in (1.0, -1.0))
    zero, determined = free_energy.min(), bool(errors.any())
    return Profile(
        0.5 * (edges[1:] + edges[:-1]),
        free_energy - zero,
        lower - zero if determined else None,
        upper - zero if determined else None,
        density,
    )


def _residue(phi: NDArray, psi: NDArray, kept: NDArray[np.bool_], edges: NDArray[np.float64]) -> ResidueReference:
    n_bins = edges.size - 1
    phi_kept, psi_kept = (np.clip(angle[kept].astype(np.float64), -np.pi, np.pi) for angle in (phi, psi))
    surface = free_energy_surface(phi_kept, psi_kept, np.zeros(phi_kept.size), edges, edges)
    return ResidueReference(surface, chain_profile(phi, kept, n_bins), chain_profile(psi, kept, n_bins))


def _profile_tree(profile: Profile) -> dict[str, Any]:
    return {name: value for name, value in asdict(profile).items() if value is not None}
