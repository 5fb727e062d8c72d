"""Non-bonded terms, and their softening for training."""

from __future__ import annotations

import numpy as np
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


def floor(r2: Tensor, softened: bool) -> Tensor:
    """Squared distances in nm²; softened, at least the square of :data:`MINIMUM_DISTANCE`."""
    return r2.clamp(min=MINIMUM_DISTANCE**2) if softened else r2


def switch(r: Tensor, start: Tensor | float, end: Tensor | float) -> Tensor:
    """1 − 10t³ + 15t⁴ − 6t⁵, t = (r − start)/(end − start): from 1 at the start to 0 at the end."""
    t = ((r - start) / (end - start)).clamp(0.0, 1.0)
    return 1.0 - t * t * t * (10.0 - t * (15.0 - 6.0 * t))


def lennard_jones(inverse_r: Tensor, sigma: Tensor, epsilon: Tensor) -> Tensor:
    """4ε[(σ/r)¹² − (σ/r)⁶] in kJ/mol, ``(m, batch)``, with one σ in nm and one ε in kJ/mol a pair."""
    s6 = (sigma[:, None] * inverse_r).pow(6)
    return 4.0 * epsilon[:, None] * (s6 * s6 - s6)


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
        inverse_r = floor(self.squared_distances(x), softening is not None).rsqrt()
        coulomb = COULOMB * self.charge_product[:, None] * inverse_r
        pair = lennard_jones(inverse_r, self.sigma, self.epsilon) + coulomb
        return (pair if softening is None else soften(pair, softening)).sum(0)


class ReactionField(PairTerm):
    """Lennard-Jones and Coulomb of listed pairs within a cutoff, in a medium of dielectric constant ε_rf beyond it.

        E = Σ_{r < r_c} S(r) 4ε[(σ/r)¹² − (σ/r)⁶] + q²/(4πε₀) (1/r + k r² − c),
        k = (ε_rf − 1)/(2ε_rf + 1)/r_c³,  c = 3ε_rf/(2ε_rf + 1)/r_c

    S = 1 − 10t³ + 15t⁴ − 6t⁵, t = (r − r_s)/(r_c − r_s), falls from 1 at the switching distance r_s to 0 at r_c;
    without switching (r_s = r_c) the Lennard-Jones energy jumps at the cutoff, as the model has it.

    Parameters: those of :class:`NonbondedPairs` for the pairs without an exception (1-4 pairs have no cutoff and belong
    there), ``cutoff (1,)`` and ``switching (1,)`` in nm, ``dielectric (1,)``. Softened like :class:`NonbondedPairs`.

    Source: Tironi, Sperb, Smith, van Gunsteren, J. Chem. Phys. 102, 5451 (1995); OpenMM User Guide, section 19.6.
    """

    charge_product: Tensor
    sigma: Tensor
    epsilon: Tensor
    cutoff: Tensor
    switching: Tensor
    dielectric: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        self._switched = bool(parameters["switching"][0] < parameters["cutoff"][0])

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        r2 = floor(self.squared_distances(x), softening is not None)
        inverse_r = r2.rsqrt()
        dispersion = lennard_jones(inverse_r, self.sigma, self.epsilon)
        if self._switched:
            dispersion = dispersion * switch(r2.sqrt(), self.switching, self.cutoff)
        medium = (2.0 * self.dielectric + 1.0) * self.cutoff
        reaction = ((self.dielectric - 1.0) * r2 / self.cutoff.square() - 3.0 * self.dielectric) / medium
        pair = dispersion + COULOMB * self.charge_product[:, None] * (inverse_r + reaction)
        if softening is not None:
            pair = soften(pair, softening)
        return torch.where(r2 > self.cutoff.square(), 0.0, pair).sum(0)  # NaN is not beyond the cutoff
