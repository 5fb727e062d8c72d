"""Ladders of replica exchange as one process runs them: dynamics, what is kept of it, and when it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boltzgen.analysis.torsions import dihedral
from boltzgen.coordinates.configuration import Configuration
from boltzgen.dynamics.langevin import slowed_masses
from boltzgen.dynamics.replica_exchange import Frame, ReplicaExchange
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.storage.runs import RunDirectory
from boltzgen.target import Target
from boltzgen.workflow.load import load_target

LEAST_ROUNDS = 10
"""Rounds after the burn-in that are done even where the time is over."""

Report = Callable[[int], None]
"""Called after each round with the number of rounds done."""


@dataclass(frozen=True)
class LadderJob:
    """What one process simulates.

    ``start (atoms, 3, T·W)`` in nm: walker t·W + w starts on rung t of ladder w. ``rounds`` counts all, burn-in
    included, and ``deadline`` is a time of the monotonic clock; whichever comes first ends the dynamics. ``burn_in`` is
    a share of it. ``most_frames`` are kept of each ladder. ``reference (atoms, 3)`` has the configuration of the
    molecule.
    """

    run: Path
    start: np.ndarray
    reference: np.ndarray
    temperatures: tuple[float, ...]
    timestep: float
    friction: float
    steps: int
    burn_in: float
    most_frames: int
    seed: int
    rounds: int | None
    deadline: float | None

    @property
    def n_ladders(self) -> int:
        """W."""
        return self.start.shape[-1] // len(self.temperatures)

    @property
    def n_walkers(self) -> int:
        """T·W."""
        return self.start.shape[-1]


@dataclass(frozen=True)
class Simulated:
    """What came of a job.

    ``frames`` has arrays ``(F, T, W)`` by name, ``positions (F, W, atoms, 3)`` among them of the first rung alone; one
    frame every ``every`` rounds after the ``burn_in`` rounds. ``attempted`` and ``accepted`` are ``(T − 1,)``,
    ``round_trips`` and ``failed`` ``(W,)``; these are of the rounds after the burn-in.
    """

    frames: dict[str, np.ndarray]
    every: int
    burn_in: int
    rounds: int
    attempted: np.ndarray
    accepted: np.ndarray
    round_trips: np.ndarray
    failed: np.ndarray
    n_failed: int


class ThinnedFrames:
    """Every ``every``-th of a stream of frames; whenever more than ``most`` are there, every other one goes."""

    def __init__(self, most: int, every: int = 1) -> None:
        self.most, self.every = max(2, most), every
        self._frames: list[dict[str, np.ndarray]] = []

    def wants(self, number: int) -> bool:
        """Whether the frame of this number, counted from 1, is to be added."""
        return number % self.every == 0

    def add(self, frame: dict[str, np.ndarray]) -> None:
        """Keep a frame that is wanted."""
        self._frames.append(frame)
        if len(self._frames) > self.most:
            self.every *= 2
            self._frames = self._frames[1::2]

    def stacked(self) -> dict[str, np.ndarray]:
        """All frames, the first axis being time."""
        return {name: np.stack([frame[name] for frame in self._frames]) for name in self._frames[0]}


class Observer:
    """What is kept of a frame of all ladders: energies, torsions and shapes on all rungs, positions on the first."""

    def __init__(self, target: Target, reference: np.ndarray) -> None:
        self._torsions = target.molecule.torsions
        self._atlas = target.coordinates.to(torch.float32) if target.coordinates.n_charts > 1 else None
        self._configuration = Configuration(target.molecule, reference)

    def __call__(self, frame: Frame) -> dict[str, np.ndarray]:
        """Arrays ``(T, W)``, and ``positions (W, atoms, 3)``."""
        order = frame.walker_at.reshape(-1)
        x = frame.walkers.positions[..., order]
        positions = x.permute(2, 0, 1).numpy()
        shapes = torch.zeros(len(order)) if self._atlas is None else self._atlas.assign(x)
        columns = {
            "energies": frame.walkers.energy[order].numpy(),
            "kept": self._configuration.is_kept(x).numpy(),
            "shapes": shapes.numpy().astype(np.int16),
            **{f"torsion {name}": dihedral(positions, atoms) for name, atoms in self._torsions.items()},
        }
        kept = {
            name: (values.astype(np.float32) if values.dtype.kind == "f" else values).reshape(frame.walker_at.shape)
            for name, values in columns.items()
        }
        return {**kept, "positions": positions[: frame.walker_at.shape[1]].copy()}

    def bytes_per_frame(self, n_atoms: int, n_rungs: int) -> int:
        """Memory of a frame of one ladder."""
        return 12 * n_atoms + n_rungs * (4 * len(self._torsions) + 7)


def simulate(job: LadderJob, report: Report) -> Simulated:
    """Run the ladders of a job."""
    torch.set_num_threads(1)
    target = load_target(RunDirectory(job.run))
    replicas = _replicas(target, job)
    observe = Observer(target, job.reference)
    started = time.monotonic()
    end_of_burn_in = None if job.deadline is None else started + job.burn_in * (job.deadline - started)
    of_burn_in = 0 if job.rounds is None else int(job.burn_in * job.rounds)
    burnt = 0
    if job.burn_in > 0:
        result = replicas.run(
            of_burn_in if job.rounds is not None else sys.maxsize,
            steps=job.steps,
            keep_on=_until(end_of_burn_in, 1, report),
        )
        burnt = result.n_exchanges
    n = sys.maxsize if job.rounds is None else job.rounds - of_burn_in
    frames = ThinnedFrames(job.most_frames, 1 if job.rounds is None else -(-n // job.most_frames))

    def keep(frame: Frame) -> None:
        if frames.wants(frame.exchange):
            frames.add(observe(frame))

    result = replicas.run(
        n,
        steps=job.steps,
        observer=keep,
        keep_on=_until(job.deadline, LEAST_ROUNDS, lambda done: report(burnt + done)),
    )
    return Simulated(
        frames=frames.stacked(),
        every=frames.every,
        burn_in=burnt,
        rounds=burnt + result.n_exchanges,
        attempted=result.attempted.numpy(),
        accepted=result.accepted.numpy(),
        round_trips=result.round_trips.sum(dim=0).numpy(),
        failed=result.failed.numpy(),
        n_failed=result.n_failed,
    )


def _until(end: float | None, least: int, report: Report) -> Callable[[int], bool]:
    """Go on until a time of the monotonic clock, for ``least`` rounds in any case."""

    def keep_on(done: int) -> bool:
        report(done)
        return done < least or end is None or time.monotonic() < end

    return keep_on


def _replicas(target: Target, job: LadderJob) -> ReplicaExchange:
    molecule = target.molecule
    return ReplicaExchange(
        PotentialEnergy.from_tree(target.potential.to_tree(), torch.float32),
        torch.as_tensor(job.start, dtype=torch.float32),
        slowed_masses(molecule.masses, molecule.bonds),
        job.temperatures,
        friction=job.friction,
        timestep=job.timestep,
        recentre=True,
        generator=torch.Generator().manual_seed(job.seed),
    )


def joined(parts: list[Simulated]) -> Simulated:
    """The ladders of several processes as those of one: thinned to a common interval, and cut to a common length."""
    every = max(part.every for part in parts)
    thinned = [
        {name: values[every // part.every - 1 :: every // part.every] for name, values in part.frames.items()}
        for part in parts
    ]
    length = min(len(frames["energies"]) for frames in thinned)
    axis = {"positions": 1}

    def together(name: str) -> np.ndarray:
        return np.concatenate([frames[name][:length] for frames in thinned], axis=axis.get(name, 2))

    def summed(name: str) -> Any:
        return sum(getattr(part, name) for part in parts)

    return Simulated(
        frames={name: together(name) for name in thinned[0]},
        every=every,
        burn_in=max(part.burn_in for part in parts),
        rounds=max(part.rounds for part in parts),
        attempted=summed("attempted"),
        accepted=summed("accepted"),
        round_trips=np.concatenate([part.round_trips for part in parts]),
        failed=np.concatenate([part.failed for part in parts]),
        n_failed=summed("n_failed"),
    )
