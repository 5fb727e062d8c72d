"""The zoo: honest and damaged flows under the coverage probe, and what their weights alone would have said."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from damaged import Damage, DamagedGenerator, Shrunk
from menagerie import Basin, System, many_wells, peptide, ring
from numpy.typing import NDArray

from boltzgen.probe import challenge, probe
from boltzgen.probe.challenge import Challenge
from boltzgen.probe.probe import MOST_WEIGHED, ProbeCoverage, ProbedState
from boltzgen.probe.result import TROUBLES
from boltzgen.random_streams import Purpose, random_stream
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.statistics.free_energy import Estimate
from boltzgen.statistics.verdict import ProbeCheck, judge
from boltzgen.statistics.weights import WeightSummary, summarize_weights
from boltzgen.target import Target
from boltzgen.workflow import probing

SAMPLES = 20_000

FACTORS = {"removed": 1e-6, "1/100": 0.01, "1/10": 0.1}
"""A removed state is never drawn, but has a density: zero is outside the support, which no trained flow has lost."""

WALKERS, WALK, STRIDE, STEP = 128, 140, 20, 0.3
"""Of the Metropolis walks that challenge a model, from points all over it: they stay in wells that they fall into."""


@dataclass(frozen=True)
class Visit:
    """A flow, what is wrong with it, what its weights say, and what the probe says; ``cost`` in units of training."""

    system: str
    basin: str
    share: float
    damage: str
    drawn: float
    weights: WeightSummary
    log_z_error: Estimate
    coverage: ProbeCoverage
    check: ProbeCheck
    cost: float

    @property
    def by_weights(self) -> str:
        """The word that ESS and k̂ alone would give: sound, or FAILED."""
        return "FAILED" if judge(self.weights, None).word == "FAILED" else "sound"

    @property
    def word(self) -> str:
        """The verdict of weights and probe together; OK is to overlook what is wrong."""
        return judge(self.weights, None, probe=self.check).word

    @property
    def is_misled(self) -> bool:
        """Whether log Z is off by more than four of its error bars: what passes is then wrong as well."""
        error = self.log_z_error
        return error.stderr is not None and abs(error.value) > 4.0 * error.stderr


def systems(folder: Path) -> Iterator[System]:
    """Models are trained here; ``folder`` has runs ``KIND-NAME.run``, of the kinds peptide and ring."""
    yield many_wells(2, 300_000, 0)
    yield many_wells(4, 500_000, 0)
    for run in sorted(folder.glob("*.run")):
        yield of_run(run)


def of_run(run: Path) -> System:
    """The system of a trained run."""
    kind, _, name = run.stem.partition("-")
    return {"peptide": peptide, "ring": ring}[kind](name, run)


def visits(system: System, shrinks: Sequence[str], most: int, honest: int, seed: int) -> Iterator[Visit]:
    """Some ``honest`` visits, then each damage of the first ``most`` basins, all with challengers of their own."""
    number = 0
    undamaged = summarize_weights(system.generator.sample(5 * SAMPLES, seed=[seed, 7]).log_weight)
    log_z = Estimate(undamaged.log_z, undamaged.log_z_stderr)
    for basin in (*[None] * honest, *system.basins[:most]):
        damages: dict[str, Damage | None] = {"none": None}
        if basin is not None:
            shrunk = Shrunk.of(system.generator, basin.members, 0.0, seed)
            damages = {name: Shrunk(basin.members, FACTORS[name], shrunk.share) for name in shrinks}
            if basin.shifted is not None:
                damages["shifted"] = basin.shifted
        for name, damage in damages.items():
            number += 1
            yield visit(system, basin, name, damage, log_z, seed + number)


def visit(system: System, basin: Basin | None, name: str, damage: Damage | None, log_z: Estimate, seed: int) -> Visit:
    """Sample a flow and probe it."""
    generator: BoltzmannGenerator | DamagedGenerator = system.generator
    if damage is not None:
        generator = DamagedGenerator(system.generator, damage)
    samples = generator.sample(SAMPLES, seed=seed)
    weights = summarize_weights(samples.log_weight)
    started = time.process_time()
    target = system.generator.target
    coverage = probe(
        generator,
        target,
        samples.positions,
        samples.log_weight,
        challengers_of(system, seed),
        seed=seed,
        guide=system.generator.flow if isinstance(target, Target) else None,
        most_weighed=system.budget.weighed if system.budget else MOST_WEIGHED,
    )
    seconds = time.process_time() - started
    found = Estimate(weights.log_z, weights.log_z_stderr)
    troubles = {kind: tuple(describe_state(one) for one in coverage.of_kind(kind)) for kind in TROUBLES}
    return Visit(
        system.name,
        basin.name if basin else "",
        basin.share if basin else math.nan,
        name,
        float(basin.members(samples.positions).mean()) if basin else math.nan,
        weights,
        difference(found, log_z),
        coverage,
        ProbeCheck(**troubles, unexplained=probing._unexplained(coverage, found)),
        seconds / system.seconds,
    )


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a − b, with the error of both."""
    determined = a.stderr is not None and b.stderr is not None
    return Estimate(a.value - b.value, math.hypot(a.stderr, b.stderr) if determined else None)


def describe_state(state: ProbedState) -> str:
    """Name, share and draws."""
    return f"{state.name}: {100 * state.share.value:.2g} % of Z, {100 * state.drawn:.2g} % of draws"


def challengers_of(system: System, seed: int) -> Challenge:
    """Replica exchange of a molecule; short Metropolis walks of a model, which has no dynamics."""
    target = system.generator.target
    if not isinstance(target, Target) or system.budget is None:
        return walks(system, seed)
    return challenge(target, system.budget.energies, seed, system.conformers)


def walks(system: System, seed: int) -> Challenge:
    """Metropolis walks from uniform points: in equilibrium inside each well, and hardly ever out of it."""
    target, rng = system.generator.target, random_stream(Purpose.PROBE, [seed, 0])
    sites, components = target.coordinates.shape
    x = 5.0 * torch.rand((sites, components, WALKERS), generator=rng, dtype=torch.float64) - 2.5
    u = target.reduced_potential(x)
    frames: list[tuple[NDArray, NDArray]] = []
    for step in range(1, WALK + 1):
        new = x + STEP * torch.randn(x.shape, generator=rng, dtype=torch.float64)
        u_new = target.reduced_potential(new)
        accepted = torch.rand(WALKERS, generator=rng, dtype=torch.float64).log() < u - u_new
        x, u = torch.where(accepted, new, x), torch.where(accepted, u_new, u)
        if step % STRIDE == 0 and step > STRIDE:
            frames.append((x.permute(2, 0, 1).numpy().copy(), u.numpy().copy()))
    positions, energies = (np.concatenate(part) for part in zip(*frames, strict=True))
    chain = np.tile(np.arange(WALKERS), len(frames))
    return Challenge(positions, energies, chain, WALKERS * (WALK + 1))


def describe(one: Visit) -> str:
    """A line of the table."""
    error = one.log_z_error.stderr
    bar = "none  " if error is None else f"{error:.4f}"
    alone = f"{one.by_weights:6}{' WRONG' if one.is_misled else '      '}"
    said = [f"{kind} {text}" for kind in ("lost", "suspected", "unexplained") for text in getattr(one.check, kind)]
    return (
        f"{one.system:14} {one.damage:8} {one.basin:26} {100 * one.share:6.2f} % drawn {100 * one.drawn:7.3f} % | ESS "
        f"{100 * one.weights.ess_fraction:5.1f} % k {one.weights.khat:5.2f} dlnZ {one.log_z_error.value:+.4f} ± "
        f"{bar} {alone} | "
        f"{one.word:10} {said[0] if said else '-'} | cost {100 * one.cost:.1f} %"
    )


def tally(found: Sequence[Visit]) -> list[str]:
    """Of each damage: how many flows there are, and what becomes of them."""
    lines = []
    for damage in dict.fromkeys(one.damage for one in found):
        rows = [one for one in found if one.damage == damage]
        words = {word: sum(one.word == word for one in rows) for word in ("FAILED", "UNVERIFIED", "OK")}
        lost = sum(bool(one.check.lost) for one in rows)
        sound = [one for one in rows if one.by_weights == "sound"]
        misled = sum(one.is_misled for one in rows)
        survivors = sum(one.is_misled and one.word == "OK" for one in rows)
        lines.append(
            f"{damage:8} {len(rows):3} flows: {words}; {lost} by a lost state; by weights alone {len(sound)} sound, "
            f"{misled} of them with a wrong ln Z; OK with a wrong ln Z: {survivors}"
        )
    lines.append(f"cost: at most {100 * max(one.cost for one in found):.1f} % of the training's seconds")
    return lines


def zoo(folder: Path, shrinks: Sequence[str], most: int, honest: int, seed: int) -> None:
    """Print every visit, then the tally."""
    found = []
    for system in systems(folder):
        for one in visits(system, shrinks, most, honest, seed):
            print(describe(one), flush=True)
            found.append(one)
    print("\n".join(tally(found)))
