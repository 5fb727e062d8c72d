"""Molecules whose coordinates are independent: ln Z is a sum of one-dimensional integrals, and so is every mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import openmm
from scipy.integrate import quad

from boltzgen.constants import thermal_energy
from boltzgen.selftest import geometry
from boltzgen.selftest.case import Array, Case, Mean
from boltzgen.selftest.molecule import molecular_target

FORMYL_BONDS = (470000.0, 0.12), (290000.0, 0.109), (300000.0, 0.134)
"""k and r₀ to O, H and F."""

ROOM, HOT = 300.0, 400.0
"""K: the temperature of the samples, and another one that they are reweighted to."""


Function = Callable[[Array], Array]


@dataclass(frozen=True)
class Spring:
    """½ k (q − q₀)² of atoms; k in kJ/mol per nm² or rad²."""

    atoms: tuple[int, ...]
    k: float
    centre: float

    def energy(self, q: Array) -> Array:
        """kJ/mol."""
        return 0.5 * self.k * (q - self.centre) ** 2

    def slope(self, q: Array) -> Array:
        """dU/dq."""
        return self.k * (q - self.centre)

    def tests(self, kT: float) -> list[tuple[str, Function, Function]]:
        """Names, functions f(q) and df/dq."""
        width = math.sqrt(kT / self.k)
        centred = (lambda q: (q - self.centre) / width), (lambda q: np.full_like(q, 1.0 / width))
        squared = (lambda q: ((q - self.centre) / width) ** 2), (lambda q: 2.0 * (q - self.centre) / width**2)
        return [("x", *centred), ("x²", *squared)]


class Bond(Spring):
    """A distance, with the volume element r² dr."""

    @property
    def limits(self) -> tuple[float, float]:
        """Where all of the density is, in nm."""
        return 0.4 * self.centre, 1.6 * self.centre

    def add_to(self, system: openmm.System) -> None:
        """As a force."""
        force = openmm.HarmonicBondForce()
        force.addBond(*self.atoms, self.centre, self.k)
        system.addForce(force)

    def of(self, x: Array) -> Array:
        """The coordinate of positions ``(n, atoms, 3)``."""
        return geometry.distance(x, *self.atoms)

    def log_volume(self, q: Array) -> Array:
        """ln of the volume element."""
        return 2.0 * np.log(q)

    def volume_slope(self, q: Array) -> Array:
        """Its derivative."""
        return 2.0 / q


class Angle(Spring):
    """An angle, with the volume element sin θ dθ."""

    limits = (1e-9, math.pi - 1e-9)

    def add_to(self, system: openmm.System) -> None:
        """As a force."""
        force = openmm.HarmonicAngleForce()
        force.addAngle(*self.atoms, self.centre, self.k)
        system.addForce(force)

    def of(self, x: Array) -> Array:
        """The coordinate of positions ``(n, atoms, 3)``."""
        return geometry.angle(x, *self.atoms)

    def log_volume(self, q: Array) -> Array:
        """ln of the volume element."""
        return np.log(np.sin(q))

    def volume_slope(self, q: Array) -> Array:
        """Its derivative."""
        return 1.0 / np.tan(q)


@dataclass(frozen=True)
class Torsion:
    """Σ k (1 + cos(nφ − γ)) over terms (n, γ, k), k in kJ/mol."""

    atoms: tuple[int, int, int, int]
    terms: tuple[tuple[int, float, float], ...]
    limits = (-math.pi, math.pi)
    centre = 0.0

    def add_to(self, system: openmm.System) -> None:
        """As a force."""
        force = openmm.PeriodicTorsionForce()
        for n, phase, k in self.terms:
            force.addTorsion(*self.atoms, n, phase, k)
        system.addForce(force)

    def of(self, x: Array) -> Array:
        """The coordinate of positions ``(n, atoms, 3)``."""
        return geometry.torsion(x, self.atoms)

    def energy(self, q: Array) -> Array:
        """kJ/mol."""
        return np.sum([k * (1.0 + np.cos(n * q - phase)) for n, phase, k in self.terms], axis=0)

    def slope(self, q: Array) -> Array:
        """dU/dφ."""
        return np.sum([-n * k * np.sin(n * q - phase) for n, phase, k in self.terms], axis=0)

    def log_volume(self, q: Array) -> Array:
        """ln of the volume element: dφ."""
        return np.zeros_like(q)

    volume_slope = log_volume

    def tests(self, kT: float) -> list[tuple[str, Function, Function]]:
        """Names, functions f(φ) and df/dφ."""
        return [
            ("cos", np.cos, lambda q: -np.sin(q)),
            ("sin", np.sin, np.cos),
            ("cos 3", lambda q: np.cos(3.0 * q), lambda q: -3.0 * np.sin(3.0 * q)),
        ]


Factor = Bond | Angle | Torsion


def integral(factor: Factor, kT: float, f: Function = np.ones_like) -> float:
    """∫ f(q) m(q) e^{−U(q)/kT} dq with the volume element m."""

    def density(q: float) -> float:
        at = np.asarray(q, dtype=np.float64)
        return float(f(at) * np.exp(factor.log_volume(at) - factor.energy(at) / kT))

    middle = [factor.centre] if factor.centre else [-1.0, 1.0]
    return quad(density, *factor.limits, points=middle, limit=500)[0]


def log_z(factors: Sequence[Factor], kT: float) -> float:
    """ln Z in nm^(3 atoms − 3), without rigid motion."""
    return sum(math.log(integral(factor, kT)) for factor in factors)


def _means(factor: Factor, name: str, kT: float) -> list[Mean]:
    """Averages and Stein identities of one coordinate."""

    def average(of_name: str, f: Function) -> Mean:
        exact = integral(factor, kT, f) / integral(factor, kT)
        return Mean(f"<{of_name}> of {name}", exact, lambda x: f(factor.of(x)))

    def stein(of_name: str, f: Function, slope: Function) -> Mean:
        def of(x: Array) -> Array:
            q = factor.of(x)
            return f(q) * (factor.slope(q) / kT - factor.volume_slope(q)) - slope(q)

        return Mean(f"Stein {of_name} of {name}", 0.0, of)

    means = []
    for of_name, f, slope in factor.tests(kT):
        means += [average(of_name, f), stein(of_name, f, slope)]
    if isinstance(factor, Torsion):
        above = integral(factor, kT, lambda q: np.where(q > 0.0, 1.0, 0.0)) / integral(factor, kT)
        means.append(Mean(f"P({name} > 0)", above, lambda x: factor.of(x) > 0.0))
    return means


def springs(
    name: str,
    atomic_numbers: tuple[int, ...],
    start: Array,
    factors: Sequence[Factor],
    energies: int,
    planar_atoms: tuple[int, ...] = (),
    estimators: tuple[tuple[int, int, int], ...] = (),
) -> Case:
    """A molecule of factors at room temperature, ``start (atoms, 3)`` in nm, with all that is known of it."""
    system, kT = openmm.System(), thermal_energy(ROOM)
    for _ in atomic_numbers:
        system.addParticle(12.0)
    for factor in factors:
        factor.add_to(system)
    bonds = tuple(factor.atoms for factor in factors if isinstance(factor, Bond))
    mean_u = sum(integral(factor, kT, factor.energy) / integral(factor, kT) for factor in factors) / kT
    names = [f"{type(factor).__name__.lower()} {'-'.join(map(str, factor.atoms))}" for factor in factors]
    return Case(
        name=name,
        target=molecular_target(system, atomic_numbers, bonds, start, ROOM, planar_atoms),
        log_z=log_z(factors, kT),
        means=tuple(mean for factor, of in zip(factors, names, strict=True) for mean in _means(factor, of, kT)),
        energy=lambda x: np.sum([factor.energy(factor.of(x)) for factor in factors], axis=0) / kT,
        energies=energies,
        mean_u=mean_u,
        other_temperatures={HOT: log_z(factors, thermal_energy(HOT))},
        estimators=estimators,
    )


def diatomic(energies: int) -> Case:
    """Carbon monoxide."""
    start = np.array([[0.0, 0.0, 0.0], [0.11, 0.0, 0.0]])
    return springs("diatomic", (6, 8), start, [Bond((0, 1), 284512.0, 0.109)], energies)


def water(energies: int) -> Case:
    """Flexible TIP3P water, whose hydrogens see nothing but their oxygen."""
    bonds = [Bond((0, k), 462750.4, 0.09572) for k in (1, 2)]
    factors: list[Factor] = [*bonds, Angle((1, 0, 2), 836.8, 1.82421813418)]
    start = np.array([[0.0, 0.0, 0.0], [0.09572, 0.0, 0.0], [-0.024, 0.0927, 0.0]])
    return springs("water", (8, 1, 1), start, factors, energies)


def formyl_fluoride(energies: int) -> Case:
    """O=CHF, whose bend out of the plane is a stiff torsion about π: where angles are wrapped."""
    factors: list[Factor] = [Bond((0, k), *spring) for k, spring in enumerate(FORMYL_BONDS, 1)]
    factors += [Angle((1, 0, k), 450.0, 2.12) for k in (2, 3)]
    factors.append(Torsion((3, 0, 1, 2), ((1, 0.0, 90.0),)))
    start = np.array([[0.0, 0.0, 0.0], [0.12, 0.0, 0.0], [-0.06, 0.095, 0.0], [-0.07, -0.115, 0.0]])
    return springs("formyl fluoride", (6, 8, 1, 9), start, factors, energies, planar_atoms=(0,))


def polymer(energies: int) -> Case:
    """Four sites in a row, whose torsion has no symmetry."""
    bonds = zip((259408.0, 282001.0, 224262.0), (0.1526, 0.1449, 0.1010), strict=True)
    angles = zip((520.0, 418.0), (1.94, 2.05), strict=True)
    factors: list[Factor] = [Bond((i, i + 1), k, r0) for i, (k, r0) in enumerate(bonds)]
    factors += [Angle((i, i + 1, i + 2), k, t0) for i, (k, t0) in enumerate(angles)]
    factors.append(Torsion((0, 1, 2, 3), ((3, 0.0, 5.0), (1, 0.7, 3.0))))
    start = np.array([[0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, 0.14, 0.0], [0.25, 0.14, 0.09]])
    return springs("polymer", (6, 6, 6, 6), start, factors, energies, estimators=((4, 0, 4000), (1, 2, 3000)))
