"""The trainer: resuming, counting, cooling, and that it finds what it should."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from resuming import assert_same_when_resumed, for_steps

from boltzgen.flow.architecture import Architecture
from boltzgen.training.annealing import Cooling, Schedule
from boltzgen.training.objectives import reverse_kl, score
from boltzgen.training.replay import ESS_FLOOR, HOT_CAPACITY, REPLAY_CAPACITY, _tempering
from boltzgen.training.trainer import Diverged, Trainer, TrainSettings


def trainer_on(target, **settings):
    coordinates = target.coordinates
    return Trainer(target, Architecture.of(coordinates), TrainSettings(**settings))


def run_steps(trainer, n):
    keep_on = for_steps(n)
    return trainer.run(lambda p: None, lambda: keep_on(trainer), lambda: None)


def test_threads_do_not_change_the_result(dipeptide_target):
    one, two = (trainer_on(dipeptide_target, max_energies=60_000) for _ in range(2))
    two.threads = 2
    for trainer in (one, two):
        trainer.cooling.level = trainer.cooling.levels
        assert trainer.run(lambda p: None, lambda: True, lambda: None)
        assert trainer.history[-2]["batch"] == 2048  # two parts
        assert trainer.counters.replayed > 0
    assert all(torch.equal(a, b) for a, b in zip(one.average.parameters(), two.average.parameters(), strict=True))


def test_resumed_training_is_the_same_training(dipeptide_target):
    """Also after the torsions have begun to learn from earlier draws, and after cooling steps."""
    _, broken, resumed = assert_same_when_resumed(
        lambda: trainer_on(dipeptide_target, max_energies=60_000, start_temperature=400.0), for_steps(35)
    )
    assert broken.counters.replayed > 0
    assert broken.cooling.level > 0
    assert resumed.counters.energies == 60_000


def test_energies_are_counted_exactly(dipeptide_target):
    trainer = trainer_on(dipeptide_target, max_energies=100_000)
    calls = 0
    evaluate = trainer.target.reduced_potential

    def counted(x, *args, **kwargs):
        nonlocal calls
        calls += x.shape[-1]
        return evaluate(x, *args, **kwargs)

    trainer.target.reduced_potential = counted
    run_steps(trainer, 5)
    assert trainer.counters.energies == calls == trainer.counts()["n_energy_evaluations"]


def test_failed_energies_are_counted_and_left_out(dipeptide_target):
    trainer = trainer_on(dipeptide_target, max_energies=100_000)
    evaluate = trainer.target.reduced_potential

    def broken(x, *args, **kwargs):
        return evaluate(x.masked_fill(torch.arange(x.shape[-1]) < 3, math.nan), *args, **kwargs)

    trainer.target.reduced_potential = broken
    run_steps(trainer, 2)
    assert trainer.counters.failed_energies == 6
    assert trainer.counters.skipped_steps == 0
    assert all(torch.isfinite(p).all() for p in trainer.generator.parameters())


def test_steps_without_finite_gradient_are_skipped_and_counted(dipeptide_target):
    trainer = trainer_on(dipeptide_target, max_energies=100_000)
    before = [p.detach().clone() for p in trainer.generator.parameters()]
    evaluate = trainer.target.reduced_potential
    # finite value, infinite slope
    trainer.target.reduced_potential = lambda x, *a, **k: evaluate(x, *a, **k) + (x[0, 0] * 0.0).sqrt()
    run_steps(trainer, 2)
    assert trainer.counters.skipped_steps == 2
    with pytest.raises(Diverged) as caught:
        run_steps(trainer, 50)
    assert caught.value.batch["stiff"].shape == (256, trainer.target.coordinates.n_stiff)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.generator.parameters(), strict=True))


def test_training_closes_the_gap(dipeptide_target):
    """From the harmonic start the median log weight rises by far more than its noise (about 0.3 nats)."""
    trainer = trainer_on(dipeptide_target, max_energies=30_000, start_temperature=300.0)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        start = score(trainer.average, trainer.target, 2000, rng).log_weight.median().item()
    assert trainer.run(lambda p: None, lambda: True, lambda: None)
    with torch.no_grad():
        end = score(trainer.average, trainer.target, 2000, rng).log_weight.median().item()
    assert end > start + 3.0


def test_training_survives_a_batch_without_any_energy(dipeptide_target):
    trainer = trainer_on(dipeptide_target, max_energies=100_000)
    evaluate = trainer.target.reduced_potential
    trainer.target.reduced_potential = lambda x, *a, **k: evaluate(x, *a, **k) * math.nan
    run_steps(trainer, 22)
    assert trainer.counters.failed_energies == trainer.counters.energies
    assert all(torch.isfinite(p).all() for p in trainer.generator.parameters())


def test_cooling_waits_for_the_gap_and_always_ends():
    eager, reluctant = Cooling(600.0, 300.0), Cooling(600.0, 300.0)
    for k in range(101):
        eager.update(k / 100, gap=0.5)
        reluctant.update(k / 100, gap=50.0)
        if k == 25:
            assert eager.finished
            assert not reluctant.finished
    assert eager.temperature == reluctant.temperature == pytest.approx(300.0)


def test_schedule_covers_the_whole_budget():
    schedule = Schedule()
    assert [schedule.batch(p) for p in (0.0, 0.14, 0.15, 0.5, 1.0)] == [256, 256, 512, 1024, 2048]
    assert schedule.rate(1.0, 1000) == pytest.approx(0.01 * schedule.learning_rate)


def test_batches_grow_with_the_budget_and_are_bounded():
    schedule = Schedule()
    assert [schedule.batch(0.0, n) for n in (1e3, 6e5, 5e6, 2e7, 1e12)] == [256, 256, 1024, 2048, 4096]
    assert [Schedule(share=0.5).batch(p, 1e6) for p in (0.0, 1.0)] == [256, 2048]


def test_tempering_keeps_the_effective_share():
    log_weight = 5.0 * torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    power = _tempering(log_weight)
    weights = torch.softmax(power * log_weight, 0)
    assert 1.0 / (weights.square().sum() * len(weights)) == pytest.approx(ESS_FLOOR, rel=1e-3)
    assert _tempering(0.1 * log_weight / 5.0) == 1.0


def test_clipped_loss_equals_the_plain_one_without_outliers(dipeptide_target):
    trainer = trainer_on(dipeptide_target, max_energies=1000)
    scored = score(trainer.generator, trainer.target, 64, torch.Generator().manual_seed(0))
    narrow = replace(scored, log_weight=scored.log_weight * 1e-3)
    loss = -narrow.log_weight
    assert reverse_kl(narrow).item() == pytest.approx((loss - loss.median()).mean().item(), rel=1e-5)  # float32


def test_draws_of_other_temperatures_are_remembered_and_kept_apart(dipeptide_target):
    trainer = trainer_on(dipeptide_target, max_energies=40_000)
    assert trainer.run(lambda p: None, lambda: True, lambda: None)
    heats = [trainer.memory.heat(level) for level in range(trainer.cooling.levels + 1)]
    pools = [trainer.memory.replay.pool(heat) for heat in heats]
    assert all(
        pool is not None and bool((pool.draws.slow.heat == heat).all()) for pool, heat in zip(pools, heats, strict=True)
    )
    assert len(pools[0].weights) < REPLAY_CAPACITY * HOT_CAPACITY
    assert heats[-1] == 0.0


def test_a_last_batch_of_a_few_draws_is_trained_on(dipeptide_target):
    """A tenth of it is no draw at a temperature passed before, which multinomial sampling refuses."""
    trainer = trainer_on(dipeptide_target, max_energies=20_738)
    assert trainer.run(lambda p: None, lambda: True, lambda: None)
    assert trainer.history[-1]["batch"] == 2
    assert trainer.counters.energies == 20_738
