"""Terms of MMFF94 and MMFF94s.

Sources: Halgren, J. Comput. Chem. 17, 490-519 (1996), the functional form; 520-552, van der Waals and electrostatic
terms; 553-586, bonds, angles, stretch-bend and out-of-plane; 587-615 torsions; 20, 720-729 (1999), MMFF94s, which has
other parameters and the same form. The constants are those of :mod:`boltzgen.energy.mmff_expressions`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from boltzgen.energy.geometry import bond_angles, bond_cosines, lengths, torsion_cosines
from boltzgen.energy.mmff_expressions import BEND_CUBIC, BUFFER, COULOMB, STRETCH_CUBIC, STRETCH_QUARTIC
from boltzgen.energy.nonbonded import soften
from boltzgen.energy.terms import Differences, PairTerm, Term

FLOOR = 1e-24
"""Floor under every root: r² in nm², |a×b|² in nm⁴, and nm⁶ in Wilson angles. Below it the gradient of the root is
zero instead of infinite; at any other point it is far below rounding."""


class MMFFBond(PairTerm):
    """Bond stretching, E = Σ ½ k d² (1 − 20 d + 7/12 · 400 d²), d = r − r₀ in nm.

    Parameters: ``atoms (m, 2)``, ``k (m,)`` in kJ/mol/nm², ``r0 (m,)`` in nm. Undefined at r = 0: NaN.
    """

    k: Tensor
    r0: Tensor

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        d = lengths(self.vectors(x)) - self.r0[:, None]
        return (0.5 * self.k[:, None] * d.square() * (1.0 - STRETCH_CUBIC * d + STRETCH_QUARTIC * d.square())).sum(0)


class _CentredTriple(Term):
    """What terms of i–j–k share: the vectors from the middle atom j to i and to k."""

    atoms: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        i, j, k = parameters["atoms"].T
        self.vectors = Differences(np.concatenate([j, j]), np.concatenate([i, k]))

    def arms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors in nm, ``(m, 3, batch)`` each, from the middle atom to the first and to the last."""
        a, b = self.vectors(x).chunk(2)
        return a, b


class MMFFAngle(_CentredTriple):
    """Angle bending, E = Σ ½ k d² (1 − 0.4 d), d = θ − θ₀ in radians, θ = atan2(|a×b|, a·b) at the middle atom.

    Parameters: ``atoms (m, 3)``, ``k (m,)`` in kJ/mol/rad², ``theta0 (m,)`` in radians. The 0.4 is RDKit's
    0.39999999954, from its rounding in degrees. The gradient is singular at θ = 0 and π, where it is zero; where the
    middle atom comes near another it grows as 1/r, and the floor bounds it.
    """

    k: Tensor
    theta0: Tensor

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        d = bond_angles(*self.arms(x)) - self.theta0[:, None]
        return (0.5 * self.k[:, None] * d.square() * (1.0 - BEND_CUBIC * d)).sum(0)


class MMFFLinearAngle(_CentredTriple):
    """Angle bending at linear centres, E = Σ k (1 + cos θ), θ at the middle atom.

    Parameters: ``atoms (m, 3)``, ``k (m,)`` in kJ/mol. Smooth at θ = 0 and π; singular only where the middle atom
    coincides with another.
    """

    k: Tensor

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        a, b = self.arms(x)
        return (self.k[:, None] * (1.0 + bond_cosines(a, b))).sum(0)


class MMFFStretchBend(_CentredTriple):
    """Coupling of an angle i–j–k with its bonds, E = Σ [k₁ (r_ij − r₁) + k₂ (r_kj − r₂)] (θ − θ₀).

    Parameters: ``atoms (m, 3)``, ``k1 (m,)`` and ``k2 (m,)`` in kJ/mol/nm/rad, ``r1 (m,)`` and ``r2 (m,)`` in nm,
    ``theta0 (m,)`` in radians. Singular as :class:`MMFFAngle` and :class:`MMFFBond`, and treated alike.
    """

    k1: Tensor
    k2: Tensor
    r1: Tensor
    r2: Tensor
    theta0: Tensor

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        a, b = self.arms(x)
        first = self.k1[:, None] * (lengths(a) - self.r1[:, None])
        second = self.k2[:, None] * (lengths(b) - self.r2[:, None])
        return ((first + second) * (bond_angles(a, b) - self.theta0[:, None])).sum(0)


class MMFFOutOfPlane(Term):
    """Wilson angles of trigonal centres, E = Σ ½ k (χ₁² + χ₂² + χ₃²).

    With a, b, c the vectors from the centre to its three neighbours, χ₃ is the angle of c with the plane of a and b,
    sin χ₃ = T / (|a×b| |c|), T = a·(b×c), computed as χ₃ = atan2(T, √(|a×b|²|c|² − T²)); χ₁ and χ₂ likewise.

    Parameters: ``atoms (m, 4)`` with the centre first, ``k (m,)`` in kJ/mol/rad². χ₃ is undefined where a and b are
    collinear, and its gradient jumps at χ₃ = ±π/2; it is zero at the first and finite at the second.
    """

    atoms: Tensor
    k: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        centre, *neighbours = parameters["atoms"].T
        self.vectors = Differences(np.tile(centre, 3), np.concatenate(neighbours))

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        a, b, c = self.vectors(x).chunk(3)
        b_c = torch.linalg.cross(b, c, dim=1)
        triple = (a * b_c).sum(1)
        normals = b_c, torch.linalg.cross(c, a, dim=1), torch.linalg.cross(a, b, dim=1)
        total = torch.zeros_like(triple)
        for normal, arm in zip(normals, (a, b, c), strict=True):
            in_plane = _root(normal.square().sum(1) * arm.square().sum(1) - triple.square())
            total = total + torch.atan2(triple, in_plane).square()
        return (0.5 * self.k[:, None] * total).sum(0)


class MMFFTorsion(Term):
    """Torsions, E = Σ ½ [V₁ (1 + cos φ) + V₂ (1 − cos 2φ) + V₃ (1 + cos 3φ)], as a polynomial in c = cos φ:

    ½ [V₁ (1 + c) + 2 V₂ (1 − c²) + V₃ (1 + 4c³ − 3c)], c = n₁·n₂ / (|n₁||n₂|), n₁ = b₁×b₂, n₂ = b₂×b₃.

    Parameters: ``atoms (m, 4)``, ``v1 (m,)``, ``v2 (m,)``, ``v3 (m,)`` in kJ/mol. Singular where three atoms are
    collinear: c is undefined and taken as zero there, and the gradient grows as 1/|n| and is bounded by the floor.
    """

    atoms: Tensor
    v1: Tensor
    v2: Tensor
    v3: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        i, j, k, m = parameters["atoms"].T
        self.vectors = Differences(np.concatenate([i, j, k]), np.concatenate([j, k, m]))

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        c = torsion_cosines(*self.vectors(x).chunk(3))
        v1, v2, v3 = self.v1[:, None], self.v2[:, None], self.v3[:, None]
        return (0.5 * (v1 * (1.0 + c) + v3 * (1.0 + c * (4.0 * c.square() - 3.0))) + v2 * (1.0 - c.square())).sum(0)


class MMFFNonbonded(PairTerm):
    """Buffered 14-7 and buffered Coulomb energy of listed pairs, without cutoff.

    With ρ = r/R*,

        E = Σ ε [1.07/(ρ + 0.07)]⁷ [1.12/(ρ⁷ + 0.12) − 2] + q²/(4πε₀ (r + 0.005 nm))

    Parameters: ``atoms (m, 2)``, ``rstar (m,)`` in nm, ``epsilon (m,)`` in kJ/mol, ``qq (m,)`` in e², the product of
    the charges, times ¾ for atoms three bonds apart. The list holds all pairs at least that far apart. Finite at r = 0,
    where the direction of the gradient is undefined and the gradient zero. Softened: each pair energy above the
    threshold grows logarithmically; no floor of r is needed.
    """

    rstar: Tensor
    epsilon: Tensor
    qq: Tensor

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        r = _root(self.squared_distances(x))
        rho = r / self.rstar[:, None]
        repulsion = self.epsilon[:, None] * _seventh_power(1.07 / (rho + 0.07))
        van_der_waals = repulsion * (1.12 / (_seventh_power(rho) + 0.12) - 2.0)
        pair = van_der_waals + COULOMB * self.qq[:, None] / (r + BUFFER)
        return (pair if softening is None else soften(pair, softening)).sum(0)


def _root(square: Tensor) -> Tensor:
    return square.clamp(min=FLOOR).sqrt()


def _seventh_power(x: Tensor) -> Tensor:
    cube = x.square() * x
    return cube.square() * x
