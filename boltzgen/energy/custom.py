"""What the terms of OpenMM's custom forces have in common: expressions, constants and tabulated functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boltzgen.energy.expression import Expression, Function
from boltzgen.energy.tabulated import TabulatedFunction
from boltzgen.energy.terms import Term

Tables = Mapping[str, Mapping[str, Any]]
"""Tabulated functions by name, each as :meth:`TabulatedFunction.from_tree` takes it."""


class CustomTerm(Term):
    """A term whose energy is written as expressions.

    Parameters: ``constants``, the global parameters of the force by name, at the values of the System; ``functions``,
    its tabulated functions; ``others``, what else the constructor of the subclass took, for :meth:`arrays`.
    """

    constants: Tensor

    def __init__(
        self, n_atoms: int, dtype: torch.dtype, constants: Mapping[str, float], functions: Tables, **others: Any
    ) -> None:
        super().__init__(n_atoms, dtype)
        self._taken = {"constants": dict(constants), "functions": dict(functions), **others}
        self._constant_names = list(constants)
        self.register_buffer("constants", torch.tensor([float(value) for value in constants.values()], dtype=dtype))
        tables = {name: TabulatedFunction.from_tree(tree, dtype) for name, tree in functions.items()}
        self.tables = nn.ModuleList(tables.values())
        self._functions = {name: Function(table.arity, table) for name, table in tables.items()}

    def arrays(self) -> dict[str, Any]:
        """Parameters as given to the constructor."""
        return self._taken

    def keep_parameters(self, columns: Mapping[str, Tensor]) -> None:
        """Keep parameters by name, each ``(m, 1)``, as buffers."""
        self._parameter_names = list(columns)
        for index, values in enumerate(columns.values()):
            self.register_buffer(f"parameter_{index}", values)

    def parameter_values(self) -> dict[str, Tensor]:
        """What :meth:`keep_parameters` was given."""
        return {name: self.get_buffer(f"parameter_{index}") for index, name in enumerate(self._parameter_names)}

    def expression(
        self, text: str, variables: Collection[str], functions: Mapping[str, Function] | None = None
    ) -> Expression:
        """Parse an expression of the variables and the constants, with the tabulated functions and those given."""
        return Expression(text, [*variables, *self._constant_names], {**self._functions, **(functions or {})})

    def constant_values(self) -> dict[str, Tensor]:
        """The constants by name, as tensors without an axis."""
        return dict(zip(self._constant_names, self.constants.unbind(), strict=True))


def column(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    """One number per interaction or atom ``(m,)`` as ``(m, 1)``, which broadcasts over the batch."""
    return torch.as_tensor(np.asarray(values, dtype=np.float64)[:, None]).to(dtype)


def total(energies: Tensor, count: int, x: Tensor) -> Tensor:
    """Sum energies that broadcast to ``(count, batch)`` over the interactions of positions ``(atoms, 3, batch)``."""
    return energies.broadcast_to(count, x.shape[-1]).sum(0)
