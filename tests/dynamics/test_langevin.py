"""Dynamics against exact answers: energy, reversibility, equipartition, Boltzmann distributions, failures.

Statistical bounds are four standard errors of independent walkers: a test with a dozen of them fails by chance once in
a thousand seeds, and the seeds are fixed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_energies import CHAIN, Harmonic, Wall, chain_system
from torch import Tensor

from boltzgen.constants import GAS_CONSTANT, thermal_energy
from boltzgen.dynamics.langevin import Langevin, Walkers, repartition_hydrogen_masses, velocity_verlet
from boltzgen.dynamics.minimise import minimise
from boltzgen.dynamics.thermostat import NormalNoise, maxwell_boltzmann
from boltzgen.energy import from_openmm
from boltzgen.errors import InputError

SIGMAS = 4.0
"""Bound of statistical tests, in standard errors."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def repeated(positions: object, batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.as_tensor(positions, dtype=dtype)[..., None].repeat(1, 1, batch)


def assert_mean(samples: Tensor, expected: float) -> None:
    """The mean of independent samples agrees with what is expected."""
    error = float(samples.double().std() / math.sqrt(samples.numel()))
    assert abs(float(samples.double().mean()) - expected) < SIGMAS * error


@pytest.fixture(scope="module")
def relaxed(dipeptide):
    """Eight walkers of alanine dipeptide near its minimum with thermal velocities, float64."""
    potential = from_openmm(dipeptide.system)
    x = minimise(potential, repeated(dipeptide.positions, 8)).positions
    return potential, Walkers.thermal(potential, x, dipeptide.molecule.masses, 300.0, generator())


def test_total_energy_is_conserved_to_second_order(dipeptide, relaxed):
    """Half the time step, a quarter of the fluctuation; a wrong force or kick breaks the power law."""
    potential, start = relaxed
    masses = dipeptide.molecule.masses
    fluctuation = []
    for dt in (0.5, 0.25):
        walkers = Walkers.at(potential, start.positions, start.velocities)
        total = []
        for _ in range(round(50.0 / dt)):
            velocity_verlet(potential, walkers, masses, dt, 1)
            total.append(walkers.energy + walkers.kinetic_energy(masses))
        energies = torch.stack(total)
        early, late = energies.chunk(2)
        fluctuation.append(float(energies.std(dim=0).mean()))
        # 50 fs hold several periods of every stretch: no drift means equal halves within the fluctuation.
        assert float((late.mean(0) - early.mean(0)).abs().max()) < fluctuation[-1]
    assert fluctuation[0] < 0.5
    # The next order is (ωΔt)² = 8 % of the leading one for N-H stretches at 0.5 fs.
    assert fluctuation[0] / fluctuation[1] == pytest.approx(4.0, rel=0.1)


def test_velocity_verlet_is_reversible(dipeptide, relaxed):
    potential, start = relaxed
    walkers = Walkers.at(potential, start.positions, start.velocities)
    for _ in range(2):
        velocity_verlet(potential, walkers, dipeptide.molecule.masses, 1.0, 50)
        walkers.velocities.neg_()
    # Rounding of 1e-16 grows at most a thousandfold in 100 fs.
    assert torch.allclose(walkers.positions, start.positions, rtol=0, atol=1e-12)
    assert torch.allclose(walkers.velocities, start.velocities, rtol=0, atol=1e-9)


def test_steps_in_pieces_are_the_same_steps(relaxed, dipeptide):
    """Kicks that meet between steps are one kick, wherever a run is cut."""
    potential, start = relaxed
    cut, whole = (Walkers.at(potential, start.positions, start.velocities) for _ in range(2))
    for n in (0, 3, 1, 6):
        velocity_verlet(potential, cut, dipeptide.molecule.masses, 1.0, n)
    velocity_verlet(potential, whole, dipeptide.molecule.masses, 1.0, 10)
    assert torch.allclose(cut.velocities, whole.velocities, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thermostat_noise_is_normal(dtype):
    noise = NormalNoise(torch.empty(50, 3, 4001, dtype=dtype), generator()).draw().double().flatten()
    n = noise.numel()
    for power, moment, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        bias = 8e-4 if power == 4 else 0.0  # known kurtosis of the table
        assert abs(float((noise**power).mean()) - moment) < SIGMAS * math.sqrt(variance / n) + bias
    assert abs(float((noise[1:] * noise[:-1]).mean())) < SIGMAS / math.sqrt(n)  # lanes of one draw are independent


def test_initial_velocities_are_maxwell_boltzmann():
    masses, temperature = torch.tensor([1.008, 12.011, 15.999]), 350.0
    v = maxwell_boltzmann(torch.empty(3, 3, 4000, dtype=torch.float64), masses, temperature, generator())
    for atom, mass in zip(v, masses.tolist(), strict=True):
        reduced = np.sort((atom / math.sqrt(thermal_energy(temperature) / mass)).flatten().numpy())
        cumulative = 0.5 * (1.0 + np.array([math.erf(r / math.sqrt(2.0)) for r in reduced]))
        distance = np.abs(cumulative - (np.arange(len(reduced)) + 0.5) / len(reduced)).max()
        # Kolmogorov-Smirnov: P(√n D > 2.3) is 5e-5, as of 4σ.
        assert math.sqrt(len(reduced)) * distance < 2.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_langevin_is_exact_for_harmonic_wells(dtype):
    """At ωΔt = 1, where other schemes err by a quarter, ⟨x²⟩ is kT/k and ⟨v²⟩ is (1 − (ωΔt)²/4) kT/m.

    Two atoms and per-walker temperatures: each walker has its own.
    """
    masses, dt = [2.0, 18.0], 10.0
    k = [m / (dt * 1e-3) ** 2 for m in masses]
    potential, rng = Harmonic(k), generator(1)
    temperature = torch.tensor([200.0, 600.0], dtype=torch.float64).repeat_interleave(4000)
    start = torch.zeros(2, 3, 8000, dtype=dtype)
    walkers = Walkers.thermal(potential, start, masses, temperature, rng)
    Langevin(potential, walkers, masses, temperature, friction=20.0, timestep=dt, generator=rng).run(60)
    kT = GAS_CONSTANT * temperature
    for atom in range(2):
        for half in (slice(0, 4000), slice(4000, 8000)):
            x2 = walkers.positions[atom].square() * k[atom] / kT
            v2 = walkers.velocities[atom].square() * masses[atom] / kT
            assert_mean(x2[:, half], 1.0)
            assert_mean(v2[:, half], 0.75)


@pytest.fixture(scope="module")
def chain_samples():
    """The chain at 300 K (first half of the walkers) and 400 K after 4 ps: independent samples of each."""
    system = chain_system()
    potential, masses, rng = from_openmm(system), [12.0] * 4, generator(2)
    temperature = torch.tensor([300.0, 400.0], dtype=torch.float64).repeat_interleave(2000)
    x = minimise(potential, repeated(CHAIN, 4000), max_steps=300).positions
    walkers = Walkers.thermal(potential, x, masses, temperature, rng)
    Langevin(potential, walkers, masses, temperature, friction=5.0, timestep=2.0, generator=rng).run(2000)
    return walkers, temperature


def test_energy_is_equally_parted(chain_samples):
    """⟨m v²⟩ = kT for each coordinate, and ⟨x·∂U/∂x⟩ = (3N − 3) kT for an energy free to move as a whole."""
    walkers, temperature = chain_samples
    kT = GAS_CONSTANT * temperature
    for atom in walkers.velocities:
        # (ωΔt)²/4 of the fastest stretch is 0.008, shared by two of a coordinate's three directions at most.
        ratio = 12.0 * atom.square().mean(0) / kT
        error = float(ratio.std() / math.sqrt(ratio.numel()))
        assert 1.0 - 0.008 - SIGMAS * error < float(ratio.mean()) < 1.0 + SIGMAS * error
    assert_mean((walkers.positions * walkers.gradient).sum(dim=(0, 1)) / kT, 9.0)


def logistic_slope(low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[float, float]:
    """Maximum-likelihood slope of ln[p_low(E)/p_high(E)] against E, with its standard error.

    Shirts, J. Chem. Theory Comput. 2013, 9, 909: for Boltzmann ensembles the slope is β_high − β_low, whatever the
    density of states.
    """
    energy = np.concatenate([low, high])
    label = np.repeat([1.0, 0.0], [len(low), len(high)])
    scaled = (energy - energy.mean()) / energy.std()
    design = np.column_stack([np.ones_like(scaled), scaled])
    parameters = np.zeros(2)
    for _ in range(30):
        p = 1.0 / (1.0 + np.exp(-design @ parameters))
        information = design.T @ (design * (p * (1.0 - p))[:, None])
        parameters += np.linalg.solve(information, design.T @ (label - p))
    error = math.sqrt(np.linalg.inv(information)[1, 1])
    return parameters[1] / energy.std(), error / energy.std()


def test_energies_at_two_temperatures_have_the_boltzmann_ratio(chain_samples):
    walkers, _ = chain_samples
    slope, error = logistic_slope(*walkers.energy.numpy().reshape(2, -1))
    expected = 1.0 / thermal_energy(400.0) - 1.0 / thermal_energy(300.0)
    assert abs(slope - expected) < SIGMAS * error
    assert error < 0.07 * abs(expected)  # sharp enough to see kT wrong by a third of this gap


def test_a_failed_walker_is_counted_and_disturbs_no_other():
    potential, masses = Wall([1000.0, 1000.0], edge=0.5), [12.0, 1.0]
    start = 0.05 * torch.randn(2, 3, 64, generator=generator(3))
    doomed = start.clone()
    doomed[1, 0, 5] = 0.51  # cannot be computed from the beginning
    doomed[0, 0, 9] = -0.55  # falls over the edge later
    doomed[0, 1, 40] = math.nan
    runs = []
    for x in (start, doomed):
        rng = generator(4)
        walkers = Walkers.thermal(potential, x, masses, 300.0, rng)
        Langevin(potential, walkers, masses, 300.0, friction=0.1, timestep=2.0, generator=rng).run(200)
        runs.append(walkers)
    sound, broken = runs
    assert sound.n_failed == 0
    assert broken.n_failed == 3
    assert broken.failed.nonzero().flatten().tolist() == [5, 9, 40]
    others = ~broken.failed
    assert torch.equal(sound.positions[..., others], broken.positions[..., others])
    assert bool(torch.isinf(broken.energy[broken.failed]).all())
    assert bool((broken.velocities[..., broken.failed] == 0).all())
    assert float(broken.positions[1, 0, 5]) == pytest.approx(0.51)  # it stays where it failed
    assert torch.isfinite(broken.velocities).all()


def test_the_same_seed_gives_the_same_trajectory(relaxed, dipeptide):
    potential, start = relaxed
    ends = []
    for _ in range(2):
        walkers = Walkers.at(potential, start.positions, start.velocities)
        Langevin(potential, walkers, dipeptide.molecule.masses, 300.0, generator=generator(5)).run(5)
        ends.append(walkers.positions)
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], start.positions)  # and the start is not touched


def test_heavy_hydrogens_conserve_the_total_mass(dipeptide):
    masses, bonds = dipeptide.molecule.masses, dipeptide.molecule.bonds
    heavy = repartition_hydrogen_masses(masses, bonds, 3.0)
    assert float(heavy.sum()) == pytest.approx(sum(masses), abs=1e-12)
    numbers = np.array(dipeptide.molecule.atomic_numbers)
    assert np.all(heavy.numpy()[numbers == 1] == 3.0)
    with pytest.raises(InputError, match="dalton"):
        repartition_hydrogen_masses(masses, bonds, 4.5)  # a methyl carbon cannot give 10.5
    with pytest.raises(InputError, match="no heavy neighbour"):
        repartition_hydrogen_masses([1.008, 1.008], [(0, 1)])


def test_masses_and_temperatures_that_do_not_fit_are_refused():
    potential, x = Harmonic([1.0]), torch.zeros(1, 3, 4)
    with pytest.raises(InputError, match="2 masses for 1 atoms"):
        Walkers.thermal(potential, x, [1.0, 1.0], 300.0, generator())
    walkers = Walkers.thermal(potential, x, [1.0], 300.0, generator())
    with pytest.raises(InputError, match="3 temperatures for 4 walkers"):
        Langevin(potential, walkers, [1.0], torch.full((3,), 300.0), generator=generator())
    with pytest.raises(InputError, match="must be positive"):
        Langevin(potential, walkers, [1.0], 300.0, timestep=0.0, generator=generator())
