"""Replica exchange of a prepared run for a given time: positions at the lowest temperature, ladder by ladder.

The engine is the batched one of ``boltzgen.dynamics``. Ladders are independent. Each begins on its own structures,
conformers from ETKDG with the seed of this run, another one on every rung; what they did in the first share of the time
is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from reference import Recorder, Reference

from boltzgen.dynamics.langevin import repartition_hydrogen_masses
from boltzgen.dynamics.replica_exchange import Frame, ReplicaExchange, geometric_temperatures
from boltzgen.energy import PotentialEnergy
from boltzgen.storage.atomic import open_hdf5
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.tree import get_tree
from boltzgen.target import Target
from boltzgen.workflow.conformers import search_conformers
from boltzgen.workflow.load import load_target


@dataclass(frozen=True)
class Ladders:
    """How the exchange is done; of a number of rungs not given, √atoms are taken, at least eight."""

    count: int = 32
    rungs: int | None = None
    highest: float = 1000.0  # K
    timestep: float = 2.0  # fs
    hydrogen_mass: float = 3.0  # dalton
    swap: int = 100  # steps between exchanges
    burn_in: float = 0.2  # share of the time after the start


@dataclass(frozen=True)
class Trajectory:
    """What came of it: ``positions (ladders, frames, atoms, 3)`` in nm, float32, of the ladders that did not fail.

    ``nanoseconds`` and ``energies`` are of all walkers, burn-in included; ``seconds`` are of the slowest process.
    """

    positions: np.ndarray
    nanoseconds: float
    energies: int
    seconds: float
    acceptance: np.ndarray
    round_trips: int
    n_failed: int

    @classmethod
    def of(cls, parts: list[Trajectory]) -> Trajectory:
        """Join ladders of several processes, cut to equal length."""
        length = min(part.positions.shape[1] for part in parts)
        return cls(
            np.concatenate([part.positions[:, :length] for part in parts]),
            sum(part.nanoseconds for part in parts),
            sum(part.energies for part in parts),
            max(part.seconds for part in parts),
            np.mean([part.acceptance for part in parts], axis=0),
            sum(part.round_trips for part in parts),
            sum(part.n_failed for part in parts),
        )

    def save(self, path: Path, reference: Reference) -> None:
        """One npz file with the torsions for ``compare.py``."""
        reference.save(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Trajectory:
        with np.load(path) as stored:
            values = {name: stored[name] for name in cls.__dataclass_fields__}
        return cls(**{name: value if value.ndim else value.item() for name, value in values.items()})


def exchange(
    run: Path, ladders: Ladders, seconds: float, seed: int, threads: int = 1, frames: int = 100_000
) -> Trajectory:
    """Run for ``seconds``, start and burn-in included, and keep about ``frames`` positions in all.

    ``threads`` processes share the ladders, each with a seed of its own.
    """
    shares = [(ladders.count + k) // threads for k in range(threads)]
    work = partial(_simulate, run, ladders, seconds, frames // threads)
    seeds = [[seed, k] for k in range(threads)]
    if threads == 1:
        return work(shares[0], seeds[0])
    with ProcessPoolExecutor(threads, get_context("spawn")) as pool:
        return Trajectory.of(list(pool.map(work, shares, seeds)))


def reference_of(run: Path, trajectory: Trajectory) -> Reference:
    """Torsions of all frames, and which of them the flow can give."""
    directory = RunDirectory(run)
    target = load_target(directory)
    recorder = Recorder(target, _structure(directory))
    for frame in _frames(trajectory.positions):
        recorder(frame)
    return recorder.reference(target.temperature, np.ones(len(trajectory.positions), dtype=bool))


def _frames(positions: np.ndarray) -> Iterable[torch.Tensor]:
    """``(atoms, 3, ladders)`` of each frame."""
    return (torch.as_tensor(positions[:, k]).permute(1, 2, 0) for k in range(positions.shape[1]))


def _structure(directory: RunDirectory) -> np.ndarray:
    """The lowest conformer ``(atoms, 3)`` of a prepared run."""
    with open_hdf5(directory.system_h5) as file:
        return get_tree(file["conformers"])["positions"][0]


def _simulate(run: Path, ladders: Ladders, seconds: float, frames: int, count: int, seed: list[int]) -> Trajectory:
    started = time.perf_counter()
    torch.set_num_threads(1)
    directory = RunDirectory(run)
    target = load_target(directory)
    replicas = _replicas(target, _structure(directory), ladders, count, np.random.SeedSequence(seed))
    end, now = started + seconds, time.perf_counter()
    rounds, of_one = _run_until(replicas, ladders.swap, now + ladders.burn_in * (end - now))
    n = max(2, int((end - time.perf_counter()) / of_one))
    kept: list[torch.Tensor] = []

    def keep(frame: Frame) -> None:
        kept.append(frame.at(0)[0].permute(2, 0, 1).float())

    result = replicas.run(n, steps=ladders.swap, observer=keep, every=max(1, math.ceil(n * count / frames)))
    steps = (rounds + n) * ladders.swap * replicas.walkers.energy.numel()
    return Trajectory(
        torch.stack(kept, dim=1)[~result.failed].numpy(),
        steps * ladders.timestep * 1e-6,
        steps,
        time.perf_counter() - started,
        result.acceptance.numpy(),
        int(result.round_trips.sum()),
        result.n_failed,
    )


def _run_until(replicas: ReplicaExchange, swap: int, end: float) -> tuple[int, float]:
    """Do rounds until the clock shows ``end``, two at least; their number, and the seconds of one after the first."""
    replicas.run(1, steps=swap)
    started, rounds = time.perf_counter(), 0
    while rounds == 0 or time.perf_counter() < end:
        replicas.run(1, steps=swap)
        rounds += 1
    return rounds + 1, (time.perf_counter() - started) / rounds


def _replicas(
    target: Target, structure: np.ndarray, ladders: Ladders, count: int, seed: np.random.SeedSequence
) -> ReplicaExchange:
    tree, molecule = target.to_tree()["potential"], target.molecule
    embedding, noise = (int(state >> 1) for state in seed.generate_state(2, np.uint32))
    search = search_conformers(molecule, structure, PotentialEnergy.from_tree(tree), count, embedding)
    conformers = torch.as_tensor(search.positions if len(search.positions) else structure[None]).permute(1, 2, 0)
    n = ladders.rungs or max(8, math.ceil(math.sqrt(molecule.n_atoms)))
    chosen = (torch.arange(n)[:, None] + torch.arange(count)).reshape(-1) % conformers.shape[-1]
    return ReplicaExchange(
        PotentialEnergy.from_tree(tree, torch.float32),
        conformers[..., chosen].float(),
        repartition_hydrogen_masses(molecule.masses, molecule.bonds, ladders.hydrogen_mass),
        geometric_temperatures(target.temperature, ladders.highest, n),
        timestep=ladders.timestep,
        recentre=True,
        generator=torch.Generator().manual_seed(noise),
    )
