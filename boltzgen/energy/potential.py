"""The potential energy of a molecule: a sum of terms, batched and differentiable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from boltzgen.energy.terms import Term


class PotentialEnergy(nn.Module):
    """U(x) = Σ terms.

    Call with positions ``(batch, atoms, 3)`` in nm; returns energies ``(batch,)`` in kJ/mol. With ``softening``
    (kJ/mol) each non-bonded pair above it grows only logarithmically: for training, never for weights.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)

    def forward(self, positions: Tensor, softening: float | None = None) -> Tensor:
        """Energies in kJ/mol, ``(batch,)``, of positions ``(batch, atoms, 3)`` in nm."""
        return self.batch_last(positions.permute(1, 2, 0).contiguous(), softening)

    def batch_last(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energies in kJ/mol, ``(batch,)``, of positions ``(atoms, 3, batch)`` in nm: the layout of the hot loop."""
        total = x.new_zeros(x.shape[-1])
        for term in self.terms:
            total = total + term.energy(x, softening)  # type: ignore[operator]  # ModuleList forgets the class
        return total

    def energy_and_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energies ``(batch,)`` in kJ/mol and forces ``(batch, atoms, 3)`` in kJ/mol/nm."""
        x = positions.detach().requires_grad_(True)
        energy = self(x)
        (gradient,) = torch.autograd.grad(energy.sum(), x)
        return energy.detach(), -gradient

    def to_tree(self) -> dict[str, Any]:
        """Parameters of every term as nested arrays, to be stored in a file."""
        return {
            str(index): {"kind": type(term).__name__, "n_atoms": term.n_atoms, "parameters": term.arrays()}
            for index, term in enumerate(self.terms)
            if isinstance(term, Term)
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], dtype: torch.dtype = torch.float64) -> PotentialEnergy:
        """Build from what :meth:`to_tree` returned; needs neither OpenMM nor the force field."""
        ordered = [tree[key] for key in sorted(tree, key=int)]
        return cls([Term.registry[item["kind"]](int(item["n_atoms"]), dtype, **item["parameters"]) for item in ordered])
