"""Generalised-Born implicit solvent of the HCT, OBC and GBn families."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from boltzgen.constants import COULOMB
from boltzgen.energy.nonbonded import floor
from boltzgen.energy.terms import Differences, Term

PROBE_RADIUS = 0.14
"""Radius of the solvent probe in the surface term, nm."""


class GeneralizedBorn(Term):
    r"""Generalised Born with the ACE surface term, without cutoff.

    With ρ̃ the reduced radius, s the scaled one and ρ = ρ̃ + offset, the descreening integral of atom i is

        I_i = Σ_j ½[1/L − 1/U + ¼(r − s_j²/r)(1/U² − 1/L²) + ½ ln(L/U)/r],  U = r + s_j,  L = max(ρ̃_i, |r − s_j|)

    where r + s_j > ρ̃_i, plus the neck correction κ m₀/(1 + 100 x² + 3·10⁵ x⁶), x = r − d₀, where
    r < ρ_i + ρ_j + 0.68 nm (GBn models). The Born radius is
    B = 1/(1/ρ̃ − tanh(αψ − βψ² + γψ³)/ρ), ψ = I ρ̃ (OBC), or 1/(1/ρ̃ − I) (HCT), and

        E = −½ τ/(4πε₀) Σ_ij q_i q_j / √(r² + B_i B_j e^{−r²/(4 B_i B_j)}) + Σ_i A (ρ_i + 0.14 nm)² (ρ_i/B_i)⁶

    with τ = 1/ε_in − 1/ε_out.

    Parameters (per atom unless said): ``charge`` e; ``reduced_radius``, ``scaled_radius``, ``radius`` nm; ``alpha``,
    ``beta``, ``gamma``; ``rescaled`` (1,) 0 for HCT; ``dielectric`` (1,) τ; ``surface`` (1,) A in kJ/mol/nm²;
    ``swallowed`` (1,) 1 to add 1/ρ̃_i − 1/L to I_i where atom j swallows atom i, s_j − r > ρ̃_i, as OpenMM's
    GBSAOBCForce does and its CustomGB models do not;
    ``neck_scale`` (1,) κ, ``neck_cutoff`` (1,) nm, ``neck_depth`` and ``neck_distance`` (n, n) m₀ and d₀.

    Sources: Hawkins, Cramer, Truhlar, J. Phys. Chem. 100, 19824 (1996); Onufriev, Bashford, Case, Proteins 55, 383
    (2004), eqs. 6 and 10; Mongan et al., J. Chem. Theory Comput. 3, 156 (2007); Nguyen, Roe, Simmerling, J. Chem.
    Theory Comput. 9, 2020 (2013). The kinks of L and of the neck cutoff are part of the models.
    """

    charge: Tensor
    reduced_radius: Tensor
    scaled_radius: Tensor
    radius: Tensor
    alpha: Tensor
    beta: Tensor
    gamma: Tensor
    rescaled: Tensor
    swallowed: Tensor
    dielectric: Tensor
    surface: Tensor
    neck_scale: Tensor
    neck_cutoff: Tensor
    neck_depth: Tensor
    neck_distance: Tensor
    pairs: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        i, j = np.triu_indices(n_atoms, 1)
        self.vectors = Differences(i, j)
        self.register_buffer("pairs", torch.as_tensor(np.stack([i, j])))
        self._obc = bool(parameters["rescaled"][0])
        self._swallowed = bool(parameters["swallowed"][0])
        self._neck = bool(parameters["neck_scale"][0] != 0.0)

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`; softened: r is floored at 0.01 nm."""
        r2 = floor(self.vectors(x).square().sum(1), softening is not None)
        born = self.born_radii(r2.sqrt())
        b_i, b_j = born.index_select(0, self.pairs[0]), born.index_select(0, self.pairs[1])
        bb = b_i * b_j
        screened = (r2 + bb * torch.exp(-0.25 * r2 / bb)).rsqrt()
        qq = self.charge[self.pairs[0]] * self.charge[self.pairs[1]]
        own = 0.5 * (self.charge.square()[:, None] / born).sum(0)
        polar = -COULOMB * self.dielectric * (qq @ screened + own)
        ratio = self.radius[:, None] / born
        area = (self.radius + PROBE_RADIUS).square()
        return polar + self.surface * (area @ ratio.pow(6))

    def born_radii(self, r: Tensor) -> Tensor:
        """Born radii in nm, ``(atoms, batch)``, of pair distances ``(pairs, batch)`` in nm."""
        i, j = self.pairs
        onto_i = self._descreening(r, self.reduced_radius[i, None], self.scaled_radius[j, None])
        onto_j = self._descreening(r, self.reduced_radius[j, None], self.scaled_radius[i, None])
        if self._neck:
            cutoff = self.radius[i] + self.radius[j] + self.neck_cutoff
            near = (r < cutoff[:, None]).to(r.dtype) * self.neck_scale
            onto_i = onto_i + near * self._neck_integral(r, i, j)
            onto_j = onto_j + near * self._neck_integral(r, j, i)
        integral = r.new_zeros(self.n_atoms, r.shape[-1]).index_add(0, i, onto_i).index_add(0, j, onto_j)
        reduced = self.reduced_radius[:, None]
        if not self._obc:
            return 1.0 / (1.0 / reduced - integral)
        psi = integral * reduced
        polynomial = psi * (self.alpha[:, None] + psi * (-self.beta[:, None] + psi * self.gamma[:, None]))
        return 1.0 / (1.0 / reduced - torch.tanh(polynomial) / self.radius[:, None])

    def _descreening(self, r: Tensor, reduced: Tensor, scaled: Tensor) -> Tensor:
        upper = 1.0 / (r + scaled)
        lower = 1.0 / torch.maximum((r - scaled).abs(), reduced)
        inverse_r = 1.0 / r
        value = 0.5 * (lower - upper) + 0.125 * (r - scaled.square() * inverse_r) * (upper.square() - lower.square())
        value = value + 0.25 * inverse_r * torch.log(upper / lower)
        if self._swallowed:
            value = value + torch.where(scaled - r > reduced, 1.0 / reduced - lower, 0.0)
        return torch.where(r + scaled > reduced, value, torch.zeros_like(value))

    def _neck_integral(self, r: Tensor, i: Tensor, j: Tensor) -> Tensor:
        x2 = (r - self.neck_distance[i, j, None]).square()
        return self.neck_depth[i, j, None] / (1.0 + 100.0 * x2 + 3.0e5 * x2.pow(3))
