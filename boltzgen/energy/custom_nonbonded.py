"""Custom non-bonded terms: an expression of the distance of two atoms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from boltzgen.energy.custom import CustomTerm, Tables, column, total
from boltzgen.energy.expression import gradient_where
from boltzgen.energy.nonbonded import floor, soften, switch


def pair_distances(x: Tensor, pairs: Tensor, softened: bool) -> Tensor:
    """Distances ``(m, batch)`` in nm of pairs ``(2, m)``; softened, at least 0.01 nm."""
    r2 = (x.index_select(0, pairs[1]) - x.index_select(0, pairs[0])).square().sum(1)
    return floor(r2, softened).sqrt()


def of_both(values: Mapping[str, Tensor], pairs: Tensor, needed: frozenset[str]) -> dict[str, Tensor]:
    """Values of atoms ``(n, ...)`` as values of pairs: ``q`` becomes ``q1`` and ``q2``, where needed."""
    return {
        f"{name}{which + 1}": value.index_select(0, pairs[which])
        for name, value in values.items()
        for which in (0, 1)
        if f"{name}{which + 1}" in needed
    }


class CustomNonbonded(CustomTerm):
    """Custom pair energies, E = Σ S(r) e(r; p1, p2) over listed pairs, zero from the cutoff on.

    S = 1 − 10t³ + 15t⁴ − 6t⁵, t = (r − r_s)/(r_c − r_s), between the switching distance r_s and the cutoff r_c.

    Parameters: ``expression`` e in kJ/mol; ``pairs (m, 2)``, exclusions already left out; ``parameters``, by name ``p``
    the values ``(n,)`` of all atoms, which are ``p1`` and ``p2`` in the expression; ``cutoff`` and ``switching`` in nm
    or None; ``constants`` and ``functions`` of :class:`CustomTerm`. Softened: r is floored at 0.01 nm and each pair
    energy above the threshold grows logarithmically.

    Raises
    ------
    UnsupportedError
        If the expression does not parse or uses something that is not given.
    """

    pairs: Tensor

    def __init__(
        self,
        n_atoms: int,
        dtype: torch.dtype,
        *,
        expression: str,
        pairs: np.ndarray,
        parameters: Mapping[str, np.ndarray],
        constants: Mapping[str, float],
        functions: Tables,
        cutoff: float | None = None,
        switching: float | None = None,
    ) -> None:
        given = {"expression": expression, "pairs": pairs, "parameters": dict(parameters)}
        super().__init__(n_atoms, dtype, constants, functions, **given, cutoff=cutoff, switching=switching)
        self.register_buffer("pairs", torch.as_tensor(np.ascontiguousarray(pairs.T)))
        self._cutoff, self._switching = cutoff, switching
        self._energy = self.expression(expression, ["r", *(f"{name}{k}" for name in parameters for k in (1, 2))])
        columns = {name: column(values, dtype) for name, values in parameters.items()}
        self.keep_parameters(of_both(columns, self.pairs, self._energy.variables))

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`."""
        r = pair_distances(x, self.pairs, softening is not None)
        beyond = r >= self._cutoff if self._cutoff is not None else None
        values = self.constant_values() | {"r": r if beyond is None else gradient_where(~beyond, r)}
        pair = self._energy(values | self.parameter_values())
        if self._cutoff is not None and self._switching is not None:
            pair = pair * switch(r, self._switching, self._cutoff)
        if softening is not None:
            pair = soften(pair, softening)
        if beyond is not None:
            pair = torch.where(beyond, 0.0, pair)
        return total(pair, self.pairs.shape[1], x)
