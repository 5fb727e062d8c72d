"""No two computations of a run share random numbers."""

from __future__ import annotations

from itertools import product

import numpy as np
from one_torsion import OneTorsion

from boltzgen.random_streams import Purpose, random_stream
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.training.trainer import Trainer, TrainSettings


def test_purposes_and_seeds_are_told_apart():
    """Also a seed of several numbers from the same with zeros behind it, which the plain hash takes for equal."""
    seeds = [seed for n in (1, 2, 3) for seed in product(range(3), repeat=n)]
    streams = {random_stream(purpose, seed).initial_seed() for purpose in Purpose for seed in seeds}
    assert len(streams) == len(Purpose) * len(seeds)
    assert random_stream(Purpose.SAMPLES, 1).initial_seed() == random_stream(Purpose.SAMPLES, [1]).initial_seed()


def test_training_exchange_and_sampling_of_one_seed_never_share_a_stream(monkeypatch):
    seen = []

    class Recorded(np.random.SeedSequence):
        def __init__(self, entropy):
            super().__init__(entropy)
            seen.append(tuple(self.generate_state(4)))

    monkeypatch.setattr(np.random, "SeedSequence", Recorded)
    for name, value in {"rounds.LEAST_ROUND": 50, "challengers.STEPS": 2, "challengers.RELAXATION": 2}.items():
        monkeypatch.setattr(f"boltzgen.training.{name}", value)
    double = OneTorsion((2, 0.0, 15.0))
    trainer = Trainer(double.target, double.architecture, TrainSettings(20_000, exchange_share=0.5))
    steps = iter(range(20))
    trainer.run(lambda p: None, lambda: next(steps, None) is not None, lambda: None)
    assert trainer.challengers.rounds > 2
    assert trainer.memory.hot is not None
    BoltzmannGenerator(double.target, trainer.result).sample(4, refine=1, seed=0)
    for shard in (1, 2):
        BoltzmannGenerator(double.target, trainer.result).sample(4, seed=[0, shard, 2])
    assert len(seen) > 20 + 2 + 1 + 2 + 2
    assert len(set(seen)) == len(seen)
