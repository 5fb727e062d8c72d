"""The command md: replica exchange on the run's own energy, a reference that knows nothing of the flow.

Ladders are independent. Each begins on conformers from ETKDG with a seed of their own, another one on every rung, and
what they do in the first share of the dynamics is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boltzgen.analysis.equilibrium import Equilibrium, analyze_simulation
from boltzgen.config import Config, MdConfig
from boltzgen.dynamics.replica_exchange import geometric_temperatures
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.errors import InputError
from boltzgen.progress import Progress
from boltzgen.simulation import Simulation
from boltzgen.storage.atomic import open_hdf5, sha256_of
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.simulation import fill_simulation
from boltzgen.storage.tree import get_tree
from boltzgen.target import Target
from boltzgen.workflow.conformers import search_conformers
from boltzgen.workflow.ladders import LEAST_ROUNDS, LadderJob, Observer, Simulated, joined
from boltzgen.workflow.load import available_cores, load_target
from boltzgen.workflow.prepare import prepare
from boltzgen.workflow.preview import preview
from boltzgen.workflow.processes import simulate_all
from boltzgen.workflow.stage import Context, Stage, StageResult, Summary, writing
from boltzgen.workflow.summary import md_text, plan_of_md_text

DEFAULT_TIME = 600.0
"""Seconds, where no budget is given."""

LADDERS, FEWEST_LADDERS = 32, 4
"""With a budget for as many, and at least."""

WORTHWHILE_ROUNDS, ROUNDS_OF_TORSIONS = 500, 250
"""Rounds below which fewer ladders are taken: 100 ps, or 50 ps for each square of the slow torsions if that is more.

A chain takes nanoseconds from end to end of a ladder: there few long ones tell what many short ones do not.
"""

FEWEST_RUNGS = 8

DYNAMICS_SHARE = 0.95
"""Of the time; the rest is for the statistics and the file."""

MOST_BYTES = 2**27
"""Of frames in memory; writing takes about four times as much."""

STREAM = 0x6D64
"""Sets the random numbers of md apart from those of other stages under the same seed."""


def md(source: str | None, smiles: str | None, run: Path | None, config: Config, context: Context) -> StageResult:
    """Simulate by replica exchange: ``md.h5``; a molecule is prepared first."""
    if source is not None and Path(source).is_dir():
        directory = RunDirectory(Path(source))
    else:
        prepared = prepare(source, smiles, run, config, context, keep_same=True)
        directory = RunDirectory(prepared.run)
        context.reporter.info(prepared.text)
    target = load_target(directory)
    ladder_temperatures(config.md, target)
    stage = _stage(directory, target, config, context)
    with writing(directory):
        if stage.is_done():
            return stage.skipped()
        torch.set_num_threads(1)  # processes share ladders, not operations
        return _simulate(stage, target, config, context)


def preview_md(
    source: str | None, smiles: str | None, run: Path | None, config: Config, context: Context
) -> StageResult:
    """The plan of ``md`` for a molecule or a prepared run; fails as the command itself would on its input."""
    plan = preview(source, smiles, run, config, context, trains=False)
    settings, n_atoms = config.md, plan.summary["n_atoms"]
    temperatures = _temperatures(settings, plan.summary["temperature"], n_atoms)
    summary = {name: value for name, value in plan.summary.items() if not name.startswith(("training_", "n_param"))}
    directory = RunDirectory(plan.run)
    if "prepare" in summary["done"]:
        target = load_target(directory)
        if _stage(directory, target, config, context).is_done():
            summary["done"] = [*summary["done"], "md"]
    summary |= {
        "temperatures": temperatures,
        "ladders": settings.ladders,
        "time_budget": _time_budget(settings),
        "max_energies": settings.max_energies,
    }
    return StageResult("preview", plan.run, False, summary, plan_of_md_text(summary))


def ladder_temperatures(settings: MdConfig, target: Target) -> list[float]:
    """The temperatures in K of a ladder, the target's first.

    Raises
    ------
    InputError
        If the highest is not above the target's.
    """
    return _temperatures(settings, target.temperature, target.molecule.n_atoms)


def _temperatures(settings: MdConfig, lowest: float, n_atoms: int) -> list[float]:
    if settings.highest_temperature <= lowest:
        raise InputError(
            f"md.highest_temperature {settings.highest_temperature:g} K is not above the {lowest:g} K of the run. "
            f"Give a higher one: --set md.highest_temperature={2 * lowest:g}."
        )
    n = settings.rungs or max(FEWEST_RUNGS, math.ceil(math.sqrt(n_atoms)))
    return geometric_temperatures(lowest, settings.highest_temperature, n)


def _time_budget(settings: MdConfig) -> float | None:
    return DEFAULT_TIME if settings.time_budget is None and settings.max_energies is None else settings.time_budget


def _stage(directory: RunDirectory, target: Target, config: Config, context: Context) -> Stage:
    return Stage(
        "md",
        directory,
        directory.md_h5,
        {"md": config.md.model_dump(mode="json"), "seed": config.seed},
        {"system.h5": sha256_of(directory.system_h5)},
        target.temperature,
        config.seed,
        context,
        md_text,
        dtype="float32",
    )


def _simulate(stage: Stage, target: Target, config: Config, context: Context) -> StageResult:
    started, settings, path = time.monotonic(), config.md, stage.directory.path
    budget = _time_budget(settings)
    deadline = None if budget is None else started + DYNAMICS_SHARE * budget
    jobs, n_energies = ladder_jobs(stage.directory, target, config, deadline)
    parts = simulate_all(jobs, _Reporting(context, jobs, started, deadline))
    context.reporter.done("md")
    simulated = joined(parts)
    sound = ~simulated.failed
    if not sound.any():
        raise InputError(
            f"{path}: the energy failed in every ladder, so that the molecule has no stable structure up to "
            f"{settings.highest_temperature:g} K. Take a lower md.highest_temperature or a shorter md.timestep."
        )
    simulation = _simulation(simulated, jobs[0], sound)
    if not simulation.kept[..., 0].any():
        raise InputError(
            f"{path}: the molecule left its configuration in every frame. Take a lower md.highest_temperature."
        )
    round_trips = simulated.round_trips[sound]
    found = analyze_simulation(
        simulation, target.coordinates.n_charts, int(round_trips.sum()), int(np.count_nonzero(~sound))
    )
    walker_steps = sum(part.rounds * job.steps * job.n_walkers for part, job in zip(parts, jobs, strict=True))
    with np.errstate(invalid="ignore"):  # none may have been attempted
        acceptance = simulated.accepted / simulated.attempted
    seconds = time.monotonic() - started
    summary: Summary = {
        "n_frames": simulation.n_frames,
        "n_ladders": simulation.n_ladders,
        "temperatures": simulation.temperatures.tolist(),
        "nanoseconds": walker_steps * settings.timestep * 1e-6,
        "n_energy_evaluations": n_energies + walker_steps + sum(job.n_walkers for job in jobs),
        "acceptance": acceptance.tolist(),
        "round_trips": int(round_trips.sum()),
        "n_failed": simulated.n_failed,
        "burn_in_ps": simulation.first_time - simulation.interval,
        "frame_interval_ps": simulation.interval,
        "threads": len(jobs),
        "seconds": seconds,
        **_findings(found, seconds),
    }
    tree = {
        "attempted": simulated.attempted,
        "accepted": simulated.accepted,
        "round_trips": round_trips,
        "states": {name: states.to_tree() for name, states in found.states.items()},
        "correlation_times": {name: correlation.of_ladders for name, correlation in found.correlations.items()},
    }
    return stage.write(lambda file: fill_simulation(file, target.molecule, simulation, tree), summary)


def ladder_jobs(
    directory: RunDirectory, target: Target, config: Config, deadline: float | None
) -> tuple[list[LadderJob], int]:
    """What each process simulates, and the energies spent on their start."""
    settings, molecule = config.md, target.molecule
    temperatures = ladder_temperatures(settings, target)
    with open_hdf5(directory.system_h5) as file:
        reference = get_tree(file["conformers"])["positions"][0]
    threads = config.threads or available_cores()
    n_ladders = settings.ladders or _affordable(target, reference, len(temperatures), settings, threads, deadline)
    threads = min(threads, n_ladders)
    embedding, *noise = (int(word >> 1) for word in _words(config.seed, 1 + threads))
    search = search_conformers(molecule, reference, target.potential, n_ladders, embedding)
    found = search.positions if len(search.positions) else reference[None]
    n_energies = search.n_energies
    per_round = n_ladders * len(temperatures) * settings.steps
    rounds = None
    if settings.max_energies is not None:
        rounds = (settings.max_energies - n_energies - n_ladders * len(temperatures)) // per_round
        if rounds < 2 * LEAST_ROUNDS:
            least = n_energies + n_ladders * len(temperatures) + 2 * LEAST_ROUNDS * per_round
            raise InputError(
                f"--max-energies {settings.max_energies:,}: is too little for {n_ladders} ladders of "
                f"{len(temperatures)} temperatures. Give {least:,} or more, or fewer md.ladders."
            )
    bytes_of_one = Observer(target, reference).bytes_per_frame(molecule.n_atoms, len(temperatures))
    most_frames = min(settings.frames, MOST_BYTES // bytes_of_one) // n_ladders
    shares = np.array_split(np.arange(n_ladders), threads)
    jobs = [
        LadderJob(
            run=directory.path,
            start=_start(found, len(temperatures), ladders),
            reference=reference,
            temperatures=tuple(temperatures),
            timestep=settings.timestep,
            friction=settings.friction,
            steps=settings.steps,
            burn_in=settings.burn_in,
            most_frames=most_frames,
            seed=seed,
            rounds=rounds,
            deadline=deadline,
        )
        for ladders, seed in zip(shares, noise, strict=True)
    ]
    return jobs, n_energies


def _words(seed: int, n: int) -> list[int]:
    return [int(word) for word in np.random.SeedSequence([seed, STREAM]).generate_state(n, np.uint32)]


def _start(conformers: np.ndarray, n_rungs: int, ladders: np.ndarray) -> np.ndarray:
    """Positions ``(atoms, 3, T·W)`` of walkers: ladder w has conformer w on its first rung, the next on the second."""
    chosen = (np.arange(n_rungs)[:, None] + ladders).reshape(-1) % len(conformers)
    return np.ascontiguousarray(conformers[chosen].transpose(1, 2, 0))


def _affordable(
    target: Target, structure: np.ndarray, n_rungs: int, settings: MdConfig, threads: int, deadline: float | None
) -> int:
    """As many ladders as the budget gives a worthwhile number of rounds."""
    energies = math.inf if settings.max_energies is None else settings.max_energies
    if deadline is not None:
        energies = min(energies, threads * _rate(target, structure, n_rungs) * (deadline - time.monotonic()))
    of_one = n_rungs * settings.steps * max(WORTHWHILE_ROUNDS, ROUNDS_OF_TORSIONS * target.coordinates.n_slow**2)
    return int(min(LADDERS, max(FEWEST_LADDERS, energies // of_one)))


def _rate(target: Target, structure: np.ndarray, n_rungs: int) -> float:
    """Energies with forces a second, of one thread."""
    potential = PotentialEnergy.from_tree(target.potential.to_tree(), torch.float32)
    one = torch.as_tensor(structure, dtype=torch.float32)[..., None]
    x = one.repeat(1, 1, n_rungs * FEWEST_LADDERS)
    potential.evaluate(one)  # starts what is started once
    began = time.monotonic()
    potential.evaluate(x)
    return x.shape[-1] / max(1e-9, time.monotonic() - began)


class _Reporting:
    """Progress from the rounds of all processes."""

    def __init__(self, context: Context, jobs: Sequence[LadderJob], started: float, deadline: float | None) -> None:
        self._context, self._jobs = context, jobs
        self._started, self._deadline = started, deadline
        self._began = time.monotonic()

    def __call__(self, rounds: list[int]) -> None:
        now, first = time.monotonic(), self._jobs[0]
        fraction, left = 0.0, None
        if first.rounds is not None:
            fraction = min(rounds) / first.rounds
            left = (now - self._began) * (1.0 - fraction) / fraction if fraction else None
        if self._deadline is not None:
            of_time = (now - self._started) / (self._deadline - self._started)
            fraction = max(fraction, of_time)
            left = min(self._deadline - now, math.inf if left is None else left)
        steps = sum(n * job.steps * job.n_walkers for n, job in zip(rounds, self._jobs, strict=True))
        fields: dict[str, float | int | str] = {"energies": steps, "ns": steps * first.timestep * 1e-6}
        self._context.reporter.progress(Progress("md", min(1.0, fraction), left, fields))


def _simulation(simulated: Simulated, job: LadderJob, sound: np.ndarray) -> Simulation:
    """The sound ladders, ladder by ladder."""
    columns = {
        name: np.ascontiguousarray(values[:, :, sound].transpose(2, 0, 1))
        for name, values in simulated.frames.items()
        if name != "positions"
    }
    picoseconds = job.steps * job.timestep * 1e-3
    return Simulation(
        temperatures=np.array(job.temperatures),
        positions=np.ascontiguousarray(simulated.frames["positions"][:, sound].transpose(1, 0, 2, 3)),
        energies=columns["energies"],
        torsions={
            name.removeprefix("torsion "): values for name, values in columns.items() if name.startswith("torsion ")
        },
        kept=columns["kept"],
        shapes=columns["shapes"],
        first_time=(simulated.burn_in + simulated.every) * picoseconds,
        interval=simulated.every * picoseconds,
    )


def _findings(found: Equilibrium, seconds: float) -> Summary:
    """What the analysis found, as plain values."""

    def population(name: str) -> dict[str, Any]:
        one = found.populations[name]
        by_mbar = None
        if one.mbar is not None:
            by_mbar = {"value": one.mbar.value, "stderr": one.mbar.stderr, "asymptotic_stderr": one.asymptotic}
        return {"value": one.counted.value, "stderr": one.counted.stderr, "effective": one.effective, "mbar": by_mbar}

    return {
        "populations": {name: population(name) for name in found.populations},
        "kept_share": found.kept_share,
        "correlations": {
            name: {"picoseconds": one.picoseconds, "effective_samples": one.effective}
            for name, one in found.correlations.items()
        },
        "slowest": found.slowest,
        "effective_samples": found.effective,
        "effective_samples_per_second": None if found.effective is None else found.effective / seconds,
        "mbar_frames": found.mbar_frames,
        "mbar_effective": found.mbar_effective,
        "converged": not found.reasons,
        "reasons": list(found.reasons),
    }
