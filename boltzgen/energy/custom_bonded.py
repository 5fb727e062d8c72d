"""Custom bonded terms: an expression of a distance, an angle, a torsion, or the coordinates of a few atoms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from boltzgen.energy.custom import CustomTerm, Tables, column, total
from boltzgen.energy.expression import Function
from boltzgen.energy.geometry import bond_angles, lengths, torsion_angles
from boltzgen.energy.terms import check_atoms


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Distances |b − a| in nm of points ``(m, 3, batch)``: shape ``(m, batch)``; NaN at zero."""
    return lengths(b - a)


def angle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Angles at b in radians of points ``(m, 3, batch)``, see :func:`~boltzgen.energy.geometry.bond_angles`."""
    return bond_angles(a - b, c - b)


def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """IUPAC torsions in radians, −π to π, of points ``(m, 3, batch)``; NaN where three are collinear."""
    return torsion_angles(b - a, c - b, d - c)


class CustomBonded(CustomTerm):
    """A sum over groups of atoms, E = Σ e(measures; parameters), where subclasses say what is measured.

    Parameters: ``expression`` e, in kJ/mol; ``atoms (m, k)``; ``parameters``, by name the values ``(m,)`` of each
    group; ``constants`` and ``functions`` of :class:`CustomTerm`. Lengths in nm, angles in radians.

    Raises
    ------
    UnsupportedError
        If the expression does not parse or uses something that is neither measured nor given.
    """

    geometry: ClassVar[Mapping[str, Function]] = {}
    atoms: Tensor

    def __init__(
        self,
        n_atoms: int,
        dtype: torch.dtype,
        *,
        expression: str,
        atoms: np.ndarray,
        parameters: Mapping[str, np.ndarray],
        constants: Mapping[str, float],
        functions: Tables,
    ) -> None:
        check_atoms(n_atoms, atoms, type(self).__name__)
        given = {"expression": expression, "atoms": atoms, "parameters": dict(parameters)}
        super().__init__(n_atoms, dtype, constants, functions, **given)
        self.register_buffer("atoms", torch.as_tensor(atoms))
        self.keep_parameters({name: column(values, dtype) for name, values in parameters.items()})
        measured = self.measure(tuple(torch.zeros(atoms.shape[1], 1, 3, 1)))
        self._energy = self.expression(expression, [*parameters, *measured], self.geometry)

    def measure(self, points: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Measures by name, each ``(m, batch)``, of the atoms of a group, each ``(m, 3, batch)``."""
        raise NotImplementedError

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        points = tuple(x.index_select(0, atom) for atom in self.atoms.unbind(1))
        values = self.measure(points) | self.constant_values() | self.parameter_values()
        return total(self._energy(values), len(self.atoms), x)


class CustomBond(CustomBonded):
    """Custom bonds, E = Σ e(r): ``atoms (m, 2)``, the distance is ``r``."""

    def measure(self, points: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """See :meth:`CustomBonded.measure`."""
        return {"r": distance(*points)}


class CustomAngle(CustomBonded):
    """Custom angles, E = Σ e(θ): ``atoms (m, 3)``, the angle is ``theta``."""

    def measure(self, points: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """See :meth:`CustomBonded.measure`."""
        return {"theta": angle(*points)}


class CustomTorsion(CustomBonded):
    """Custom torsions, E = Σ e(φ): ``atoms (m, 4)``, the torsion is ``theta``, −π to π."""

    def measure(self, points: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """See :meth:`CustomBonded.measure`."""
        return {"theta": dihedral(*points)}


class CustomExternal(CustomBonded):
    """Custom external energies, E = Σ e(x, y, z) of single atoms, ``atoms (m, 1)``."""

    def measure(self, points: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """See :meth:`CustomBonded.measure`."""
        return dict(zip("xyz", points[0].unbind(1), strict=True))


def _points(*coordinates: Tensor) -> list[Tensor]:
    """Points ``(m, 3, batch)`` of coordinates x1, y1, z1, x2, ..."""
    level = torch.broadcast_tensors(*torch.atleast_2d(*coordinates))
    return [torch.stack(level[start : start + 3], 1) for start in range(0, len(level), 3)]


def _point_distance(*coordinates: Tensor) -> Tensor:
    return distance(*_points(*coordinates))


def _point_angle(*coordinates: Tensor) -> Tensor:
    return angle(*_points(*coordinates))


def _point_dihedral(*coordinates: Tensor) -> Tensor:
    return dihedral(*_points(*coordinates))


class CustomCompoundBond(CustomBonded):
    """Custom energies of groups of atoms, E = Σ e(x1, y1, z1, x2, ...), ``atoms (m, k)``.

    Besides coordinates the expression may use ``distance(p1, p2)``, ``angle(p1, p2, p3)``, ``dihedral(p1, p2, p3, p4)``
    of the atoms, and ``pointdistance``, ``pointangle``, ``pointdihedral`` of two to four points given by coordinates.
    """

    geometry: ClassVar[Mapping[str, Function]] = {
        "distance": Function(2, distance),
        "angle": Function(3, angle),
        "dihedral": Function(4, dihedral),
        "pointdistance": Function(6, _point_distance),
        "pointangle": Function(9, _point_angle),
        "pointdihedral": Function(12, _point_dihedral),
    }

    def measure(self, points: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """See :meth:`CustomBonded.measure`."""
        measures = {f"p{k}": point for k, point in enumerate(points, start=1)}
        for k, point in enumerate(points, start=1):
            measures |= {f"{name}{k}": part for name, part in zip("xyz", point.unbind(1), strict=True)}
        return measures
