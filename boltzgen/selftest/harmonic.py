"""A molecule so cold that every coordinate is harmonic: ln Z from the minimum, the Hessian and the moments of inertia.

In Cartesian coordinates rigid motion has the volume V 8π² N^{3/2} √det I for N atoms of unit mass with the inertia
tensor I, all but V 8π² of which belongs to the volume element of internal coordinates. With the 3N − 6 other
eigenvalues λ of the Hessian, and m minima that are images of one another,

    ln Z = ln m − βU₀ + (3/2) ln N + ½ ln det I + ½ Σ ln(2π/βλ).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import openmm

from boltzgen.constants import thermal_energy
from boltzgen.selftest import geometry
from boltzgen.selftest.case import Array, Case, Mean
from boltzgen.selftest.molecule import molecular_target

COLD = 1.0
"""K. The leading correction, of the turning hydroxyl, is 1/8K with K = 0.5 · barrier/kT = 330: 4e-4 in ln Z."""

STEP = 1e-5
"""nm, of the differences of forces: the third derivative gives 1e-6 of the Hessian, rounding 1e-9."""

BARRIER = 0.9
"""kJ/mol: k of each of the three torsions H–C–O–H."""

CARBON, METHYL, OXYGEN, HYDROXYL = 0, (1, 2, 3), 4, 5


def _system() -> openmm.System:
    """Methanol by name alone: springs, torsions, charges and Lennard-Jones terms that leave its hydrogens equal."""
    system = openmm.System()
    for _ in range(6):
        system.addParticle(12.0)
    bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for h in METHYL:
        bonds.addBond(CARBON, h, 0.109, 284512.0)
        angles.addAngle(h, CARBON, OXYGEN, 1.911, 418.4)
        torsions.addTorsion(h, CARBON, OXYGEN, HYDROXYL, 3, 0.0, BARRIER)
    for pair in itertools.combinations(METHYL, 2):
        angles.addAngle(pair[0], CARBON, pair[1], 1.911, 292.9)
    angles.addAngle(CARBON, OXYGEN, HYDROXYL, 1.894, 460.2)
    bonds.addBond(CARBON, OXYGEN, 0.141, 267776.0)
    bonds.addBond(OXYGEN, HYDROXYL, 0.0945, 462750.0)
    nonbonded = openmm.NonbondedForce()
    charges = (0.145, 0.04, 0.04, 0.04, -0.683, 0.418)
    for charge in charges:
        nonbonded.addParticle(charge, 0.3, 0.4)  # all pairs but 1-4 are excluded
    pairs = (
        [(CARBON, k) for k in (*METHYL, OXYGEN)]
        + [(OXYGEN, HYDROXYL), (CARBON, HYDROXYL)]
        + [(h, OXYGEN) for h in METHYL]
        + list(itertools.combinations(METHYL, 2))
    )
    for a, b in pairs:
        nonbonded.addException(a, b, 0.0, 0.1, 0.0)
    for h in METHYL:
        nonbonded.addException(h, HYDROXYL, charges[h] * charges[HYDROXYL] / 1.2, 0.175, 0.05)
    for force in (bonds, angles, torsions, nonbonded):
        system.addForce(force)
    return system


def _start() -> Array:
    tetrahedral = [(0.943, 0.0), (-0.4715, 0.8165), (-0.4715, -0.8165)]
    hydrogens = [[0.109 * x, 0.109 * y, -0.0363] for x, y in tetrahedral]
    return np.array([[0.0, 0.0, 0.0], *hydrogens, [0.0, 0.0, 0.141], [-0.0896, 0.0, 0.171]])


class Minimum:
    """A minimum of a System next to ``start (atoms, 3)`` in nm, by OpenMM's reference platform, and its Hessian."""

    def __init__(self, system: openmm.System, start: Array) -> None:
        platform = openmm.Platform.getPlatformByName("Reference")
        self._context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
        self._context.setPositions(start)
        openmm.LocalEnergyMinimizer.minimize(self._context, 1e-3)
        x = self._context.getState(getPositions=True).getPositions(asNumpy=True)._value
        for _ in range(4):  # Newton: what is left of the gradient is squared away
            hessian = self._hessian(x)
            x = x + (np.linalg.pinv(hessian, rcond=1e-7, hermitian=True) @ self._forces(x).ravel()).reshape(-1, 3)
        self.positions, self.hessian, self.energy = x, self._hessian(x), self.energies(x[None])[0]

    def energies(self, x: Array) -> Array:
        """U in kJ/mol of positions ``(n, atoms, 3)``."""
        values = []
        for frame in x:
            self._context.setPositions(frame)
            values.append(self._context.getState(getEnergy=True).getPotentialEnergy()._value)
        return np.asarray(values)

    def log_z(self, temperature: float, n_minima: int) -> float:
        """ln Z in the harmonic limit, see above."""
        n = len(self.positions)
        x = self.positions - self.positions.mean(0)
        inertia = np.square(x).sum() * np.eye(3) - x.T @ x
        eigenvalues = np.linalg.eigvalsh(self.hessian)[6:]
        kT = thermal_energy(temperature)
        rigid = 1.5 * math.log(n) + 0.5 * np.linalg.slogdet(inertia)[1]
        return math.log(n_minima) - self.energy / kT + rigid + 0.5 * np.log(2.0 * math.pi * kT / eigenvalues).sum()

    def _forces(self, x: Array) -> Array:
        self._context.setPositions(x)
        return self._context.getState(getForces=True).getForces(asNumpy=True)._value

    def _hessian(self, x: Array) -> Array:
        columns = []
        for k in range(x.size):
            shift = np.zeros(x.size)
            shift[k] = STEP
            ahead, behind = (self._forces(x + sign * shift.reshape(x.shape)).ravel() for sign in (1.0, -1.0))
            columns.append((behind - ahead) / (2.0 * STEP))
        hessian = np.asarray(columns)
        return 0.5 * (hessian + hessian.T)


def cold_methanol(energies: int) -> Case:
    """Six atoms with a threefold rotor, whose three minima are one by relabelling, near absolute zero."""
    system = _system()
    minimum, kT = Minimum(system, _start()), thermal_energy(COLD)
    bonds = (*tuple((CARBON, k) for k in (*METHYL, OXYGEN)), (OXYGEN, HYDROXYL))

    def opposite(h: int) -> Mean:
        torsion = (h, CARBON, OXYGEN, HYDROXYL)
        return Mean(f"P(H{h} opposite)", 1 / 3, lambda x: np.abs(geometry.torsion(x, torsion)) > 2.0 * math.pi / 3.0)

    return Case(
        name=f"methanol at {COLD:g} K",
        target=molecular_target(system, (6, 1, 1, 1, 8, 1), bonds, minimum.positions, COLD),
        log_z=minimum.log_z(COLD, 3),
        means=tuple(opposite(h) for h in METHYL),
        energy=lambda x: minimum.energies(x) / kT,
        energies=energies,
        mean_u=minimum.energy / kT + 0.5 * (3 * 6 - 6),
    )
