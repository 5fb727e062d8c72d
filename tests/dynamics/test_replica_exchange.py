"""Replica exchange against exact populations, and its own accounts. Bounds are four standard errors of ladders."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_energies import CHAIN, TORSION, DoubleWell, Harmonic, Wall, chain_system

from boltzgen.analysis.torsions import dihedral
from boltzgen.constants import GAS_CONSTANT, thermal_energy
from boltzgen.dynamics.replica_exchange import Frame, ReplicaExchange, geometric_temperatures
from boltzgen.energy import from_openmm
from boltzgen.errors import InputError

SIGMAS = 4.0
LADDERS = 200


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_population(inside: np.ndarray, exact: float) -> None:
    """Mean over (frames, ladders) against the exact value, with the scatter of the ladders as the error."""
    ladders = inside.mean(axis=0)
    error = ladders.std(ddof=1) / math.sqrt(len(ladders))
    assert abs(ladders.mean() - exact) < SIGMAS * error
    assert error < 0.02


def test_double_well_populations_are_exact_at_each_temperature():
    """All walkers start in the shallower well; only exchange and barrier crossing put them right."""
    potential = DoubleWell()
    temperatures = geometric_temperatures(150.0, 600.0, 4)
    start = torch.zeros(1, 3, 4 * LADDERS, dtype=torch.float64)
    start[0, 0] = potential.a
    exchange = ReplicaExchange(
        potential, start, [12.0], temperatures, friction=5.0, timestep=5.0, generator=generator()
    )
    exchange.run(400, steps=10)
    left: list[list[np.ndarray]] = [[] for _ in temperatures]

    def observe(frame: Frame) -> None:
        for rung, kept in enumerate(left):
            kept.append((frame.at(rung)[0][0, 0] < 0).numpy())

    result = exchange.run(400, steps=10, observer=observe, every=4)
    x = torch.linspace(-0.4, 0.4, 8001, dtype=torch.float64)
    for temperature, kept in zip(temperatures, left, strict=True):
        assert len(kept) == 100
        weight = torch.exp(-potential.profile(x) / thermal_energy(temperature))
        assert_population(np.array(kept), float(weight[x < 0].sum() / weight.sum()))
    assert result.n_failed == 0
    assert bool((result.acceptance > 0.2).all())
    # Wherever a walker began, it spends a quarter of its time on each rung.
    error = result.occupancy.std(dim=1) / math.sqrt(LADDERS)
    assert bool(((result.occupancy.mean(dim=1) - 0.25).abs() < SIGMAS * error).all())
    assert float(error.max()) < 0.01
    assert float(result.round_trips.double().mean()) > 5.0


def test_torsion_populations_of_a_system_are_exact_at_each_temperature():
    system = chain_system()
    temperatures = [250.0, 350.0, 500.0]
    potential = from_openmm(system)
    start = torch.tensor(CHAIN, dtype=torch.float64)[..., None].repeat(1, 1, 3 * LADDERS)
    exchange = ReplicaExchange(
        potential, start, [12.0] * 4, temperatures, friction=5.0, timestep=2.0, recentre=True, generator=generator(1)
    )
    exchange.run(200, steps=25)
    angles: list[list[np.ndarray]] = [[] for _ in temperatures]

    def observe(frame: Frame) -> None:
        assert float(frame.walkers.positions.mean(dim=0).abs().max()) < 1e-12
        for rung, kept in enumerate(angles):
            kept.append(dihedral(frame.at(rung)[0].permute(2, 0, 1).numpy(), (0, 1, 2, 3)))

    exchange.run(150, steps=25, observer=observe, every=3)
    phi = np.linspace(-np.pi, np.pi, 7200, endpoint=False)
    profile = sum(k * (1.0 + np.cos(n * phi - phase)) for n, k, phase in TORSION)
    for temperature, kept in zip(temperatures, angles, strict=True):
        weight = np.exp(-profile / thermal_energy(temperature))
        assert_population(np.array(kept) > 0, float(weight[phi > 0].sum() / weight.sum()))
        assert_population(np.abs(kept) > 2 * np.pi / 3, float(weight[np.abs(phi) > 2 * np.pi / 3].sum() / weight.sum()))


def harmonic_exchange(
    n_atoms: int, temperatures: list[float], ladders: int, friction: float, seed: int
) -> ReplicaExchange:
    """Harmonic wells that start in equilibrium on every rung."""
    k, rng = 1000.0, generator(seed)
    spread = (GAS_CONSTANT * torch.tensor(temperatures, dtype=torch.float64) / k).sqrt().repeat_interleave(ladders)
    start = torch.randn(n_atoms, 3, len(spread), dtype=torch.float64, generator=rng) * spread
    masses = [12.0] * n_atoms
    return ReplicaExchange(
        Harmonic([k] * n_atoms), start, masses, temperatures, friction=friction, timestep=2.0, generator=rng
    )


def test_acceptance_is_that_of_harmonic_oscillators():
    """For a quadratic energy in d coordinates U/kT is Gamma(d/2), which gives the acceptance by sampling."""
    exchange = harmonic_exchange(4, [300.0, 400.0], 2000, friction=5.0, seed=2)
    result = exchange.run(39, steps=50)  # pairs (0, 1) in every other round
    assert result.attempted.tolist() == [20 * 2000]
    low, high = np.random.default_rng(0).gamma(6.0, size=(2, 2_000_000)) * [[thermal_energy(t)] for t in (300.0, 400.0)]
    exponent = (1 / thermal_energy(300.0) - 1 / thermal_energy(400.0)) * (low - high)
    exact = np.minimum(1.0, np.exp(exponent)).mean()
    # Successive rounds of a pair are correlated; 2000 ladders alone bound the error from above.
    assert abs(float(result.acceptance[0]) - exact) < SIGMAS * math.sqrt(exact * (1 - exact) / 2000)


def test_velocities_follow_the_temperature():
    """With hardly any friction, only the scaling at exchanges keeps each rung at its temperature."""
    temperatures = geometric_temperatures(200.0, 800.0, 4)
    exchange = harmonic_exchange(1, temperatures, 1000, friction=0.01, seed=3)
    result = exchange.run(30, steps=50)
    assert bool((result.acceptance > 0.3).all())
    for rung, temperature in enumerate(temperatures):
        index = exchange.walker_at[rung]
        for squared in (12.0 * exchange.walkers.velocities.square(), 1000.0 * exchange.walkers.positions.square()):
            ratio = squared[:, :, index].flatten() / thermal_energy(temperature)
            assert abs(float(ratio.mean()) - 1.0) < SIGMAS * float(ratio.std()) / math.sqrt(len(ratio))


def test_ladders_with_a_failed_walker_are_named_and_others_go_on():
    potential = Wall([1000.0], edge=0.6)
    start = torch.zeros(1, 3, 3 * 8, dtype=torch.float64)
    start[0, 0, 8 + 2] = 0.7  # rung 1, ladder 2
    exchange = ReplicaExchange(potential, start, [12.0], [300.0, 400.0, 500.0], timestep=2.0, generator=generator(4))
    result = exchange.run(10, steps=5)
    assert result.n_failed == 1
    assert result.failed.nonzero().flatten().tolist() == [2]
    assert result.attempted.tolist() == [5 * 7, 5 * 7]
    assert exchange.rung[8 + 2] == 1  # never moved
    assert torch.isfinite(exchange.walkers.energy[exchange.walker_at[:, 3]]).all()


def test_a_run_that_is_told_to_stop_accounts_for_what_it_did():
    exchange, asked = harmonic_exchange(1, [200.0, 300.0, 450.0], 20, friction=5.0, seed=5), []

    def keep_on(done: int) -> bool:
        asked.append(done)
        return done < 4

    seen: list[int] = []
    result = exchange.run(100, steps=5, observer=lambda frame: seen.append(frame.exchange), keep_on=keep_on)
    assert (asked, seen, result.n_exchanges) == ([0, 1, 2, 3, 4], [1, 2, 3, 4], 4)
    assert result.attempted.tolist() == [40, 40]
    torch.testing.assert_close(result.occupancy.sum(dim=2), torch.ones(3, 20, dtype=torch.float64))


def test_ladders_that_are_none_are_refused():
    with pytest.raises(InputError, match="no ladder"):
        geometric_temperatures(300.0, 300.0, 4)
    with pytest.raises(InputError, match="5 walkers at 2 temperatures"):
        ReplicaExchange(
            Harmonic([1.0]), torch.zeros(1, 3, 5), [1.0], [300.0, 400.0], timestep=1.0, generator=generator()
        )
    assert geometric_temperatures(300.0, 1200.0, 3) == pytest.approx([300.0, 600.0, 1200.0])
