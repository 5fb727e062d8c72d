"""What a generator needs to know of a system: its reduced potential, its coordinates, its temperature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from boltzgen.constants import thermal_energy
from boltzgen.coordinates.atlas import Atlas
from boltzgen.coordinates.protocol import Coordinates
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.molecule import Molecule


class AnyTarget(Protocol):
    """All that training and sampling ask of a system, molecular or model.

    Replica exchange, which leads a training to states that it does not draw, asks for more: a molecule.
    """

    @property
    def temperature(self) -> float:
        """Temperature of the ensemble in K; a model, which has no unit of energy, has a nominal one."""

    @property
    def coordinates(self) -> Coordinates:
        """The bijection between latent blocks and configurations."""

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Self:
        """The same target in another precision, on another device."""

    def reduced_potential(self, x: Tensor, temperature: float | None = None, softening: float | None = None) -> Tensor:
        """u = U(x)/kT of configurations, ``(batch,)``, +inf where it cannot be computed."""


class Target:
    """A molecule at a temperature.

    ``coordinates`` is the bijection between latent blocks and positions, which travel as
    ``(atoms, 3, batch)`` in nm. The reference temperature is the one of the ensemble, and of the whitening.
    ``potential`` is the energy in kJ/mol, which dynamics needs as it is.
    """

    def __init__(
        self,
        molecule: Molecule,
        potential: PotentialEnergy,
        coordinates: Atlas,
        temperature: float,
    ) -> None:
        self.molecule = molecule
        self.coordinates = coordinates
        self.temperature = temperature
        self.potential = potential

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Target:
        """The same target in another precision, on another device; parameters are converted from float64."""
        potential = PotentialEnergy.from_tree(self.potential.to_tree(), dtype).to(device)
        return Target(self.molecule, potential, self.coordinates.to(dtype, device), self.temperature)

    def reduced_potential(self, x: Tensor, temperature: float | None = None, softening: float | None = None) -> Tensor:
        """u = U(x)/kT, ``(batch,)``, at a temperature in K (default: the target's).

        ``softening`` in kJ/mol flattens overlapping pairs: for training, never for weights. An energy that cannot be
        computed is +inf, with gradient zero: counting them is the caller's duty.
        """
        return self.potential.batch_last(x, softening) / thermal_energy(temperature or self.temperature)

    def to_tree(self) -> dict[str, Any]:
        """Everything as nested arrays and text, to be stored in a file."""
        return {
            "molecule": self.molecule.to_json(),
            "temperature": self.temperature,
            "potential": self.potential.to_tree(),
            "coordinates": self.coordinates.to_tree(),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Target:
        """Build from what :meth:`to_tree` returned, in float64 on the CPU."""
        return cls(
            Molecule.from_json(tree["molecule"]),
            PotentialEnergy.from_tree(tree["potential"]),
            Atlas.from_tree(tree["coordinates"]),
            float(tree["temperature"]),
        )
