"""Bonded and non-bonded terms of molecular force fields as batched torch functions.

Layout: positions travel as ``(atoms, 3, batch)``, the batch last and contiguous, so that every operation is a
long vector operation and gathering atoms is a product with a small incidence matrix, whose gradient is another product.

Each term is a module whose buffers are its parameters; ``energy(x)`` returns kJ/mol with shape ``(batch,)``.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from boltzgen.constants import COULOMB

MINIMUM_DISTANCE = 0.01
"""Floor of pair distances in nm, in softened energies only: keeps (σ/r)¹² inside float32."""


class Term(nn.Module):
    """One kind of force-field term; parameters are given as arrays and kept as buffers.

    Integer arrays stay integer; floating-point arrays become ``dtype``. :meth:`arrays` returns what the
    constructor took, so that a term can be stored and read back without OpenMM.
    """

    registry: ClassVar[dict[str, type[Term]]] = {}

    def __init_subclass__(cls) -> None:
        Term.registry[cls.__name__] = cls

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__()
        self.n_atoms = n_atoms
        self._arrays = {name: np.asarray(value) for name, value in parameters.items()}
        for name, value in self._arrays.items():
            tensor = torch.as_tensor(value)
            self.register_buffer(name, tensor.to(dtype) if tensor.is_floating_point() else tensor)

    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters as given to the constructor."""
        return self._arrays

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, shape ``(batch,)``, of positions ``(atoms, 3, batch)`` in nm.

        ``softening`` is the pair energy in kJ/mol above which non-bonded pairs grow only logarithmically; bonded
        terms ignore it.
        """
        raise NotImplementedError

    def _difference(self, first: np.ndarray, second: np.ndarray, dtype: torch.dtype) -> Tensor:
        """Incidence matrix D ``(m, atoms)`` with ``(D x)[k] = x[second[k]] − x[first[k]]``."""
        matrix = torch.zeros(len(first), self.n_atoms, dtype=dtype)
        rows = torch.arange(len(first))
        matrix[rows, torch.as_tensor(second)] += 1.0
        matrix[rows, torch.as_tensor(first)] -= 1.0
        return matrix


def apply_incidence(matrix: Tensor, x: Tensor) -> Tensor:
    """Return ``matrix @ x`` for a matrix ``(m, atoms)`` and x ``(atoms, ..., batch)``: shape ``(m, ..., batch)``."""
    return (matrix @ x.reshape(x.shape[0], -1)).reshape(matrix.shape[0], *x.shape[1:])


def soften(energy: Tensor, threshold: float) -> Tensor:
    """Return E below the threshold E₀ and E₀(1 + ln(E/E₀)) above: continuous with its first derivative."""
    above = threshold * (1.0 + torch.log(energy.clamp(min=threshold) / threshold))
    return torch.where(energy > threshold, above, energy)


class _PairTerm(Term):
    """A sum over listed pairs of atoms, ``atoms (m, 2)``."""

    vectors: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        first, second = parameters["atoms"].T
        self.register_buffer("vectors", self._difference(first, second, dtype))

    def _squared_distances(self, x: Tensor) -> Tensor:
        """r² of each pair in nm², ``(m, batch)``."""
        return apply_incidence(self.vectors, x).square().sum(1)


class HarmonicBond(_PairTerm):
    """Harmonic bonds, E = Σ ½ k (r − r₀)².

    Parameters: ``atoms (m, 2)``, ``length (m,)`` in nm, ``k (m,)`` in kJ/mol/nm². Singular gradient at r = 0 only.
    """

    length: Tensor
    k: Tensor

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        r = self._squared_distances(x).sqrt()
        return (0.5 * self.k[:, None] * (r - self.length[:, None]).square()).sum(0)


class HarmonicAngle(Term):
    """Harmonic angles, E = Σ ½ k (θ − θ₀)², with θ = atan2(|a×b|, a·b) at the middle atom.

    Parameters: ``atoms (m, 3)``, ``angle (m,)`` in radians, ``k (m,)`` in kJ/mol/rad². The gradient is singular at
    θ = 0 and π; a floor of 1e-24 nm⁴ under the root keeps it finite there.
    """

    atoms: Tensor
    angle: Tensor
    k: Tensor
    vectors: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        i, j, k = parameters["atoms"].T
        ends = self._difference(np.concatenate([j, j]), np.concatenate([i, k]), dtype)
        self.register_buffer("vectors", ends)

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        a, b = apply_incidence(self.vectors, x).chunk(2)
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
    vectors: Tensor
    quadruple: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        unique, quadruple = np.unique(parameters["atoms"], axis=0, return_inverse=True)
        i, j, k, m = unique.T
        chain = self._difference(np.concatenate([i, j, k]), np.concatenate([j, k, m]), dtype)
        self.register_buffer("vectors", chain)
        self.register_buffer("quadruple", torch.as_tensor(quadruple.reshape(-1)))

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        b1, b2, b3 = apply_incidence(self.vectors, x).chunk(3)
        n1, n2 = torch.linalg.cross(b1, b2, dim=1), torch.linalg.cross(b2, b3, dim=1)
        sine = (b1 * n2).sum(1) * b2.square().sum(1).sqrt()
        phi = torch.atan2(sine, (n1 * n2).sum(1)).index_select(0, self.quadruple)
        return (self.k[:, None] * (1.0 + torch.cos(self.periodicity[:, None] * phi - self.phase[:, None]))).sum(0)


class NonbondedPairs(_PairTerm):
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
        r2 = self._squared_distances(x)
        if softening is not None:
            r2 = r2.clamp(min=MINIMUM_DISTANCE**2)
        inverse_r = r2.rsqrt()
        s6 = (self.sigma[:, None] * inverse_r).pow(6)
        pair = 4.0 * self.epsilon[:, None] * (s6 * s6 - s6) + COULOMB * self.charge_product[:, None] * inverse_r
        return (pair if softening is None else soften(pair, softening)).sum(0)
