"""The potential energy of a molecule: a sum of terms, batched and differentiable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from boltzgen.energy.terms import Term

CPU_CHUNK = 1024
"""Samples that plain torch evaluates at a time on a CPU: intermediate arrays stay in the cache."""

CHUNK_BYTES = 2**31
"""Bound on the intermediate arrays of plain torch, bytes: a batch of any size fits."""

ARRAYS_PER_PAIR = 60
"""Arrays of one number per pair and sample that plain torch keeps for a gradient with generalised Born."""


class Evaluation(NamedTuple):
    """Energies ``(batch,)`` in kJ/mol and gradients dU/dx ``(atoms, 3, batch)`` in kJ/mol/nm.

    A sample whose energy or gradient cannot be computed has energy +inf and gradient zero; nothing is ever NaN.
    """

    energy: Tensor
    gradient: Tensor

    @property
    def n_failed(self) -> int:
        """Number of samples whose energy cannot be computed."""
        return int(torch.isinf(self.energy).sum())


class PotentialEnergy(nn.Module):
    """U(x) = Σ terms.

    Call with positions ``(batch, atoms, 3)`` in nm; returns energies ``(batch,)`` in kJ/mol, differentiable once. With
    ``softening`` (kJ/mol) each non-bonded pair above it grows only logarithmically: for training, never for weights.
    Samples that cannot be computed (coincident atoms, NaN, overflow) come back as +inf with gradient zero.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)

    def forward(self, positions: Tensor, softening: float | None = None) -> Tensor:
        """Energies in kJ/mol, ``(batch,)``, of positions ``(batch, atoms, 3)`` in nm."""
        return self.batch_last(positions.permute(1, 2, 0).contiguous(), softening)

    def batch_last(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energies in kJ/mol, ``(batch,)``, of positions ``(atoms, 3, batch)`` in nm: the layout of the hot loop."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _Energy.apply(x, self, softening)
        energies = [_finite_or_inf(self.definition(part, softening)) for part in self._chunks(x.detach())]
        return torch.cat(energies) if energies else x.new_zeros(0)

    def evaluate(self, x: Tensor, softening: float | None = None) -> Evaluation:
        """Energies and gradients of positions ``(atoms, 3, batch)`` in nm, without a graph."""
        energy, gradient = x.new_empty(x.shape[-1]), torch.empty_like(x)
        start = 0
        for part in self._chunks(x.detach()):
            stop = start + part.shape[-1]
            leaf = part.requires_grad_(True)
            with torch.enable_grad():
                u = self.definition(leaf, softening)
                (g,) = torch.autograd.grad(u.sum(), leaf)
            good = torch.isfinite(u) & torch.isfinite(g).all(dim=0).all(dim=0)
            energy[start:stop] = torch.where(good, u.detach(), math.inf)
            gradient[..., start:stop] = torch.where(good, g, 0.0)
            start = stop
        return Evaluation(energy, gradient)

    def energy_and_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energies ``(batch,)`` in kJ/mol and forces ``(batch, atoms, 3)`` in kJ/mol/nm."""
        energy, gradient = self.evaluate(positions.permute(1, 2, 0).contiguous())
        return energy, -gradient.permute(2, 0, 1)

    def definition(self, x: Tensor, softening: float | None = None) -> Tensor:
        """The readable definition in plain torch: the sum of the terms as they are, differentiable to any order.

        Positions ``(atoms, 3, batch)`` in nm; energies ``(batch,)`` in kJ/mol, infinite or NaN where undefined.
        """
        total = x.new_zeros(x.shape[-1])
        for term in self.terms:
            total = total + term.energy(x, softening)  # type: ignore[operator]  # ModuleList forgets the class
        return total

    def _chunks(self, x: Tensor) -> Iterator[Tensor]:
        n_atoms = x.shape[0]
        per_sample = ARRAYS_PER_PAIR * x.element_size() * max(1, n_atoms * (n_atoms - 1) // 2)
        size = max(1, CHUNK_BYTES // per_sample)
        if x.device.type == "cpu":
            size = min(size, CPU_CHUNK)
        for start in range(0, x.shape[-1], size):
            yield x[..., start : start + size].contiguous()

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


class _Energy(torch.autograd.Function):
    """Energies whose gradient is computed along with them, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, potential: PotentialEnergy, softening: float | None) -> Tensor:
        energy, gradient = potential.evaluate(x, softening)
        ctx.save_for_backward(energy, gradient)
        return energy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        energy, gradient = ctx.saved_tensors
        return torch.where(torch.isinf(energy), 0.0, cotangent) * gradient, None, None


def _finite_or_inf(energy: Tensor) -> Tensor:
    return torch.where(torch.isfinite(energy), energy, math.inf)
