"""Variants of the method at equal seconds: what each part of it is worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from trained import Record, angles_of, judge, populations

from boltzgen.flow.generator import Architecture
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.storage.runs import RunDirectory
from boltzgen.target import Target
from boltzgen.training.annealing import Schedule
from boltzgen.training.method import ANNEALED, ENERGY, Method
from boltzgen.training.trainer import Trainer, TrainSettings
from boltzgen.workflow.load import load_target


class ShortSchedule(Schedule):
    """The batches of a short training, whatever the budget."""

    def batch(self, progress: float, draws: float = 0.0) -> int:
        return super().batch(progress)


@dataclass(frozen=True)
class Variant:
    """What is changed."""

    method: Method = ANNEALED
    schedule: type[Schedule] = Schedule


VARIANTS = {
    "base": Variant(),
    "no hierarchy": Variant(ENERGY),
    "no broad draws": Variant(replace(ANNEALED, broad_share=0.0)),
    "no cooling": Variant(replace(ANNEALED, cools=False)),
    "no mass covering": Variant(replace(ANNEALED, replay=0.0, through_slow=True)),
    "no batch growth": Variant(schedule=ShortSchedule),
}


def ablate(
    run: Path, names: list[str], seconds: float, seeds: list[int], threads: int, n_samples: int
) -> Iterator[tuple[str, int, Record]]:
    """Train every variant with every seed, one after another, and judge it: name, seed, figures."""
    target = load_target(RunDirectory(run))
    for seed in seeds:
        for name in names:
            yield name, seed, _figures(target, VARIANTS[name], seconds, seed, threads, n_samples)


def _figures(target: Target, variant: Variant, seconds: float, seed: int, threads: int, n_samples: int) -> Record:
    settings = TrainSettings(None, time_budget=seconds, seed=seed, method=variant.method)
    trainer = Trainer(target, Architecture.of(target.coordinates), settings, threads=threads)
    trainer.schedule = variant.schedule(learning_rate=settings.learning_rate)
    trainer.run(lambda progress: None, lambda: True, lambda: None)
    figures, samples = judge(BoltzmannGenerator(target, trainer.result), n_samples, seed)
    angles = angles_of(target.molecule, samples)
    return {
        **figures,
        "energies": trainer.counts()["n_energy_evaluations"],
        "populations": populations(target.molecule, angles, samples.log_weight),
    }
