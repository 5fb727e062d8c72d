"""Whether a flow that knows several temperatures is one ensemble at all of them: d ln Z/dβ = −⟨U⟩."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from boltzgen.constants import thermal_energy
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.statistics.averages import weighted_means
from boltzgen.statistics.check import Check, largest_fair_score
from boltzgen.statistics.thermodynamics import Rung, Step, compare_rungs
from boltzgen.statistics.weights import kish_ess
from boltzgen.storage.runs import RunDirectory
from boltzgen.target import Target
from boltzgen.workflow.load import load_flow

DRAWS = (2_000, 6_000)
"""Draws at each temperature, and those that are added where the first are worth too little."""

ENOUGH = 400.0
"""Effective draws that are enough: twice what an error needs."""

OVERLAP = 1.5
"""Distance of neighbouring temperatures, in standard deviations of the energy of harmonic coordinates."""

MOST_RUNGS = 10
"""Temperatures at most; the highest are then left out, since it is the lowest that matters."""

NAME = "temperatures"


def temperature_ladder(directory: RunDirectory, target: Target, seed: int) -> tuple[Check, list[dict[str, Any]]]:
    """Draw at temperatures from the run's to the flow's highest, and compare the change of ln Z with the energies'.

    Also gives, for each temperature, ln Z and ⟨U⟩ in kJ/mol with errors, ESS and k̂.
    """
    _, flow, hottest = load_flow(directory)
    rungs = [
        _rung(BoltzmannGenerator(target, flow, temperatures={t: 1.0}), target.temperature, t, [seed, k])
        for k, t in enumerate(_temperatures(target, hottest))
    ]
    usable = [rung for rung in rungs if np.isfinite(rung.log_weight).any()]
    rng = np.random.default_rng(seed)
    steps = [compare_rungs(low, high, rng) for low, high in pairwise(usable)]
    return _judge(steps), [_row(rung, rng) for rung in usable]


def _temperatures(target: Target, hottest: float) -> list[float]:
    """Temperatures in K whose energies overlap: U varies by √(d/2) kT, so that ln T steps by a few parts of √(2/d)."""
    span = math.log(hottest / target.temperature)
    step = OVERLAP * math.sqrt(2.0 / (target.coordinates.n_torsions + target.coordinates.n_stiff))
    n_steps = math.ceil(span / step - 1e-9)
    if n_steps < 1:
        return [target.temperature]
    step = span / n_steps
    return [target.temperature * math.exp(k * step) for k in range(min(n_steps + 1, MOST_RUNGS))]


def _rung(generator: BoltzmannGenerator, drawn_for: float, temperature: float, seed: list[int]) -> Rung:
    beta = drawn_for / temperature
    energy, log_weight = np.empty(0), np.empty(0)
    for k, n in enumerate(DRAWS):
        drawn = generator.sample(n, seed=[*seed, k])
        energy = np.append(energy, drawn.reduced_potential)
        log_weight = np.append(log_weight, -beta * drawn.reduced_potential - drawn.log_prob)
        if np.isfinite(log_weight).any() and kish_ess(log_weight) >= ENOUGH:
            break
    return Rung(temperature, energy, log_weight, beta)


def _row(rung: Rung, rng: np.random.Generator) -> dict[str, Any]:
    weights = rung.weights()
    energy = rung.energy * thermal_energy(rung.temperature * rung.beta)
    mean = weighted_means(energy[:, None], rung.log_weight, rng, 100)[0]
    return {
        "temperature": rung.temperature,
        "ess_fraction": weights.ess_fraction,
        "khat": weights.khat,
        "log_z": weights.log_z,
        "log_z_stderr": weights.log_z_stderr,
        "energy": mean.value,
        "energy_stderr": mean.stderr,
    }


def _judge(steps: list[Step]) -> Check:
    if not steps:
        return Check.undetermined(NAME, "the flow knows one temperature alone")
    known = [step for step in steps if step.z is not None]
    if not known:
        return Check.undetermined(NAME, f"weights of {steps[0].lower:.0f} K support no error")
    bound = largest_fair_score(len(known))
    # What is lost on the way down is missing from the ensemble; what only a hotter flow has lost is not.
    worst = max(known, key=lambda step: step.z or 0.0)
    if not (worst.z or 0.0) > bound:
        worst = max(known, key=lambda step: abs(step.z or 0.0))
    z, excess = worst.z or 0.0, worst.excess
    unknown = len(steps) - len(known)
    missing = f" ({unknown} not determined)" if unknown else ""
    words = (
        f"of {len(steps)} steps of ln Z from {steps[0].lower:.0f} to {steps[-1].upper:.0f} K{missing}, against their "
        f"energies, the worst is {worst.lower:.0f} to {worst.upper:.0f} K: off by {excess.value:+.3f} ± "
        f"{excess.stderr:.3f}, z = {z:+.1f}"
    )
    lost_at = worst.lower if z > 0 else worst.upper
    advice = f"The flow has lost part of the ensemble at {lost_at:.0f} K that it still has beside it. Train longer."
    return Check.judged(NAME, abs(z), bound, words, advice, is_fatal=z > 0)
