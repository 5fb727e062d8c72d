"""Relaxation of many structures at once, so that dynamics can start from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boltzgen.dynamics.langevin import EnergyFunction

FIRST_STEP = 5e-4
LARGEST_STEP = 1e-3
"""Time steps of FIRE in ps, for atoms of 1 dalton."""

PATIENCE = 5
"""Steps downhill before FIRE speeds up."""

MIXING = 0.1
"""Share of the velocity that is turned into the direction of the force."""


@dataclass(frozen=True)
class Minimum:
    """Relaxed structures.

    Attributes
    ----------
    positions
        ``(atoms, 3, batch)``, nm.
    energy, largest_force
        ``(batch,)``, kJ/mol, and kJ/mol/nm on any one atom; +inf where the energy of the start cannot be computed.
    converged
        ``(batch,)``, whether the largest force is within the tolerance.
    n_steps
        Steps done, one energy of the whole batch each.
    """

    positions: Tensor
    energy: Tensor
    largest_force: Tensor
    converged: Tensor
    n_steps: int


def minimise(
    potential: EnergyFunction,
    x: Tensor,
    *,
    tolerance: float = 10.0,
    max_steps: int = 2000,
    max_displacement: float = 0.005,
) -> Minimum:
    """Relax positions ``(atoms, 3, batch)`` by FIRE until no force exceeds ``tolerance`` in kJ/mol/nm.

    Motion under the force, v ← v + Δt F and v ← (1 − α) v + α |v| F/|F|, is sped up while F·v > 0, and stopped with
    half the time step where it goes uphill, each walker for itself. No atom moves more than ``max_displacement`` nm a
    step, so that clashes come apart gently; a step to where the energy cannot be computed is taken back. Walkers that
    have converged stay where they are.

    Source: Bitzek, Koskinen, Gähler, Moseler, Gumbsch, Phys. Rev. Lett. 2006, 97, 170201, integrated by semi-implicit
    Euler steps (Guénolé et al., Comput. Mater. Sci. 2020, 175, 109584).
    """
    x = x.detach().clone()
    v = torch.zeros_like(x)
    energy, gradient = potential.evaluate(x)
    computable = torch.isfinite(energy)
    step, mixing = torch.full_like(energy, FIRST_STEP), torch.full_like(energy, MIXING)
    downhill = torch.zeros_like(energy)
    for n_steps in range(max_steps + 1):
        force = _largest(gradient).masked_fill(~computable, torch.inf)
        converged = force <= tolerance
        at_rest = converged | ~computable
        if n_steps == max_steps or bool(at_rest.all()):
            break
        uphill = (gradient * v).sum(dim=(0, 1)) > 0
        downhill = torch.where(uphill, 0.0, downhill + 1.0)
        faster = downhill > PATIENCE
        step = torch.where(uphill, 0.5 * step, torch.where(faster, (1.1 * step).clamp(max=LARGEST_STEP), step))
        mixing = torch.where(uphill, MIXING, torch.where(faster, 0.99 * mixing, mixing))
        v = torch.where(uphill, 0.0, v) - step * gradient
        v = (1.0 - mixing) * v - mixing * gradient * (_norm(v) / _norm(gradient).clamp(min=1e-30))
        move = step * v
        move *= (max_displacement / _largest(move).clamp(min=1e-30)).clamp(max=1.0)
        move.masked_fill_(at_rest, 0.0)
        new_energy, new_gradient = potential.evaluate(x + move)
        lost = ~torch.isfinite(new_energy)
        x += move.masked_fill_(lost, 0.0)
        v.masked_fill_(lost, 0.0)
        step = torch.where(lost, 0.5 * step, step)
        energy = torch.where(lost, energy, new_energy)
        gradient = torch.where(lost, gradient, new_gradient)
    return Minimum(x, energy, force, converged, n_steps)


def _norm(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=(0, 1)).sqrt()


def _largest(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=1).amax(dim=0).sqrt()
