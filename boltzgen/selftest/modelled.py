"""Models with all that is known of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from boltzgen.models.model import ModelTarget
from boltzgen.models.particles import CUTOFF, LennardJonesPair, SquareWellPair
from boltzgen.models.rings import XYRing
from boltzgen.models.wells import Mixture, MuellerBrown, Wells
from boltzgen.selftest.case import Array, Case, Mean

HOT = 400.0
"""K: a temperature that samples at the nominal 300 K are reweighted to."""

Field = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A vector field on configurations, shaped as they are, and its divergence ``(batch,)``."""


def _stein(target: ModelTarget, name: str, field: Field) -> Mean:
    """⟨f · ∇u − ∇ · f⟩ = 0, with the slope of the energy."""

    def of(x: Array) -> Array:
        at = torch.as_tensor(x).permute(1, 2, 0).contiguous().requires_grad_()
        (slope,) = torch.autograd.grad(target.energy(at).sum(), at)
        f, divergence = field(at.detach())
        return ((f * slope).sum((0, 1)) - divergence).numpy()

    return Mean(f"Stein {name}", 0.0, of)


def _energy(target: ModelTarget) -> Callable[[Array], Array]:
    return lambda x: target.energy(torch.as_tensor(x).permute(1, 2, 0).contiguous()).numpy()


def _case(
    name: str,
    target: ModelTarget,
    log_z: float,
    means: tuple[Mean, ...],
    energies: int,
    *,
    sizes: Mapping[str, int] | None = None,
    least_ess: float = 0.25,
    mean_u: float | None = None,
    hot_log_z: float | None = None,
) -> Case:
    hot = {} if hot_log_z is None else {HOT: hot_log_z}
    return Case(
        name,
        target,
        log_z,
        means,
        _energy(target),
        energies,
        mean_u=mean_u,
        other_temperatures=hot,
        sizes=dict(sizes or {}),
        least_ess=least_ess,
    )


def xy_ring(n: int, coupling: float, energies: int) -> Case:
    """Angles on a ring: neighbours, opposites, the winding number."""
    ring = XYRing(n, coupling)
    target = ring.target()

    def cosine(distance: int) -> Callable[[Array], Array]:
        return lambda x: np.cos(x[:, 0, 0] - x[:, distance, 0])

    def field(x: Tensor) -> tuple[Tensor, Tensor]:
        difference = x - x.roll(1, dims=0)
        return difference.sin(), difference.cos().sum((0, 1))

    def shifted(x: Tensor) -> tuple[Tensor, Tensor]:
        difference = x - x.roll(1, dims=0)
        return difference.cos(), -difference.sin().sum((0, 1))

    def winding(x: Array) -> Array:
        turns = np.diff(x[:, :, 0], axis=1, append=x[:, :1, 0])
        return np.rint(((turns + math.pi) % (2.0 * math.pi) - math.pi).sum(1) / (2.0 * math.pi))

    means = (
        Mean("<cos> of neighbours", ring.mean_cosine(1), cosine(1)),
        Mean("<cos> of opposites", ring.mean_cosine(n // 2), cosine(n // 2)),
        Mean("<sin> of neighbours", 0.0, lambda x: np.sin(x[:, 0, 0] - x[:, 1, 0])),
        Mean("<cos> of the first", 0.0, lambda x: np.cos(x[:, 0, 0])),
        Mean("<winding number>", 0.0, winding),
        _stein(target, "sin of turns", field),
        _stein(target, "cos of turns", shifted),
    )
    mean_u = -n * coupling * ring.mean_cosine(1)
    hot = ring.log_z(coupling * target.temperature / HOT)
    name = f"XY ring {n}, K = {coupling:g}"
    return _case(name, target, ring.log_z(), means, energies, mean_u=mean_u, hot_log_z=hot)


def _virial(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x.new_full((x.shape[-1],), float(x.shape[0] * x.shape[1]))


def _constant(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(x), x.new_zeros(x.shape[-1])


def wells(name: str, model: Wells, barrier: float, energies: int, **sizes: int) -> Case:
    """Double wells in blocks: each population, and moments."""
    target = model.target()

    def left(k: int) -> Mean:
        return Mean(f"P(x{k + 1} < {barrier:g})", model.population(barrier), lambda x: x[:, k, 0] < barrier)

    means = (
        *(left(k) for k in range(model.n)),
        Mean("<x1>", model.mean(1), lambda x: x[:, 0, 0]),
        Mean("<y1²>", 1.0, lambda x: x[:, 0, 1] ** 2),
        _stein(target, "x", _virial),
        _stein(target, "1", _constant),
    )
    hot = model.log_z(target.temperature / HOT)
    log_z = model.log_z()
    return _case(name, target, log_z, means, energies, mean_u=model.mean_u, hot_log_z=hot, sizes=sizes)


def double_well(energies: int) -> Case:
    """x⁴ − 6x² + x + ½y²: 3 % in the right well."""
    return wells("double well", Wells(1, 1.0, -6.0, 1.0), 0.083528, energies)


def many_well(n: int, energies: int) -> Case:
    """n blocks of x⁴ − 6x² − ½x + ½y²."""
    return wells(f"many-well {2 * n}-D", Wells(n, 1.0, -6.0, -0.5), -0.0417, energies, torsion_hidden=32)


def mueller_brown(thermal_energy: float, energies: int) -> Case:
    """The surface of Müller and Brown."""
    model = MuellerBrown(thermal_energy)
    target = model.target()
    log_z, mean_u, above = model.integrals()
    means = (
        Mean("P(y > 0.8)", above, lambda x: x[:, 0, 1] > 0.8),
        _stein(target, "x", _virial),
        _stein(target, "1", _constant),
    )
    hot, _, _ = MuellerBrown(thermal_energy * HOT / target.temperature).integrals()
    name = f"Müller–Brown, kT = {thermal_energy:g}"
    return _case(name, target, log_z, means, energies, mean_u=mean_u, hot_log_z=hot)


def mixture(energies: int) -> Case:
    """Four normal distributions, whose ln Z is zero."""
    model = Mixture()
    target = model.target()
    means = (
        Mean("<x>", float(np.asarray(model.mean)[0]), lambda x: x[:, 0, 0]),
        Mean("<y>", float(np.asarray(model.mean)[1]), lambda x: x[:, 0, 1]),
        _stein(target, "x", _virial),
        _stein(target, "1", _constant),
    )
    return _case("Gaussian mixture", target, 0.0, means, energies)


def square_well(depth: float, energies: int) -> Case:
    """Two particles with a hard core: samples whose energy is infinite count, with weight zero."""
    model = SquareWellPair(depth)
    target = model.target()
    means = (
        Mean("P(bound)", model.bound, lambda x: np.linalg.norm(x[:, 0], axis=1) < model.reach),
        Mean("<z>", 0.0, lambda x: x[:, 0, 2]),
    )
    hot = model.log_z(target.temperature / HOT)
    mean_u = -depth * model.bound
    return _case("square-well pair", target, model.log_z(), means, energies, mean_u=mean_u, hot_log_z=hot)


def lennard_jones(temperature: float, energies: int) -> Case:
    """Two particles within 3σ; f = x (r − 3σ) vanishes on the sphere, where Stein identities end."""
    model = LennardJonesPair(temperature)
    target, z = model.target(), model.integral()

    def field(x: Tensor) -> tuple[Tensor, Tensor]:
        r = x[0].norm(dim=0)
        return x * (r - CUTOFF), 3.0 * (r - CUTOFF) + r

    means = (
        Mean("<r>", model.integral(1) / z, lambda x: np.linalg.norm(x[:, 0], axis=1)),
        Mean("<r²>", model.integral(2) / z, lambda x: np.square(x[:, 0]).sum(1)),
        Mean("<z>", 0.0, lambda x: x[:, 0, 2]),
        Mean("<x>", 0.0, lambda x: x[:, 0, 0]),
        _stein(target, "x (r − 3)", field),
    )
    mean_u = 4.0 / temperature * (model.integral(-12) - model.integral(-6)) / z
    hot = math.log(model.integral(beta=target.temperature / HOT))
    name = f"Lennard-Jones pair, T* = {temperature:g}"
    return _case(name, target, math.log(z), means, energies, mean_u=mean_u, hot_log_z=hot)
