"""Molecular dynamics of many independent copies of one molecule at once.

::

    walkers = Walkers.thermal(potential, positions, masses, 300.0, generator)        # positions (atoms, 3, batch)
    langevin = Langevin(potential, walkers, masses, 300.0, timestep=1.0, generator=generator)
    langevin.run(1000)
    walkers.positions, walkers.energy, walkers.n_failed

Units: nm, ps, dalton, kJ/mol, K, in which 1 kJ/mol = 1 dalton nm²/ps²; time steps alone are in fs. Arrays are
``(atoms, 3, batch)``, the batch last and contiguous, and what the inner loop does beside the energy is done in place.

A walker whose energy cannot be computed has *failed*: it stays where it failed, at rest, with energy +inf, is counted
in :attr:`Walkers.n_failed`, and never disturbs the others. Nothing is reset; the caller says what to leave out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from boltzgen.dynamics.thermostat import OrnsteinUhlenbeck, mass_column, maxwell_boltzmann
from boltzgen.energy.potential import Evaluation
from boltzgen.errors import InputError

HEAVIEST_HYDROGEN = 1.5
"""Atoms lighter than this, in dalton, count as hydrogen."""


class EnergyFunction(Protocol):
    """What dynamics asks of an energy; :class:`boltzgen.energy.PotentialEnergy` is one."""

    def evaluate(self, x: Tensor, /) -> Evaluation:
        """Energies ``(batch,)`` in kJ/mol and gradients dU/dx ``(atoms, 3, batch)`` of positions in nm.

        Both are new arrays. A walker that cannot be computed has energy +inf and gradient zero; nothing is NaN.
        """
        ...


@dataclass
class Walkers:
    """Independent copies of a molecule in motion; dynamics changes them in place.

    Attributes
    ----------
    positions, velocities
        ``(atoms, 3, batch)``, nm and nm/ps.
    energy, gradient
        Those of ``positions``: ``(batch,)`` kJ/mol, ``(atoms, 3, batch)`` kJ/mol/nm.
    failed, n_failed
        ``(batch,)``, whether the energy of a walker could ever not be computed, and of how many.
    """

    positions: Tensor
    velocities: Tensor
    energy: Tensor
    gradient: Tensor
    failed: Tensor
    n_failed: int = 0

    @classmethod
    def at(cls, potential: EnergyFunction, positions: Tensor, velocities: Tensor) -> Walkers:
        """Start from copies of these positions and velocities ``(atoms, 3, batch)``."""
        x, v = (t.detach().clone(memory_format=torch.contiguous_format) for t in (positions, velocities))
        failed = torch.zeros(x.shape[-1], dtype=torch.bool, device=x.device)
        walkers = cls(x, v, x.new_zeros(x.shape[-1]), torch.zeros_like(x), failed)
        walkers.evaluate(potential)
        return walkers

    @classmethod
    def thermal(
        cls,
        potential: EnergyFunction,
        positions: Tensor,
        masses: ArrayLike,
        temperature: float | Tensor,
        generator: torch.Generator,
    ) -> Walkers:
        """Start from positions ``(atoms, 3, batch)`` with velocities of equilibrium at ``temperature`` in K."""
        return cls.at(potential, positions, maxwell_boltzmann(positions, masses, temperature, generator))

    def evaluate(self, potential: EnergyFunction) -> None:
        """Update energy and gradient to the positions; walkers that fail come to rest."""
        self.energy, self.gradient = potential.evaluate(self.positions)
        if not math.isfinite(self.energy.sum()):
            self.failed |= ~torch.isfinite(self.energy)
            self.n_failed = int(self.failed.sum())
        if self.n_failed:
            self.energy.masked_fill_(self.failed, math.inf)
            self.gradient.masked_fill_(self.failed, 0.0)
        self.hold_failed()

    def hold_failed(self) -> None:
        """Keep failed walkers at rest."""
        if self.n_failed:
            self.velocities.masked_fill_(self.failed, 0.0)

    def kinetic_energy(self, masses: ArrayLike) -> Tensor:
        """Σ ½ m v² in kJ/mol, ``(batch,)``, for masses ``(atoms,)`` in dalton."""
        return (0.5 * mass_column(masses, self.velocities) * self.velocities.square()).sum(dim=(0, 1))

    def recentre(self) -> None:
        """Move every centroid to the origin, so that free diffusion costs no digits.

        Only for energies that do not change under translation.
        """
        self.positions.sub_(self.positions.mean(dim=0, keepdim=True))


def velocity_verlet(
    potential: EnergyFunction,
    walkers: Walkers,
    masses: ArrayLike,
    timestep: float,
    n_steps: int,
    thermostat: OrnsteinUhlenbeck | None = None,
) -> None:
    """Advance by ``n_steps`` of ``timestep`` fs, each a sequence B A O A B; without O, velocity Verlet.

    B: v ← v − ½Δt ∇U/m.  A: x ← x + ½Δt v.  O: friction and noise, :class:`OrnsteinUhlenbeck`. One energy a step: the
    two kicks B that meet between steps are one. Stable for Δt < 2/ω of the fastest vibration. Without O, total
    energies err by O(Δt²) and do not drift. With O, positions are distributed exactly in harmonic wells at any
    stable Δt, and up to O(Δt²) elsewhere; velocities after a whole step are too cold by a share of (ωΔt)²/4.

    Source: Leimkuhler and Matthews, Appl. Math. Res. eXpress 2013, 34 (BAOAB).
    """
    if n_steps < 1:
        return
    dt = 1e-3 * timestep
    x, v = walkers.positions, walkers.velocities
    kick = -dt / mass_column(masses, x)
    half_kick = 0.5 * kick
    v.addcmul_(walkers.gradient, half_kick)
    for step in range(1, n_steps + 1):
        if thermostat is None:
            x.add_(v, alpha=dt)
        else:
            x.add_(v, alpha=0.5 * dt)
            thermostat.apply(v)
            walkers.hold_failed()
            x.add_(v, alpha=0.5 * dt)
        walkers.evaluate(potential)
        v.addcmul_(walkers.gradient, kick if step < n_steps else half_kick)


class Langevin:
    """Langevin dynamics by BAOAB, see :func:`velocity_verlet`; its positions sample exp(−U/RT).

    ``masses (atoms,)`` in dalton; ``temperature`` in K, one or one per walker; ``friction`` in 1/ps; ``timestep`` in
    fs: 1 for flexible bonds to hydrogen, 2 to 4 with :func:`repartition_hydrogen_masses`. The same state of the
    generator gives the same trajectories.
    """

    def __init__(
        self,
        potential: EnergyFunction,
        walkers: Walkers,
        masses: ArrayLike,
        temperature: float | Tensor,
        *,
        friction: float = 1.0,
        timestep: float = 1.0,
        generator: torch.Generator,
    ) -> None:
        self.potential = potential
        self.walkers = walkers
        self.masses = mass_column(masses, walkers.positions)
        self.timestep = timestep
        self.thermostat = OrnsteinUhlenbeck(walkers.positions, self.masses, temperature, friction, timestep, generator)

    def run(self, n_steps: int) -> None:
        """Advance all walkers by ``n_steps``."""
        velocity_verlet(self.potential, self.walkers, self.masses, self.timestep, n_steps, self.thermostat)


def repartition_hydrogen_masses(
    masses: ArrayLike, bonds: Iterable[tuple[int, int]], hydrogen_mass: float = 3.0
) -> Tensor:
    """Masses ``(atoms,)`` in dalton with every hydrogen at ``hydrogen_mass``, taken from its heavy neighbour.

    The total is conserved, and masses do not change a distribution of positions; slower hydrogens bear time steps of up
    to 4 fs (Hopkins, Le Grand, Walker, Roitberg, J. Chem. Theory Comput. 2015, 11, 1864).

    Raises
    ------
    InputError
        If a hydrogen has no heavy neighbour, or a heavy atom would be left lighter than the hydrogens.
    """
    old = torch.as_tensor(masses, dtype=torch.float64)
    new = old.clone()
    hydrogen = old < HEAVIEST_HYDROGEN
    pending = set(torch.nonzero(hydrogen).flatten().tolist())
    for pair in bonds:
        for h, heavy in (pair, pair[::-1]):
            if h in pending and not hydrogen[heavy]:
                new[heavy] -= hydrogen_mass - old[h]
                new[h] = hydrogen_mass
                pending.remove(h)
    if pending:
        raise InputError(f"hydrogen {min(pending)} has no heavy neighbour that could give it mass.")
    light = torch.nonzero(~hydrogen & (new < hydrogen_mass)).flatten().tolist()
    if light:
        raise InputError(
            f"hydrogens of {hydrogen_mass:g} dalton leave atom {light[0]} only {float(new[light[0]]):.3g} dalton. "
            "Ask for lighter hydrogens."
        )
    return new


def slowed_masses(masses: ArrayLike, bonds: Iterable[tuple[int, int]]) -> Tensor:
    """Masses ``(atoms,)`` in dalton that bear a time step of 2 fs: hydrogens of 3 where the molecule has it to give.

    Where it has not, as water and hydrogen, every atom weighs 6 at least; positions do not notice.
    """
    try:
        return repartition_hydrogen_masses(masses, bonds)
    except InputError:
        return torch.as_tensor(masses, dtype=torch.float64).clamp(min=6.0)
