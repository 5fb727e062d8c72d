"""Checks of an ensemble by what must hold of any: files, flow, weights, forces, temperatures and geometry agree.

Each gives a :class:`~boltzgen.statistics.check.Check`. None looks for states that the flow never draws.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from boltzgen.analysis.census import cis_shares
from boltzgen.coordinates.configuration import Configuration
from boltzgen.coordinates.edge import edge_atoms, edge_distance
from boltzgen.coordinates.layout import batch_last
from boltzgen.molecule import Molecule
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.sampling.latent_scores import latent_scores
from boltzgen.statistics.check import Check, largest_fair_score
from boltzgen.statistics.stein import circle_terms, line_terms, zero_mean_scores
from boltzgen.statistics.weights import errors_are_determined, kish_ess, log_z, normalized_weights, pareto_smooth
from boltzgen.storage.atomic import open_hdf5
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.trajectory import Frames
from boltzgen.storage.tree import get_tree
from boltzgen.target import Target
from boltzgen.workflow.ladder_check import temperature_ladder
from boltzgen.workflow.load import load_drawn

MOST_FRAMES = 10_000
"""Frames of the ensemble that are looked at; they are independent, so the first ones do."""

PROBES = 500
"""Draws that are taken back, and stored frames that are computed anew."""

DEEPEST = 15.0
"""Draws whose weight is more nats than this below the mean count for nothing, and are not probed."""

ROUND_TRIP = 1e-6
"""Largest difference in nats of ln q as drawn and as computed back in float64; rounding leaves 1e-9."""

STORED = 0.05
"""Largest difference in nats of a stored weight from one computed anew: positions are stored in float32."""

LEAST_CHART = 0.05
"""Charts that hold less of the weight are not tested."""

EDGE = 0.95
"""From this share of the way from the centre to the edge on, a structure is at the edge."""

MOST_AT_EDGE = 1e-3
"""Share of the weight at the edge above which structures beyond it are likely missing."""

MOST_TURNED = 1e-3
"""Share of the weight in another configuration above which the ensemble is of another molecule."""


@dataclass(frozen=True)
class Checked:
    """All checks, and what they measured on the way: plain values under names."""

    checks: tuple[Check, ...]
    figures: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """``checks`` by name, beside the figures."""
        rows = {check.name: {k: v for k, v in asdict(check).items() if k != "name"} for check in self.checks}
        return {"checks": rows, **self.figures}


def check_ensemble(directory: RunDirectory, target: Target, frames: Frames, temperature: float, seed: int) -> Checked:
    """Run all checks on an ensemble at ``temperature`` in K; ``target`` has the energy that it is weighted for."""
    trained, generator = load_drawn(directory)
    some = _first(frames, MOST_FRAMES)
    x = batch_last(some.positions)
    with open_hdf5(directory.system_h5) as file:
        reference = get_tree(file["conformers"])["positions"][0]
    ladder, rungs = temperature_ladder(directory, trained, seed)
    checks = [
        round_trip(generator, seed),
        stored_weights(generator, target, some, temperature),
        stein_identities(target, x, some.log_weight, temperature),
        ladder,
        kept_configuration(target.molecule, reference, x, some.log_weight),
        edge_of_support(target, x, some.log_weight),
    ]
    shares = cis_shares(target.molecule, some.positions, some.log_weight, np.random.default_rng(seed))
    cis = {name: asdict(share) for name, share in shares.items()}
    return Checked(tuple(checks), {"ladder": rungs, "cis": cis})


def round_trip(generator: BoltzmannGenerator, seed: int) -> Check:
    """Whether ln q of fresh draws is found again from their positions."""
    drawn = generator.sample(PROBES, seed=[seed, 1])
    back = generator.log_prob(drawn.positions)
    counts = drawn.log_weight > drawn.log_weight.max() - 2.0 * DEEPEST
    off = float(np.abs(back - drawn.log_prob)[counts].max())
    return Check.judged(
        "round trip",
        off,
        ROUND_TRIP,
        f"ln q of {np.count_nonzero(counts)} draws, taken back from their positions, is off by {off:.1e} nats at most",
        "The flow or its coordinates cannot be inverted here: weights are wrong. Please report this molecule.",
    )


def stored_weights(generator: BoltzmannGenerator, target: Target, frames: Frames, temperature: float) -> Check:
    """Whether energies, and densities of plain draws, in the file are those of its structures."""
    some = _first(frames, PROBES)
    u = target.reduced_potential(batch_last(some.positions), temperature).numpy()
    counts = some.log_weight > log_z(frames.log_weight)[0] - DEEPEST
    off = np.abs(u - some.reduced_potential)
    if some.inner == 1 and some.refine == 0:
        off = np.maximum(off, np.abs(generator.log_prob(some.positions) - some.log_prob))
    off = np.maximum(off, np.abs(some.reduced_potential + some.log_prob + some.log_weight))
    value = float(np.max(off[counts], initial=0.0))
    return Check.judged(
        "stored weights",
        value,
        STORED,
        f"energies and densities of {np.count_nonzero(counts)} stored frames, computed anew, differ by "
        f"{value:.1e} nats at most",
        "The file is not of this flow and energy. Redo sample and reweight with --force.",
    )


def stein_identities(target: Target, x: torch.Tensor, log_w: NDArray[np.float64], temperature: float) -> Check:
    """Averages that must vanish, of torsions and stiff coordinates, in each chart with a share of the weight."""
    coordinates = target.coordinates
    weights = normalized_weights(log_w)
    z_of: dict[str, float] = {}
    circle_names = ["-".join(target.molecule.atom_names[a] for a in atoms) for atoms in coordinates.slow_atoms]
    if errors_are_determined(kish_ess(log_w), pareto_smooth(log_w)[0]):
        with_weight = np.flatnonzero(weights > 0.0)
        for k in range(coordinates.n_charts):
            scores = latent_scores(target, x[..., with_weight], k, temperature)
            rows = with_weight[scores.index.numpy()]
            if weights[rows].sum() < LEAST_CHART:
                continue
            circles, names = circle_terms(scores.circles.numpy(), scores.circle_scores.numpy(), circle_names)
            lines = line_terms(scores.lines.numpy(), scores.line_scores.numpy())
            names += [*(f"stiff {j + 1}" for j in range(coordinates.n_stiff)), "all stiff"]
            terms = np.zeros((len(weights), len(names)))
            terms[rows] = np.concatenate([circles, lines], axis=1)
            place = f" in shape {k + 1}" if coordinates.n_charts > 1 else ""
            z_of |= {name + place: z for name, z in zip(names, zero_mean_scores(terms, log_w), strict=True)}
    if not z_of:
        return Check.undetermined("Stein identities", "the weights support no error")
    bound = largest_fair_score(len(z_of))
    worst = max(z_of, key=lambda name: abs(z_of[name]))
    value = abs(z_of[worst])
    return Check.judged(
        "Stein identities",
        value,
        bound,
        f"of {len(z_of)} averages that must vanish the worst is {worst}, z = {z_of[worst]:+.1f}",
        "Samples, weights and forces do not belong to one ensemble: a heavy tail of the weights that k-hat has not "
        "seen, or a bug. Draw more samples; if it stays, report it.",
    )


def kept_configuration(molecule: Molecule, reference: NDArray, x: torch.Tensor, log_w: NDArray[np.float64]) -> Check:
    """Census of stereocentres, double bonds and amides: which share of the weight has another one than the input."""
    configuration = Configuration(molecule, reference)
    kept = configuration.parts_kept(x).numpy()
    weights = normalized_weights(log_w)
    turned = (~kept).astype(np.float64) @ weights
    value = float((~kept.all(axis=0)) @ weights)
    labels = ["=".join(_atom(molecule, a) for a in bond) for bond in configuration.bonds]
    labels += [_atom(molecule, a) for a in configuration.centres]
    held = (
        f"{_counted(len(configuration.centres), 'stereocentre')} and {_counted(len(configuration.bonds), 'rigid bond')}"
    )
    words = f"{held}: {100 * value:.2g} % of the weight has another configuration than the input"
    if value > 0.0:
        words += f", most often {labels[int(turned.argmax())]}"
    return Check.judged(
        "configuration",
        value,
        MOST_TURNED,
        words,
        "The force field or the coordinates let it turn, so that the ensemble is of several molecules. Check the force "
        "field there.",
    )


def edge_of_support(target: Target, x: torch.Tensor, log_w: NDArray[np.float64]) -> Check:
    """The share of the weight next to where the coordinates end, behind which nothing is ever drawn."""
    nearness, row = (values.numpy() for values in edge_distance(target.coordinates, x))
    weights = normalized_weights(log_w)
    at_edge = nearness > EDGE
    value = float(weights[at_edge].sum())
    words = f"{100 * value:.2g} % of the weight lies in the outer {100 * (1 - EDGE):.0f} % of the support"
    if value > 0.0:
        of_rows = np.bincount(row[at_edge], weights[at_edge])
        atoms = edge_atoms(target.coordinates)[int(of_rows.argmax())]
        words += ", most at " + "-".join(_atom(target.molecule, a) for a in atoms)
    return Check.judged(
        "edge of the support",
        value,
        MOST_AT_EDGE,
        words,
        "Structures beyond it exist and are never drawn. Compare with `boltzgen md`, which knows no edge.",
        is_fatal=False,
    )


def _first(frames: Frames, n: int) -> Frames:
    columns = (frames.positions, frames.log_prob, frames.reduced_potential, frames.log_weight)
    return Frames(*(column[:n] for column in columns), inner=frames.inner, refine=frames.refine)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _atom(molecule: Molecule, atom: int) -> str:
    return f"{molecule.atom_names[atom]}:{molecule.residue_label(atom)}"
