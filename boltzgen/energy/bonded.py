"""Bonded terms: bonds, angles, torsions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from boltzgen.energy.geometry import bond_angles, lengths, torsion_angles, torsion_cosines
from boltzgen.energy.terms import Differences, PairTerm, Term


class HarmonicBond(PairTerm):
    """Harmonic bonds, E = Σ ½ k (r − r₀)².

    Parameters: ``atoms (m, 2)``, ``length (m,)`` in nm, ``k (m,)`` in kJ/mol/nm². Undefined at r = 0: NaN.
    """

    length: Tensor
    k: Tensor

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        r = lengths(self.vectors(x))
        return (0.5 * self.k[:, None] * (r - self.length[:, None]).square()).sum(0)


class HarmonicAngle(Term):
    """Harmonic angles, E = Σ ½ k (θ − θ₀)², with θ = atan2(|a×b|, a·b) at the middle atom.

    Parameters: ``atoms (m, 3)``, ``angle (m,)`` in radians, ``k (m,)`` in kJ/mol/rad². The gradient is singular at
    θ = 0 and π, where it is zero; undefined where the middle atom coincides with another: NaN.
    """

    atoms: Tensor
    angle: Tensor
    k: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        i, j, k = parameters["atoms"].T
        self.vectors = Differences(np.concatenate([j, j]), np.concatenate([i, k]))

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        theta = bond_angles(*self.vectors(x).chunk(2))
        return (0.5 * self.k[:, None] * (theta - self.angle[:, None]).square()).sum(0)


class PeriodicTorsion(Term):
    """Periodic proper and improper torsions, E = Σ k (1 + cos(nφ − φ₀)).

    Parameters: ``atoms (m, 4)``, ``periodicity (m,)``, ``phase (m,)`` in radians, ``k (m,)`` in kJ/mol. φ = atan2 of
    the IUPAC torsion; terms on the same four atoms share it. Undefined where three atoms are collinear: NaN.
    """

    atoms: Tensor
    periodicity: Tensor
    phase: Tensor
    k: Tensor
    quadruple: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        unique, quadruple = np.unique(parameters["atoms"], axis=0, return_inverse=True)
        i, j, k, m = unique.T
        self.vectors = Differences(np.concatenate([i, j, k]), np.concatenate([j, k, m]))
        self.register_buffer("quadruple", torch.as_tensor(quadruple.reshape(-1)))

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        phi = torsion_angles(*self.vectors(x).chunk(3)).index_select(0, self.quadruple)
        return (self.k[:, None] * (1.0 + torch.cos(self.periodicity[:, None] * phi - self.phase[:, None]))).sum(0)


class RBTorsion(Term):
    """Ryckaert-Bellemans torsions, E = Σ Σₖ Cₖ cosᵏψ with ψ = φ − π: the polymer convention, ψ = 0 is trans.

    Parameters: ``atoms (m, 4)``, ``coefficients (m, 6)`` in kJ/mol. cos ψ = −(b₁×b₂)·(b₂×b₃)/(|b₁×b₂||b₂×b₃|) needs no
    angle, so that the gradient is regular at φ = 0 and π. Undefined where three atoms are collinear: NaN.

    Source: Ryckaert, Bellemans, Chem. Phys. Lett. 30, 123 (1975).
    """

    atoms: Tensor
    coefficients: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        i, j, k, m = parameters["atoms"].T
        self.vectors = Differences(np.concatenate([i, j, k]), np.concatenate([j, k, m]))

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        cosine = -torsion_cosines(*self.vectors(x).chunk(3))
        energy = torch.zeros_like(cosine)
        for coefficient in self.coefficients.flip(1).unbind(1):
            energy = energy * cosine + coefficient[:, None]
        return energy.sum(0)
