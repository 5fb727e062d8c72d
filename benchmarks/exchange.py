"""Replica exchange of a prepared run for a given time: positions at the lowest temperature, ladder by ladder.

The engine, the starts and the processes are those of ``boltzgen md``, without its statistics and its file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from reference import Recorder, Reference

from boltzgen.config import resolve_config
from boltzgen.storage.atomic import open_hdf5
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.tree import get_tree
from boltzgen.workflow.ladders import joined
from boltzgen.workflow.load import load_target
from boltzgen.workflow.md import ladder_jobs
from boltzgen.workflow.processes import simulate_all


@dataclass(frozen=True)
class Ladders:
    """How the exchange is done; of a number of rungs not given, √atoms are taken, at least eight."""

    count: int = 32
    rungs: int | None = None
    highest: float = 1000.0  # K
    timestep: float = 2.0  # fs
    swap: int = 100  # steps between exchanges
    burn_in: float = 0.2  # share of the time after the start


@dataclass(frozen=True)
class Trajectory:
    """What came of it: ``positions (ladders, frames, atoms, 3)`` in nm, float32, of the ladders that did not fail.

    ``nanoseconds`` and ``energies`` are of all walkers, burn-in included.
    """

    positions: np.ndarray
    nanoseconds: float
    energies: int
    seconds: float
    acceptance: np.ndarray
    round_trips: int
    n_failed: int

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
    """Run for ``seconds``, start and burn-in included, and keep at most ``frames`` positions in all."""
    started = time.monotonic()
    flags = {
        "seed": seed,
        "threads": threads,
        "md.ladders": ladders.count,
        "md.rungs": ladders.rungs,
        "md.highest_temperature": ladders.highest,
        "md.timestep": ladders.timestep,
        "md.steps": ladders.swap,
        "md.burn_in": ladders.burn_in,
        "md.frames": frames,
    }
    config = resolve_config(None, [], {key: value for key, value in flags.items() if value is not None})
    directory = RunDirectory(run)
    jobs, _ = ladder_jobs(directory, load_target(directory), config, started + seconds)
    parts = simulate_all(jobs, lambda rounds: None)
    whole = joined(parts)
    steps = sum(part.rounds * job.steps * job.n_walkers for part, job in zip(parts, jobs, strict=True))
    return Trajectory(
        whole.frames["positions"][:, ~whole.failed].transpose(1, 0, 2, 3),
        steps * ladders.timestep * 1e-6,
        steps,
        time.monotonic() - started,
        whole.accepted / whole.attempted,
        int(whole.round_trips.sum()),
        whole.n_failed,
    )


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
