"""Terms of molecular force fields as batched torch functions: what all have in common.

Layout: positions travel as ``(atoms, 3, batch)``, the batch last and contiguous, so that every operation is a
long vector operation and gathering atoms is a product with a small incidence matrix, whose gradient is another product.

Each term is a module whose buffers are its parameters; ``energy(x)`` returns kJ/mol with shape ``(batch,)``.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn


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

    def difference(self, first: np.ndarray, second: np.ndarray, dtype: torch.dtype) -> Tensor:
        """Incidence matrix D ``(m, atoms)`` with ``(D x)[k] = x[second[k]] − x[first[k]]``."""
        matrix = torch.zeros(len(first), self.n_atoms, dtype=dtype)
        rows = torch.arange(len(first))
        matrix[rows, torch.as_tensor(second)] += 1.0
        matrix[rows, torch.as_tensor(first)] -= 1.0
        return matrix


def apply_incidence(matrix: Tensor, x: Tensor) -> Tensor:
    """Return ``matrix @ x`` for a matrix ``(m, atoms)`` and x ``(atoms, ..., batch)``: shape ``(m, ..., batch)``."""
    return (matrix @ x.reshape(x.shape[0], -1)).reshape(matrix.shape[0], *x.shape[1:])


class PairTerm(Term):
    """A sum over listed pairs of atoms, ``atoms (m, 2)``."""

    vectors: Tensor

    def __init__(self, n_atoms: int, dtype: torch.dtype, **parameters: np.ndarray) -> None:
        super().__init__(n_atoms, dtype, **parameters)
        first, second = parameters["atoms"].T
        self.register_buffer("vectors", self.difference(first, second, dtype))

    def squared_distances(self, x: Tensor) -> Tensor:
        """r² of each pair in nm², ``(m, batch)``."""
        return apply_incidence(self.vectors, x).square().sum(1)
