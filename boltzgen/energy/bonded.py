"""Bonded terms: bonds, angles, torsions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from boltzgen.energy.terms import Differences, PairTerm, Term


def torsion_angles(b1: Tensor, b2: Tensor, b3: Tensor) -> Tensor:
    """IUPAC torsions φ = atan2(|b₂| b₁·(b₂×b₃), (b₁×b₂)·(b₂×b₃)) of consecutive bonds ``(m, 3, batch)``.

    In radians, −π to π, shape ``(m, batch)``. Singular where two consecutive bonds are collinear.
    """
    n1, n2 = torch.linalg.cross(b1, b2, dim=1), torch.linalg.cross(b2, b3, dim=1)
    return torch.atan2((b1 * n2).sum(1) * b2.square().sum(1).sqrt(), (n1 * n2).sum(1))


class HarmonicBond(PairTerm):
    """Harmonic bonds, E = Σ ½ k (r − r₀)².

    Parameters: ``atoms (m, 2)``, ``length (m,)`` in nm, ``k (m,)`` in kJ/mol/nm². Singular gradient at r = 0 only.
    """

    length: Tensor
    k: Tensor

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        r = self.squared_distances(x).sqrt()
        return (0.5 * self.k[:, None] * (r - self.length[:, None]).square()).sum(0)


class HarmonicAngle(Term):
    """Harmonic angles, E = Σ ½ k (θ − θ₀)², with θ = atan2(|a×b|, a·b) at the middle atom.

    Parameters: ``atoms (m, 3)``, ``angle (m,)`` in radians, ``k (m,)`` in kJ/mol/rad². The gradient is singular at
    θ = 0 and π; a floor of 1e-24 nm⁴ under the root keeps it finite there.
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
        a, b = self.vectors(x).chunk(2)
        dot = (a * b).sum(1)
        cross = (a.square().sum(1) * b.square().sum(1) - dot.square()).clamp(min=1e-24).sqrt()
        theta = torch.atan2(cross, dot)
        return (0.5 * self.k[:, None] * (theta - self.angle[:, None]).square()).sum(0)


class PeriodicTorsion(Term):
    """Periodic proper and improper torsions, E = Σ k (1 + cos(nφ − φ₀)).

    Parameters: ``atoms (m, 4)``, ``periodicity (m,)``, ``phase (m,)`` in radians, ``k (m,)`` in kJ/mol. φ = atan2 of
    the IUPAC torsion; terms on the same four atoms share it. Singular where three atoms are collinear.
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
    angle, so that the gradient is regular at φ = 0 and π. Singular where three atoms are collinear.

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
        b1, b2, b3 = self.vectors(x).chunk(3)
        n1, n2 = torch.linalg.cross(b1, b2, dim=1), torch.linalg.cross(b2, b3, dim=1)
        cosine = -(n1 * n2).sum(1) * (n1.square().sum(1) * n2.square().sum(1)).rsqrt()
        energy = torch.zeros_like(cosine)
        for coefficient in self.coefficients.flip(1).unbind(1):
            energy = energy * cosine + coefficient[:, None]
        return energy.sum(0)
