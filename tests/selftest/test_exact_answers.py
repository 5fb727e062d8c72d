"""The answers that the self-test holds, against published ones and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from boltzgen.constants import thermal_energy
from boltzgen.models.particles import LennardJonesPair, SquareWellPair
from boltzgen.models.rings import XYRing
from boltzgen.models.wells import Mixture, MuellerBrown, Wells
from boltzgen.selftest.harmonic import Minimum
from boltzgen.selftest.springs import diatomic, polymer, water

SAME = pytest.approx
QUADRATURE = 1e-8


@pytest.mark.parametrize(
    ("n", "coupling", "expected"),
    [
        (4, 1, 8.3718274325),
        (8, 0.5, 15.1954382021),
        (8, 1, 16.5934796289),
        (8, 2, 21.4016064176),
        (16, 2, 42.5962263209),
    ],
)
def test_xy_rings(n, coupling, expected):
    assert XYRing(n, coupling).log_z() == SAME(expected, abs=1e-9)  # digits given


def test_the_mean_energy_of_a_ring_is_the_slope_of_its_log_z():
    ring, h = XYRing(8, 1.0), 1e-5
    slope = (ring.log_z(1.0 + h) - ring.log_z(1.0 - h)) / (2.0 * h)
    assert ring.mean_cosine(1) == SAME(slope / 8, abs=1e-8)  # h² and rounding / h
    assert ring.mean_cosine(1) == SAME(0.44888514, abs=1e-8)


def test_wells():
    many = Wells(16, 1.0, -6.0, -0.5)
    assert many.log_z() == SAME(164.695675313, abs=1e-7)
    assert many.population(-0.0417) == SAME(1.0 - 0.844310611, abs=1e-8)
    double = Wells(1, 1.0, -6.0, 1.0)
    assert double.log_z() == SAME(11.020467, abs=1e-6)
    assert double.population(0.0) == SAME(0.967070, abs=1e-6)
    assert Wells(1, 0.25, -3.0, 1.0).log_z() == SAME(12.064928999, abs=QUADRATURE)


def test_mueller_brown():
    log_z, mean_u, above = MuellerBrown(15.0).integrals(spacing=0.008)
    assert log_z == SAME(7.364865606, abs=1e-6)
    assert mean_u == SAME(-125.146410918 / 15.0, abs=1e-6)
    assert above == SAME(0.895496926, abs=1e-4)  # the edge of a population is between points


def test_pairs():
    assert math.log(LennardJonesPair(1.0).integral()) == SAME(4.813061863, abs=QUADRATURE)
    well = SquareWellPair(1.0)
    shells = quad(lambda r: r**2 * math.e, 1.0, 1.8)[0] + quad(lambda r: r**2, 1.8, 3.0)[0]
    assert well.log_z() == SAME(math.log(4.0 * math.pi * shells), abs=QUADRATURE)


def test_a_mixture_is_normalised():
    import torch

    grid = torch.arange(-8.0, 8.0, 0.05, dtype=torch.float64)
    x = torch.stack([grid.repeat(len(grid)), grid.repeat_interleave(len(grid))])[None]
    assert (-Mixture().energy(x)).exp().sum().item() * 0.05**2 == SAME(1.0, abs=1e-6)


def test_molecules_of_springs():
    assert water(1).log_z == SAME(-21.699971747371276, abs=QUADRATURE)
    assert polymer(1).log_z == SAME(-30.56348248754332, abs=QUADRATURE)
    assert diatomic(1).log_z == SAME(-6.804367894 - math.log(4.0 * math.pi), abs=QUADRATURE)


def test_the_harmonic_limit_has_the_volume_of_rigid_motion():
    """Water by its Hessian and its moments of inertia, against its integrals, as it gets cold."""
    import openmm

    from boltzgen.selftest import springs

    bonds = [springs.Bond((0, k), 462750.4, 0.09572) for k in (1, 2)]
    factors = [*bonds, springs.Angle((1, 0, 2), 836.8, 1.82421813418)]
    system = openmm.System()
    for _ in range(3):
        system.addParticle(12.0)
    for factor in factors:
        factor.add_to(system)
    minimum = Minimum(system, np.array([[0.0, 0.0, 0.0], [0.0957, 0.0, 0.0], [-0.024, 0.0927, 0.0]]))
    exact = springs.log_z(factors, thermal_energy(1.0))
    assert minimum.log_z(1.0, 1) == SAME(exact, abs=1e-4)  # what is left of anharmonicity at 1 K
