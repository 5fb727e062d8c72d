"""Custom generalised-Born terms: values computed for every atom from its pairs, and energies of those values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from boltzgen.energy.custom import CustomTerm, Tables, column, total
from boltzgen.energy.custom_nonbonded import of_both, pair_distances
from boltzgen.energy.expression import Expression, gradient_where

SINGLE, PAIRS, ALL_PAIRS = "single", "pairs", "all pairs"
"""Kinds of a step: of single atoms, of pairs that are not excluded, of all pairs."""


class CustomGB(CustomTerm):
    """Energies of values that are computed for every atom first, as the Born radius is.

    The steps follow one another, and each may use the values of those before it. Steps that define a value v:

    - single: vᵢ = f(x, y, z; pᵢ, uᵢ) for parameters p and earlier values u of the atom
    - pairs, all pairs: vᵢ = Σ_{j≠i} f(r; p1 = pᵢ, p2 = pⱼ, u1, u2)

    Steps that are energies: Σᵢ e(x, y, z; pᵢ, vᵢ), or Σ_{i<j} e(r; p1 = pᵢ, p2 = pⱼ, v1, v2). From the cutoff on pairs
    count for nothing.

    Parameters: ``names``, ``values`` and ``value_kinds`` of the values, and ``energies`` and ``energy_kinds``, as lists
    of text; ``exclusions (k, 2)``; ``parameters``, by name the values ``(n,)`` of all atoms; ``cutoff`` in nm or None;
    ``constants`` and ``functions`` of :class:`CustomTerm`. Softened: r is floored at 0.01 nm.

    Raises
    ------
    UnsupportedError
        If an expression does not parse or uses something that is not given.
    """

    pairs: Tensor
    all_pairs: Tensor

    def __init__(
        self,
        n_atoms: int,
        dtype: torch.dtype,
        *,
        names: list[str],
        values: list[str],
        value_kinds: list[str],
        energies: list[str],
        energy_kinds: list[str],
        exclusions: np.ndarray,
        parameters: Mapping[str, np.ndarray],
        constants: Mapping[str, float],
        functions: Tables,
        cutoff: float | None = None,
    ) -> None:
        steps = {"names": names, "values": values, "value_kinds": value_kinds}
        steps |= {"energies": energies, "energy_kinds": energy_kinds}
        given = {"exclusions": exclusions, "parameters": dict(parameters), "cutoff": cutoff}
        super().__init__(n_atoms, dtype, constants, functions, **steps, **given)
        self._cutoff = cutoff
        included = np.triu(np.ones((n_atoms, n_atoms), dtype=bool), 1)
        self.register_buffer("all_pairs", torch.as_tensor(np.stack(np.nonzero(included))))
        included[exclusions[:, 0], exclusions[:, 1]] = included[exclusions[:, 1], exclusions[:, 0]] = False
        self.register_buffer("pairs", torch.as_tensor(np.stack(np.nonzero(included))))
        self.keep_parameters({name: column(array, dtype) for name, array in parameters.items()})
        self._names, self._value_kinds, self._energy_kinds = names, value_kinds, energy_kinds
        self._values = [
            self._step(text, kind, names[:index])
            for index, (text, kind) in enumerate(zip(values, value_kinds, strict=True))
        ]
        self._energies = [self._step(text, kind, names) for text, kind in zip(energies, energy_kinds, strict=True)]

    def _step(self, text: str, kind: str, earlier: list[str]) -> Expression:
        known = [*self._parameter_names, *earlier]
        if kind == SINGLE:
            return self.expression(text, [*known, "x", "y", "z"])
        return self.expression(text, ["r", *(f"{name}{k}" for name in known for k in (1, 2))])

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        atoms = self.parameter_values()
        kinds = {*self._value_kinds, *self._energy_kinds} - {SINGLE}
        distances = {kind: pair_distances(x, self._pairs(kind), softening is not None) for kind in kinds}
        for name, value, kind in zip(self._names, self._values, self._value_kinds, strict=True):
            if kind == SINGLE:
                atoms[name] = self._of_atoms(value, x, atoms)
            else:
                pairs, r = self._pairs(kind), distances[kind]
                both_ways = torch.cat([pairs, pairs.flip(0)], dim=1)
                onto = self._of_pairs(value, torch.cat([r, r]), both_ways, atoms)
                zeros = x.new_zeros(self.n_atoms, x.shape[-1])
                atoms[name] = zeros.index_add(0, both_ways[0], onto.broadcast_to(both_ways.shape[1], x.shape[-1]))
        energy = x.new_zeros(x.shape[-1])
        for term, kind in zip(self._energies, self._energy_kinds, strict=True):
            if kind == SINGLE:
                energy = energy + total(self._of_atoms(term, x, atoms), self.n_atoms, x)
            else:
                each = self._of_pairs(term, distances[kind], self._pairs(kind), atoms)
                energy = energy + total(each, distances[kind].shape[0], x)
        return energy

    def _pairs(self, kind: str) -> Tensor:
        return self.pairs if kind == PAIRS else self.all_pairs

    def _of_atoms(self, expression: Expression, x: Tensor, atoms: Mapping[str, Tensor]) -> Tensor:
        coordinates = dict(zip("xyz", x.unbind(1), strict=True))
        return expression({**self.constant_values(), **coordinates, **atoms})

    def _of_pairs(self, expression: Expression, r: Tensor, pairs: Tensor, atoms: Mapping[str, Tensor]) -> Tensor:
        both = of_both(atoms, pairs, expression.variables)
        if self._cutoff is None:
            return expression({**self.constant_values(), "r": r, **both})
        beyond = r >= self._cutoff
        live = {name: gradient_where(~beyond, value) for name, value in {"r": r, **both}.items()}
        return torch.where(beyond, 0.0, expression({**self.constant_values(), **live}))
