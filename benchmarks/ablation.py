"""Variants of the method at equal seconds or energies: what each part of it is worth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from trained import Record, angles_of, judge, populations

from boltzgen.config import SampleConfig
from boltzgen.coordinates.atlas import Atlas
from boltzgen.coordinates.fitting import fit_coordinates
from boltzgen.coordinates.harmonic import whitened
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.storage.atomic import open_hdf5
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.tree import get_tree
from boltzgen.target import Target
from boltzgen.training.annealing import Schedule
from boltzgen.training.method import ANNEALED, ENERGY, Method
from boltzgen.training.objectives import PAIR_SOFTENING
from boltzgen.training.optimizer import Optimizer
from boltzgen.training.trainer import Trainer, TrainSettings
from boltzgen.workflow.load import drawing_temperatures, load_target


class ShortSchedule(Schedule):
    """The batches of a short training, whatever the budget."""

    def batch(self, progress: float, draws: float = 0.0) -> int:
        return super().batch(progress)


class PlainAdam(Optimizer):
    """Adam for all weights."""

    def __init__(self, generator: Generator) -> None:
        super().__init__(generator)
        self._hidden, self._momenta = [], []
        self._adam = torch.optim.Adam(generator.parameters(), fused=True)


def whitened_by_one(target: Target, conformers: np.ndarray) -> Atlas:
    """The whitening of the lowest minimum alone, of a molecule with one chart."""
    [chart] = target.coordinates.charts
    potential, planar = _softened(target), target.molecule.planar_atoms
    return Atlas([whitened(chart, conformers[:1], potential, planar)])


def without_rotors(target: Target, conformers: np.ndarray) -> Atlas:
    """Symmetric rotors as ordinary slow torsions, with equal modes to be learnt."""
    zmatrix = target.coordinates.zmatrix.with_rotors(())
    planar = target.molecule.planar_atoms
    return fit_coordinates(zmatrix, conformers[0], _softened(target), planar, conformers=conformers).coordinates


def _softened(target: Target) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: target.reduced_potential(x, softening=PAIR_SOFTENING)


@dataclass(frozen=True)
class Variant:
    """What is changed."""

    method: Method = ANNEALED
    schedule: type[Schedule] = Schedule
    optimizer: type[Optimizer] = Optimizer
    exchange_share: float | None = TrainSettings.exchange_share
    hot_share: float = SampleConfig().hot_share
    """Of the samples."""

    coordinates: Callable[[Target, np.ndarray], Atlas] | None = None
    """Of a target and its conformers."""

    path_gradients: bool = True


VARIANTS = {
    "base": Variant(),
    "whole gradients": Variant(path_gradients=False),
    "no mixture in samples": Variant(hot_share=0.0),
    "one temperature": Variant(replace(ANNEALED, hot_share=0.0)),
    "no challengers": Variant(replace(ANNEALED, challengers=0.0), exchange_share=0.0),
    "Adam alone": Variant(optimizer=PlainAdam),
    "whitening by one minimum": Variant(coordinates=whitened_by_one),
    "no rotor symmetry": Variant(coordinates=without_rotors),
    "no hierarchy": Variant(ENERGY),
    "no broad draws": Variant(replace(ANNEALED, broad_share=0.0)),
    "no cooling": Variant(replace(ANNEALED, cools=False)),
    "no mass covering": Variant(replace(ANNEALED, replay=0.0, through_slow=True)),
    "no batch growth": Variant(schedule=ShortSchedule),
}


def ablate(
    run: Path,
    names: list[str],
    energies: int | None,
    seconds: float | None,
    seeds: list[int],
    threads: int,
    n_samples: int,
) -> Iterator[tuple[str, int, Record]]:
    """Train every variant with every seed, one after another, and judge it: name, seed, figures."""
    directory = RunDirectory(run)
    target = load_target(directory)
    with open_hdf5(directory.system_h5) as file:
        conformers = get_tree(file["conformers"])["positions"]
    for seed in seeds:
        for name in names:
            variant = VARIANTS[name]
            mine = target
            if variant.coordinates:
                atlas = variant.coordinates(target, conformers)
                mine = Target(target.molecule, target.potential, atlas, target.temperature)
            settings = TrainSettings(energies, seconds, seed=seed, method=variant.method)
            settings = replace(settings, exchange_share=variant.exchange_share)
            yield name, seed, _figures(mine, variant, settings, threads, n_samples)


def _figures(target: Target, variant: Variant, settings: TrainSettings, threads: int, n_samples: int) -> Record:
    trainer = Trainer(target, Architecture.of(target.coordinates), settings, threads=threads)
    trainer.schedule = variant.schedule(learning_rate=settings.learning_rate)
    trainer.optimizer = variant.optimizer(trainer.generator)
    if not variant.path_gradients:
        trainer.generator.twin = lambda: None
    started = time.process_time()
    trainer.run(lambda progress: None, lambda: True, lambda: None)
    spent = time.process_time() - started
    temperatures = drawing_temperatures(SampleConfig(hot_share=variant.hot_share), target, trainer.hottest)
    figures, samples = judge(
        BoltzmannGenerator(target, trainer.result, temperatures=temperatures), n_samples, settings.seed
    )
    angles = angles_of(target.molecule, samples)
    return {
        **figures,
        "cpu_seconds": spent,
        "energies": trainer.counts()["n_energy_evaluations"],
        "populations": populations(target.molecule, angles, samples.log_weight),
    }
