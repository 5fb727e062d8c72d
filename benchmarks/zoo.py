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
from boltzgen.probe.probe import ProbeCoverage
from boltzgen.random_streams import Purpose, random_stream
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.statistics.weights import summarize_weights
from boltzgen.target import Target

SAMPLES = 20_000

FACTORS = {"removed": 1e-6, "1/100": 0.01, "1/10": 0.1}
"""A removed state is never drawn, but has a density: zero is outside the support, which no trained flow has lost."""

WALKERS, WALK, STRIDE, STEP = 128, 140, 20, 0.3
"""Of the Metropolis walks that challenge a model, from points all over it: they stay in wells that they fall into."""


@dataclass(frozen=True)
class Visit:
    """A flow, what is wrong with it, what its weights say, and what the probe says."""

    system: str
    basin: str
    share: float
    damage: str
    drawn: float
    ess: float
    khat: float
    log_z_error: float
    stderr: float | None
    coverage: ProbeCoverage
    cost: float
    seconds: float

    @property
    def passes_by_weights(self) -> bool:
        """Whether ESS and k̂ are in order, so that error bars are printed."""
        return self.stderr is not None

    @property
    def is_caught(self) -> bool:
        """Whether the probe names a lost state, whichever."""
        return bool(self.coverage.lost)

    @property
    def is_suspected(self) -> bool:
        """Whether it names one that it could not weigh, but none that is lost."""
        return not self.is_caught and bool(self.coverage.of_kind("suspected"))


def systems(folder: Path) -> Iterator[System]:
    """Models are trained here; ``folder`` has runs ``NAME-ENERGIES.run``, NAME beginning with peptide- or ring-."""
    yield many_wells(2, 300_000, 0)
    yield many_wells(4, 500_000, 0)
    for run in sorted(folder.glob("*.run")):
        kind, name, energies = run.stem.split("-")
        yield {"peptide": peptide, "ring": ring}[kind](name, run, int(float(energies)))


def visits(
    system: System, share_of_training: float, shrinks: Sequence[str], most: int, honest: int, seed: int
) -> Iterator[Visit]:
    """Some ``honest`` visits, then each damage of the first ``most`` basins, all with challengers of their own."""
    number = 0
    log_z = summarize_weights(system.generator.sample(5 * SAMPLES, seed=[seed, 7]).log_weight).log_z
    for basin in (*[None] * honest, *system.basins[:most]):
        damages: dict[str, Damage | None] = {"none": None}
        if basin is not None:
            shrunk = Shrunk.of(system.generator, basin.members, 0.0, seed)
            damages = {name: Shrunk(basin.members, FACTORS[name], shrunk.share) for name in shrinks}
            if basin.shifted is not None:
                damages["shifted"] = basin.shifted
        for name, damage in damages.items():
            number += 1
            yield visit(system, basin, name, damage, share_of_training, log_z, seed + number)


def visit(
    system: System,
    basin: Basin | None,
    name: str,
    damage: Damage | None,
    share_of_training: float,
    log_z: float,
    seed: int,
) -> Visit:
    """Sample a flow and probe it."""
    generator: BoltzmannGenerator | DamagedGenerator = system.generator
    if damage is not None:
        generator = DamagedGenerator(system.generator, damage)
    samples = generator.sample(SAMPLES, seed=seed)
    weights = summarize_weights(samples.log_weight)
    started = time.process_time()
    target = system.generator.target
    challengers = challengers_of(system, share_of_training * system.energies, seed)
    coverage = probe(
        generator,
        target,
        samples.positions,
        samples.log_weight,
        challengers,
        seed=seed,
        guide=system.generator.flow if isinstance(target, Target) else None,
    )
    return Visit(
        system.name,
        basin.name if basin else "",
        basin.share if basin else math.nan,
        name,
        float(basin.members(samples.positions).mean()) if basin else math.nan,
        weights.ess_fraction,
        weights.khat,
        weights.log_z - log_z,
        weights.log_z_stderr,
        coverage,
        coverage.n_energies / system.energies,
        time.process_time() - started,
    )


def challengers_of(system: System, energies: float, seed: int) -> Challenge:
    """Replica exchange of a molecule; short Metropolis walks of a model, which has no dynamics."""
    target = system.generator.target
    if not isinstance(target, Target):
        return walks(system, seed)
    return challenge(target, energies, seed, system.conformers)


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
    worst = one.coverage.states[0] if one.coverage.states else None
    says = "lost" if one.is_caught else "suspected" if one.is_suspected else "passes"
    what = f"{worst.kind} {worst.name}: {worst.share.value:.4f} of Z, drawn {worst.drawn:.5f}" if worst else "-"
    error = "none" if one.stderr is None else f"{one.stderr:.4f}"
    return (
        f"{one.system:14} {one.damage:8} {one.basin:28} {100 * one.share:6.2f} % drawn {100 * one.drawn:7.3f} % | ESS "
        f"{100 * one.ess:5.1f} % k {one.khat:5.2f} dlnZ {one.log_z_error:+.4f} ± {error} | {says:9} {what} | "
        f"{100 * one.cost:.1f} % of the energies, {one.seconds:.0f} s"
    )


def tally(found: Sequence[Visit]) -> list[str]:
    """Of each damage: how many are caught, suspected, and pass; and how many pass by their weights alone."""
    lines = []
    for damage in dict.fromkeys(one.damage for one in found):
        rows = [one for one in found if one.damage == damage]
        caught, suspected = sum(one.is_caught for one in rows), sum(one.is_suspected for one in rows)
        blind = sum(one.passes_by_weights for one in rows)
        lines.append(
            f"{damage:8} {len(rows):3} flows: {caught} lost, {suspected} suspected, {len(rows) - caught - suspected} "
            f"pass; {blind} have ESS and k̂ in order"
        )
    return lines


def zoo(folder: Path, share_of_training: float, shrinks: Sequence[str], most: int, honest: int, seed: int) -> None:
    """Print every visit, then the tally."""
    found = []
    for system in systems(folder):
        for one in visits(system, share_of_training, shrinks, most, honest, seed):
            print(describe(one), flush=True)
            found.append(one)
    print("\n".join(tally(found)))
