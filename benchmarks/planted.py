"""Bugs to plant, for ``trust.py``: each is a patch of the package while it is active, and should not go unnoticed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import openmm
import torch

from boltzgen.coordinates import atlas, charts, internal, molecular
from boltzgen.flow import coupling, generator
from boltzgen.models import model, particles
from boltzgen.sampling import annealed, draw, estimator
from boltzgen.selftest import check, molecule
from boltzgen.statistics import free_energy, weights
from boltzgen.target import Target
from boltzgen.training import optimizer

Patch = Callable[[], Any]


def around(owner: Any, name: str, change: Callable[..., Any]) -> Patch:
    """Replace a function by ``change(original, *arguments)``."""
    original = getattr(owner, name)

    def changed(*arguments: Any, **named: Any) -> Any:
        return change(original, *arguments, **named)

    return lambda: mock.patch.object(owner, name, changed)


def all_of(*patches: Patch) -> Patch:
    """Several at once."""

    @contextmanager
    def together() -> Iterator[None]:
        with patches[0](), all_of(*patches[1:])() if patches[1:] else mock.patch.object(check, "SOME", check.SOME):
            yield

    return together


def less_volume(part: Callable[[internal.Internal], torch.Tensor]) -> Patch:
    """The volume element without a part of it."""

    def place(original: Any, self: Any, coordinates: internal.Internal) -> Any:
        x, volume = original(self, coordinates)
        return x, volume - part(coordinates)

    return around(internal.InternalToCartesian, "place", place)


def no_log_det(owner: Any, name: str) -> Patch:
    """A bijection whose second result is zero."""

    def change(original: Any, *arguments: Any, **named: Any) -> Any:
        value, log_det = original(*arguments, **named)
        return value, torch.zeros_like(log_det)

    return around(owner, name, change)


def more_log_det(owner: Any, name: str, amount: Callable[[Any, torch.Tensor], Any]) -> Patch:
    """A method whose second result is off by what its object and that result give."""

    def change(original: Any, self: Any, *arguments: Any, **named: Any) -> Any:
        value, log_det = original(self, *arguments, **named)
        return value, log_det + amount(self, log_det)

    return around(owner, name, change)


def other_system(change: Callable[[openmm.System], None]) -> Patch:
    """The conversion understands a System wrongly: it gets a changed one."""

    def convert(original: Any, system: openmm.System) -> Any:
        system = copy.deepcopy(system)
        change(system)
        return original(system)

    return around(molecule, "from_openmm", convert)


def forces(system: openmm.System, kind: type) -> list[Any]:
    """The forces of a kind."""
    return [force for force in system.getForces() if isinstance(force, kind)]


def torsions_with(change: Callable[..., list[Any]]) -> Patch:
    """Other parameters of each torsion: periodicity, phase, k in plain numbers."""

    def apply(system: openmm.System) -> None:
        for force in forces(system, openmm.PeriodicTorsionForce):
            for k in range(force.getNumTorsions()):
                *atoms, n, phase, strength = force.getTorsionParameters(k)
                force.setTorsionParameters(k, *atoms, *change(n, phase._value, strength._value))

    return other_system(apply)


def angles_in_degrees(system: openmm.System) -> None:
    for force in forces(system, openmm.HarmonicAngleForce):
        for k in range(force.getNumAngles()):
            *atoms, theta, strength = force.getAngleParameters(k)
            force.setAngleParameters(k, *atoms, theta._value, strength._value * (math.pi / 180.0))


def without_half(system: openmm.System) -> None:
    for force in forces(system, openmm.HarmonicBondForce):
        for k in range(force.getNumBonds()):
            *atoms, r0, strength = force.getBondParameters(k)
            force.setBondParameters(k, *atoms, r0, 2.0 * strength)


def without_14(system: openmm.System) -> None:
    for force in forces(system, openmm.NonbondedForce):
        for k in range(force.getNumExceptions()):
            a, b, *_ = force.getExceptionParameters(k)
            force.setExceptionParameters(k, a, b, 0.0, 0.1, 0.0)


def coulomb_rounded(system: openmm.System) -> None:
    for force in forces(system, openmm.NonbondedForce):
        for k in range(force.getNumExceptions()):
            a, b, charges, sigma, epsilon = force.getExceptionParameters(k)
            force.setExceptionParameters(k, a, b, charges * (138.9 / 138.93545764), sigma, epsilon)


def samples_with(change: Callable[[draw.Samples], dict[str, Any]]) -> Patch:
    """Other columns of the samples that are drawn."""

    def sample(original: Any, self: Any, *arguments: Any, **named: Any) -> draw.Samples:
        samples = original(self, *arguments, **named)
        return replace(samples, **change(samples))

    return around(draw.BoltzmannGenerator, "sample", sample)


def stale(samples: draw.Samples) -> dict[str, Any]:
    u = np.roll(samples.reduced_potential, 1)
    return {"reduced_potential": u, "log_weight": -u - samples.log_prob}


def stale_weights(samples: draw.Samples) -> dict[str, Any]:
    return {"log_weight": np.roll(samples.log_weight, 1)}


def clipped_energy(samples: draw.Samples) -> dict[str, Any]:
    u = np.minimum(samples.reduced_potential, np.quantile(samples.reduced_potential, 0.98))
    return {"reduced_potential": u, "log_weight": -u - samples.log_prob}


def single(samples: draw.Samples) -> dict[str, Any]:
    return {
        name: getattr(samples, name).astype(np.float32).astype(np.float64)
        for name in ("reduced_potential", "log_prob", "log_weight")
    }


def clipped_log_z(original: Any, log_w: Any) -> Any:
    values = np.asarray(log_w)
    return original(np.minimum(values, np.quantile(values, 0.99)))


def equal_population(original: Any, mask: Any, log_w: Any, *rest: Any) -> Any:
    return original(mask, np.zeros_like(log_w), *rest)


def warmer(share: float) -> Patch:
    """kT wrong by a share, for molecules and models."""
    changes = [
        around(owner, "reduced_potential", lambda original, *a, **k: original(*a, **k) / (1.0 + share))
        for owner in (Target, model.ModelTarget)
    ]
    return all_of(*changes)


def rotors(coordinates: Any) -> float:
    return sum(math.log(rotor.order) for rotor in coordinates.zmatrix.rotors)


def off_by_heat(original: Any, self: Any, lines: Any, slow: Any, *of_levers: Any) -> Any:
    stiff, log_prob, centre = original(self, lines, slow, *of_levers)
    return stiff, log_prob + 0.5 * self.architecture.n_stiff * slow.heat, centre


def off_by_heat_inverse(original: Any, self: Any, stiff: Any, slow: Any, *centre: Any) -> Any:
    return original(self, stiff, slow, *centre) + 0.5 * self.architecture.n_stiff * slow.heat


def narrow_circles(original: Any, *arguments: Any) -> Any:
    return 0.97 * original(*arguments)


def clamped(original: Any, self: Any, z: Any, *rest: Any, **named: Any) -> Any:
    torsions, log_det = original(self, z, *rest, **named)
    return (torsions + 0.1).clamp(-math.pi, math.pi), log_det


def swapped_shares(original: Any, self: Any, *arguments: Any, **named: Any) -> None:
    original(self, *arguments, **named)
    log_prob = self._log_prob

    def wrong(*draws: Any) -> Any:
        self._shares, kept = self._shares.flip(0), self._shares
        value = log_prob(*draws)
        self._shares = kept
        return value

    self._log_prob = wrong


def in_single(original: Any, self: Any, x: Any, *arguments: Any, **named: Any) -> Any:
    return original(self, x.float(), *arguments, **named).to(x.dtype)


def same_random_numbers(original: Any, self: Any, n: int, generator: Any, heat: Any = None) -> Any:
    return original(self, n, generator.manual_seed(7), heat)


def two_branches_swapped(original: Any, self: Any, x: Any, rng: Any) -> Any:
    x = original(self, x, rng)
    for rotor in self.zmatrix.rotors:
        a, b = (list(branch) for branch in rotor.branches[:2])
        x = x.clone()
        x[a + b] = x[b + a]
    return x


def rounded(samples: draw.Samples) -> dict[str, Any]:
    return {"positions": samples.positions.round(4)}


def kept_weight(original: Any, *arguments: Any) -> Any:
    result = original(*arguments)
    return replace(result, kept=replace(result.kept, log_weight=result.kept.log_weight + 0.02 * result.kept.u.sign()))


def angles_shifted(system: openmm.System) -> None:
    for force in forces(system, openmm.HarmonicAngleForce):
        for k in range(force.getNumAngles()):
            *atoms, theta, strength = force.getAngleParameters(k)
            force.setAngleParameters(k, *atoms, theta._value + 0.002, strength._value)


BUGS: dict[str, Patch] = {
    "r² missing from the volume": less_volume(lambda q: 2.0 * q.bonds.log().sum(0)),
    "r instead of r²": less_volume(lambda q: q.bonds.log().sum(0)),
    "sin θ missing from the volume": less_volume(lambda q: q.angles.sin().log().sum(0)),
    "whitening left out of the determinant": more_log_det(
        molecular.MolecularCoordinates, "to_cartesian", lambda self, value: -self._log_scale
    ),
    "bond map left out of the determinant": no_log_det(charts, "bond"),
    "angle map left out of the determinant": no_log_det(charts, "angle"),
    "stiff torsion map left out of the determinant": no_log_det(charts, "torsion"),
    "cos θ map of a model left out": no_log_det(particles.Interval, "value"),
    "symmetry number divided out": more_log_det(
        molecular.MolecularCoordinates, "to_cartesian", lambda self, value: -rotors(self)
    ),
    "images of rotors never drawn": around(atlas.Atlas, "random_images", lambda original, self, x, rng: x),
    "no wrap where torsions are read": around(charts, "wrap", lambda original, angle: angle),
    "circles drawn short of ±π": around(generator, "random_circles", narrow_circles),
    "circles clamped at ±π": around(coupling.TorsionFlow, "forward", clamped),
    "kT 1 % too high": warmer(0.01),
    "kT in kcal/mol": warmer(3.184),
    "sign of a torsion": torsions_with(lambda n, phase, k: [n, -phase, k]),
    "phase of a torsion taken for degrees": torsions_with(lambda n, phase, k: [n, math.radians(phase), k]),
    "one torsion term lost": torsions_with(lambda n, phase, k: [n, phase, 0.0 if n == 1 else k]),
    "angle constants per degree": other_system(angles_in_degrees),
    "½ of bonds forgotten": other_system(without_half),
    "1–4 pairs lost": other_system(without_14),
    "Coulomb's constant to four digits": other_system(coulomb_rounded),
    "energies in single precision": all_of(
        around(model.ModelTarget, "reduced_potential", in_single), around(Target, "reduced_potential", in_single)
    ),
    "energies of the sample before": samples_with(stale),
    "weights of the sample before": samples_with(stale_weights),
    "energies clipped": samples_with(clipped_energy),
    "samples in single precision": samples_with(single),
    "circle splines left out of ln q": all_of(
        no_log_det(coupling.TorsionFlow, "forward"), no_log_det(coupling.TorsionFlow, "inverse")
    ),
    "couplings left out of ln q": no_log_det(coupling.StiffCoupling, "forward"),
    "affine head of the wrong sign": more_log_det(coupling.AffineHead, "forward", lambda self, value: -2.0 * value),
    "√2π of the base forgotten": around(
        generator, "log_normal", lambda original, z: original(z) + 0.5 * z.shape[1] * math.log(2.0 * math.pi)
    ),
    "2π of the circles forgotten": lambda: mock.patch.object(generator.Generator, "_log_base_torsions", 0.0),
    "ln q off by the heat, both ways": all_of(
        around(generator.Generator, "_push_stiff", off_by_heat),
        around(generator.Generator, "log_prob_stiff", off_by_heat_inverse),
    ),
    "shares of temperatures exchanged": around(draw.BoltzmannGenerator, "__init__", swapped_shares),
    "temperature ratio upside down": around(
        check, "log_weights_at", lambda original, u, log_prob, old, new: original(u, log_prob, new, old)
    ),
    "largest 1 % of weights clipped in ln Z": around(weights, "log_z", clipped_log_z),
    "populations without weights": around(check, "weighted_probability", equal_population),
    "ln Z without the 1/n": around(
        weights, "log_z", lambda original, log_w: (original(log_w)[0] + math.log(len(log_w)), original(log_w)[1])
    ),
    "failed samples not counted in ln Z": around(
        weights, "log_z", lambda original, log_w: original(np.asarray(log_w)[np.isfinite(log_w)])
    ),
    "weights not normalised by their sum": around(
        check, "normalized_weights", lambda original, log_w: original(log_w) * (1.0 + 1.0 / len(log_w) ** 0.25)
    ),
    "bootstrap of equal weights": around(
        free_energy, "normalized_weights", lambda original, log_w: np.full(len(log_w), 1.0 / len(log_w))
    ),
    "optimiser that moves nothing": around(optimizer.Optimizer, "step", lambda original, self, rate: None),
    "every batch from the same random numbers": around(generator.Generator, "sample", same_random_numbers),
    "two hydrogens of a methyl swapped": around(atlas.Atlas, "random_images", two_branches_swapped),
    "positions rounded to 1e-4 nm": samples_with(rounded),
    "angles 0.1° off": other_system(angles_shifted),
    "sign of torsions where they are read": around(internal, "dihedral", lambda original, *x: -original(*x)),
    "redraws with a wrong mean": around(estimator, "marginal", kept_weight),
    "annealing without its Metropolis test": around(
        annealed, "_energy", lambda original, *arguments: torch.zeros_like(original(*arguments))
    ),
}
"""Name → patch. The last eight were added when all checks were there."""
