"""ln Z of targets with known answers through the whole road: System, coordinates, training, samples, weights."""

from __future__ import annotations

import math

import numpy as np
import openmm
import pytest
from openmm import app, unit
from scipy.integrate import quad

from boltzgen.constants import thermal_energy
from boltzgen.energy import from_openmm
from boltzgen.flow.architecture import Architecture
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.selftest.molecule import molecular_target
from boltzgen.statistics.weights import summarize_weights
from boltzgen.training.trainer import Trainer, TrainSettings

MAX_Z = 4.0
"""Standard errors; a right answer fails once in 16,000 runs, and the seed is fixed."""


def weights_of(system, atomic_numbers, bonds, positions, n=20_000):
    target = molecular_target(system, atomic_numbers, bonds, positions, 300.0)
    trainer = Trainer(target, Architecture.of(target.coordinates), TrainSettings(max_energies=100_000))
    assert trainer.run(lambda progress: None, lambda: True, lambda: None)
    samples = BoltzmannGenerator(target, trainer.average).sample(n, seed=1)
    return summarize_weights(samples.log_weight)


def test_flexible_water():
    topology = app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    atoms = [topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in ("O", "H1", "H2")]
    topology.addBond(atoms[0], atoms[1])
    topology.addBond(atoms[0], atoms[2])
    system = app.ForceField("amber14/tip3p.xml").createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False
    )
    positions = np.array([[0.0, 0.0, 0.0], [0.09572, 0.0, 0.0], [-0.024, 0.0927, 0.0]])
    weights = weights_of(system, (8, 1, 1), ((0, 1), (0, 2)), positions)
    z = (weights.log_z + 21.699971747371276) / weights.log_z_stderr
    assert abs(z) < MAX_Z
    assert weights.log_z_stderr < 0.01  # or the z-score says nothing


K_BOND, R0 = (259408.0, 282001.0, 224262.0), (0.1526, 0.1449, 0.1010)
K_ANGLE, THETA0 = (520.0, 418.0), (1.94, 2.05)


def polymer():
    """Four sites with bonds, angles, a torsion and no non-bonded terms: ln Z is a sum of one-dimensional integrals."""
    system = openmm.System()
    for _ in range(4):
        system.addParticle(12.0)
    bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for k in range(3):
        bonds.addBond(k, k + 1, R0[k], K_BOND[k])
    for k in range(2):
        angles.addAngle(k, k + 1, k + 2, THETA0[k], K_ANGLE[k])
    torsions.addTorsion(0, 1, 2, 3, 3, 0.0, 5.0)
    torsions.addTorsion(0, 1, 2, 3, 1, 0.7, 3.0)
    for force in (bonds, angles, torsions):
        system.addForce(force)
    positions = np.array([[0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, 0.14, 0.0], [0.25, 0.14, 0.09]])
    return system, positions


POLYMER_LOG_Z = -30.56348248754332


def test_ideal_polymer():
    system, positions = polymer()
    weights = weights_of(system, (6, 6, 6, 6), ((0, 1), (1, 2), (2, 3)), positions)
    z = (weights.log_z - POLYMER_LOG_Z) / weights.log_z_stderr
    assert abs(z) < MAX_Z
    assert weights.log_z_stderr < 0.01


def test_ideal_polymer_reference_by_quadrature():
    """The number above, from its definition: a slower, independent answer."""
    kT = thermal_energy(300.0)

    def log_integral(u, low, high, points):
        return math.log(quad(lambda x: math.exp(-u(x) / kT), low, high, points=points, limit=500)[0])

    total = 0.0
    for k, r0 in zip(K_BOND, R0, strict=True):
        total += log_integral(lambda r, k=k, r0=r0: 0.5 * k * (r - r0) ** 2 - 2 * kT * math.log(r), 0.05, 0.3, [r0])
    for k, t0 in zip(K_ANGLE, THETA0, strict=True):
        total += log_integral(
            lambda t, k=k, t0=t0: 0.5 * k * (t - t0) ** 2 - kT * math.log(math.sin(t)), 1e-6, math.pi - 1e-6, [t0]
        )
    total += log_integral(
        lambda p: 5 * (1 + math.cos(3 * p)) + 3 * (1 + math.cos(p - 0.7)), -math.pi, math.pi, [-1.0, 1.0]
    )
    assert total == pytest.approx(POLYMER_LOG_Z, abs=1e-8)  # quadrature tolerance


def test_reference_energy_units():
    """One bond stretched by 0.01 nm costs ½ k 1e-4 kJ/mol: guards the units of the polymer above."""
    system, positions = polymer()
    potential = from_openmm(system)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    reference = context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    import torch

    assert potential(torch.as_tensor(positions)[None]).item() == pytest.approx(reference, abs=1e-9)
