"""Averaged redraws and annealed draws of a flow that is bad on purpose, against exact integrals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from test_log_z import K_ANGLE, K_BOND, POLYMER_LOG_Z, R0, THETA0, polymer

from boltzgen.analysis.torsions import dihedral
from boltzgen.constants import thermal_energy
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.selftest.molecule import molecular_target
from boltzgen.statistics.weights import kish_ess, log_z, normalized_weights

MAX_Z = 4.0
"""Standard errors; a right answer fails once in 16,000 runs, and the seeds are fixed."""

HOT = 400.0
MIXTURE = {300.0: 0.5, 360.0: 0.3, 420.0: 0.2}
ESTIMATORS = [
    (1, 0, 20_000, None),
    (16, 0, 4000, None),
    (1, 4, 4000, None),
    (3, 2, 2000, None),
    (1, 0, 20_000, MIXTURE),
]
"""Redraws, bridges, samples, shares of temperatures."""


def exact(temperature):
    """ln Z, ⟨cos φ⟩ and ⟨sin φ⟩ of the ideal polymer by quadrature."""
    kT = thermal_energy(temperature)

    def integral(u, low, high, points, f=lambda x: 1.0):
        return quad(lambda x: f(x) * math.exp(-u(x) / kT), low, high, points=points, limit=500)[0]

    def bond(k, r0):
        return lambda r: 0.5 * k * (r - r0) ** 2 - 2 * kT * math.log(r)

    def angle(k, t0):
        return lambda t: 0.5 * k * (t - t0) ** 2 - kT * math.log(math.sin(t))

    def torsion(p):
        return 5 * (1 + math.cos(3 * p)) + 3 * (1 + math.cos(p - 0.7))

    circle = (-math.pi, math.pi, [-1.0, 1.0])
    total = math.log(integral(torsion, *circle))
    total += sum(math.log(integral(bond(k, r0), 0.05, 0.3, [r0])) for k, r0 in zip(K_BOND, R0, strict=True))
    total += sum(
        math.log(integral(angle(k, t0), 1e-6, math.pi - 1e-6, [t0])) for k, t0 in zip(K_ANGLE, THETA0, strict=True)
    )
    means = [integral(torsion, *circle, f) / integral(torsion, *circle) for f in (math.cos, math.sin)]
    return total, *means


@pytest.fixture(scope="module")
def generator():
    """An untrained flow whose last layers are noise: wrong in torsions, stiff coordinates and their coupling."""
    system, positions = polymer()
    numbers, bonds = (6, 6, 6, 6), ((0, 1), (1, 2), (2, 3))
    target = molecular_target(system, numbers, bonds, positions, 300.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = Generator(Architecture.of(target.coordinates))
        for name, parameter in flow.named_parameters():
            if name.endswith(("4.weight", "4.bias")):
                torch.nn.init.normal_(parameter, std=0.03)
    return BoltzmannGenerator(target, flow)


@pytest.fixture(scope="module", params=ESTIMATORS, ids=lambda p: f"inner{p[0]}-refine{p[1]}{'-mixture' * bool(p[3])}")
def samples(request, generator):
    inner, refine, n, temperatures = request.param
    mixed = BoltzmannGenerator(generator.target, generator.flow, temperatures=temperatures)
    return mixed.sample(n, inner=inner, refine=refine, seed=3)


def check_mean(values, log_weight, expected):
    """A weighted mean within four standard errors of the truth, with an error that says something."""
    w = normalized_weights(log_weight)
    mean = float(w @ values)
    error = float(np.sqrt(np.square(w * (values - mean)).sum()))
    assert abs(mean - expected) < MAX_Z * error
    assert error < 0.06


def test_the_quadrature_agrees_with_the_known_log_z():
    assert exact(300.0)[0] == pytest.approx(POLYMER_LOG_Z, abs=1e-8)  # quadrature tolerance


@pytest.mark.parametrize("temperature", [300.0, HOT])
def test_log_z_and_torsion_at_both_temperatures(samples, temperature):
    """At the temperature of the samples, and reweighted by the contract of the file."""
    log_weight = -samples.reduced_potential * (300.0 / temperature) - samples.log_prob
    expected, cosine, sine = exact(temperature)
    value, error = log_z(log_weight)
    assert abs(value - expected) < MAX_Z * error
    assert error < 0.06
    phi = dihedral(samples.positions, (0, 1, 2, 3))
    check_mean(np.cos(phi), log_weight, cosine)
    check_mean(np.sin(phi), log_weight, sine)


def test_a_bond_has_its_width(samples):
    """The stiff coordinates of what is kept, not its slow ones alone."""
    r = np.linalg.norm(samples.positions[:, 1] - samples.positions[:, 0], axis=1)
    kT, k, r0 = thermal_energy(300.0), K_BOND[0], R0[0]

    def integral(f):
        return quad(lambda x: f(x) * x * x * math.exp(-0.5 * k * (x - r0) ** 2 / kT), 0.05, 0.3, points=[r0])[0]

    sigma = math.sqrt(kT / k)
    expected = integral(lambda x: ((x - r0) / sigma) ** 2) / integral(lambda x: 1.0)
    check_mean(((r - r0) / sigma) ** 2, samples.log_weight, expected)


def test_samples_of_a_mixture_have_the_density_that_their_positions_have(generator):
    mixed = BoltzmannGenerator(generator.target, generator.flow, temperatures=MIXTURE)
    samples = mixed.sample(500, seed=2)
    x = samples.positions
    assert np.abs(mixed.log_prob(x) - samples.log_prob).max() < 1e-8
    parts = [
        np.log(share)
        + BoltzmannGenerator(generator.target, generator.flow, temperatures={t: 1.0}).log_prob(samples.positions)
        for t, share in MIXTURE.items()
    ]
    assert np.abs(np.logaddexp.reduce(parts) - samples.log_prob).max() < 1e-8
    # what the hottest part alone would give bounds every weight
    assert (samples.log_weight <= -samples.reduced_potential - parts[-1] + 1e-9).all()


def test_redraws_and_annealing_are_worth_more_than_draws_of_the_flow(generator):
    for inner, refine in ((32, 0), (1, 6)):
        samples = generator.sample(1000, inner=inner, refine=refine, seed=1)
        assert kish_ess(samples.log_weight) / 1000 > 1.2 * samples.flow_ess_fraction
