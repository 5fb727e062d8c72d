"""Non-bonded terms, and their softening for training."""

from __future__ import annotations

import torch
from torch import Tensor

from boltzgen.constants import COULOMB
from boltzgen.energy.terms import PairTerm

MINIMUM_DISTANCE = 0.01
"""Floor of pair distances in nm, in softened energies only: keeps (σ/r)¹² inside float32."""


def soften(energy: Tensor, threshold: float) -> Tensor:
    """Return E below the threshold E₀ and E₀(1 + ln(E/E₀)) above: continuous with its first derivative."""
    above = threshold * (1.0 + torch.log(energy.clamp(min=threshold) / threshold))
    return torch.where(energy > threshold, above, energy)


class NonbondedPairs(PairTerm):
    """Lennard-Jones and Coulomb of listed pairs, E = Σ 4ε[(σ/r)¹² − (σ/r)⁶] + q²/(4πε₀ r), no cutoff.

    Parameters: ``atoms (m, 2)``, ``charge_product (m,)`` in e², ``sigma (m,)`` in nm, ``epsilon (m,)`` in kJ/mol. The
    list holds combined parameters of every pair that interacts, 1-4 exceptions included. Softened: r is floored at
    0.01 nm and each pair energy above the threshold grows logarithmically.
    """

    charge_product: Tensor
    sigma: Tensor
    epsilon: Tensor

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        r2 = self.squared_distances(x)
        if softening is not None:
            r2 = r2.clamp(min=MINIMUM_DISTANCE**2)
        inverse_r = r2.rsqrt()
        s6 = (self.sigma[:, None] * inverse_r).pow(6)
        pair = 4.0 * self.epsilon[:, None] * (s6 * s6 - s6) + COULOMB * self.charge_product[:, None] * inverse_r
        return (pair if softening is None else soften(pair, softening)).sum(0)
