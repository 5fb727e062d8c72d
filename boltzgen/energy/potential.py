"""The potential energy of a molecule: a sum of terms, batched and differentiable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from boltzgen.energy.program import split_terms
from boltzgen.energy.terms import Term
from boltzgen.errors import InputError
from boltzgen.native import kernels

CPU_CHUNK = 2**19
"""Numbers in an array over pairs that plain torch works on at a time on a CPU: arrays stay in the cache."""

CHUNK_BYTES = 2**31
"""Bound on the intermediate arrays of plain torch, bytes: a batch of any size fits."""

ARRAYS_PER_ROW = 120
"""Arrays of one number per pair of atoms and sample that plain torch keeps for a gradient, at most about that."""

LEAST_SOFTENING = 1e-3
"""kJ/mol."""


class Evaluation(NamedTuple):
    """Energies ``(batch,)`` in kJ/mol and gradients dU/dx ``(atoms, 3, batch)`` in kJ/mol/nm.

    A sample whose energy or gradient cannot be computed has energy +inf and gradient zero; nothing is ever NaN. Where
    no gradient is asked for, plain torch judges by the energy alone.
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

    On a CPU the compiled kernels evaluate the terms that they know, on as many threads as torch has, and plain torch
    the others; ``native=False`` leaves all to plain torch. Positions are float32 or float64; the kernels compute in
    their precision, plain torch in that of the terms. Parameters are fixed: the kernels have copies of them.

    Raises
    ------
    InputError
        If terms are of molecules of different size; on a call, if positions have another shape or type, or the
        softening is less than 0.001 kJ/mol.
    """

    def __init__(self, terms: Sequence[Term], *, n_atoms: int | None = None, native: bool = True) -> None:
        super().__init__()
        sizes = {term.n_atoms for term in terms} | ({n_atoms} if n_atoms is not None else set())
        if len(sizes) > 1:
            raise InputError(f"the terms are of molecules of different sizes, {sorted(sizes)} atoms.")
        self.n_atoms = next(iter(sizes), 0)
        self.terms = nn.ModuleList(terms)
        self._program, self._rest = split_terms(self.n_atoms, terms) if native else (None, list(terms))
        n_pairs = self.n_atoms * (self.n_atoms - 1) // 2
        self._rows = max([1, n_pairs, *(len(term.arrays().get("atoms", ())) for term in terms)])

    def forward(self, positions: Tensor, softening: float | None = None) -> Tensor:
        """Energies in kJ/mol, ``(batch,)``, of positions ``(batch, atoms, 3)`` in nm."""
        return self.batch_last(_batch_last(positions), softening)

    def batch_last(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energies in kJ/mol, ``(batch,)``, of positions ``(atoms, 3, batch)`` in nm: the layout of the hot loop."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _Energy.apply(x, self, softening)
        return self._evaluate(x.detach(), softening, with_gradient=False)[0]

    def evaluate(self, x: Tensor, softening: float | None = None) -> Evaluation:
        """Energies and gradients of positions ``(atoms, 3, batch)`` in nm, without a graph."""
        energy, gradient = self._evaluate(x.detach(), softening, with_gradient=True)
        assert gradient is not None
        return Evaluation(energy, gradient)

    def energy_and_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energies ``(batch,)`` in kJ/mol and forces ``(batch, atoms, 3)`` in kJ/mol/nm."""
        energy, gradient = self.evaluate(_batch_last(positions))
        return energy, -gradient.permute(2, 0, 1)

    def definition(self, x: Tensor, softening: float | None = None) -> Tensor:
        """The readable definition in plain torch: the sum of the terms, differentiable as often as they are.

        Positions ``(atoms, 3, batch)`` in nm; energies ``(batch,)`` in kJ/mol, infinite or NaN where undefined.
        """
        self._check(x, softening)
        return _total(self.terms, x, softening)

    def _check(self, x: Tensor, softening: float | None) -> None:
        if x.ndim != 3 or x.shape[:2] != (self.n_atoms, 3) or x.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"positions have shape {tuple(x.shape)} and type {x.dtype}. "
                f"Give {self.n_atoms} atoms, 3 coordinates and a batch of any size, in float32 or float64."
            )
        if softening is not None and not LEAST_SOFTENING <= softening < math.inf:
            raise InputError(f"a softening of {softening} kJ/mol was asked for. Give {LEAST_SOFTENING} or more.")

    def _evaluate(self, x: Tensor, softening: float | None, *, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        self._check(x, softening)
        compiled = kernels() if x.device.type == "cpu" and self._program is not None else None
        if compiled is None:
            return _by_torch(self.terms, x, softening, self._rows, with_gradient)
        assert self._program is not None
        threads = torch.get_num_threads()
        energy, gradient = self._program.evaluate(compiled, x, softening, threads, with_gradient=with_gradient)
        if self._rest:
            more, slope = _by_torch(self._rest, x, softening, self._rows, with_gradient)
            energy = energy + more
            if gradient is not None and slope is not None:
                gradient = torch.where(torch.isinf(energy), 0.0, gradient + slope)
        return energy, gradient

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
        terms = [Term.registry[item["kind"]](int(item["n_atoms"]), dtype, **item["parameters"]) for item in ordered]
        return cls(terms)


class _Energy(torch.autograd.Function):
    """Energies whose gradient is computed along with them, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, potential: PotentialEnergy, softening: float | None) -> Tensor:
        energy, gradient = potential.evaluate(x, softening)
        ctx.save_for_backward(energy, gradient)
        return energy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        energy, gradient = ctx.saved_tensors
        return torch.where(torch.isinf(energy), 0.0, cotangent) * gradient, None, None


def _batch_last(positions: Tensor) -> Tensor:
    if positions.ndim != 3:
        raise InputError(f"positions have shape {tuple(positions.shape)}. Give (batch, atoms, 3), in nm.")
    return positions.permute(1, 2, 0).contiguous()


def _by_torch(
    terms: Iterable[nn.Module], x: Tensor, softening: float | None, rows: int, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Energies and gradients of terms by plain torch, chunk by chunk; the largest term has ``rows`` rows."""
    energy, gradient = x.new_empty(x.shape[-1]), torch.empty_like(x) if with_gradient else None
    if x.device.type == "cpu":
        size = max(16, min(1024, CPU_CHUNK // rows))
    else:
        size = max(1, CHUNK_BYTES // (ARRAYS_PER_ROW * x.element_size() * rows))
    for start in range(0, x.shape[-1], size):
        part = slice(start, start + size)
        with torch.set_grad_enabled(with_gradient):
            leaf = x[..., part].contiguous().requires_grad_(with_gradient)
            u = _total(terms, leaf, softening)
            good = torch.isfinite(u)
            if gradient is not None:
                (g,) = torch.autograd.grad(u.sum(), leaf)
                good &= torch.isfinite(g).all(dim=0).all(dim=0)
                gradient[..., part] = torch.where(good, g, 0.0)
        energy[part] = torch.where(good, u.detach(), math.inf)
    return energy, gradient


def _total(terms: Iterable[nn.Module], x: Tensor, softening: float | None) -> Tensor:
    """Sum of the terms, computed in their precision and returned in that of x."""
    # Has a gradient even without any term, and is NaN where any coordinate is not finite.
    total = 0.0 * x.sum(dim=(0, 1))
    for term in terms:
        dtype = next((b.dtype for b in term.buffers() if b.is_floating_point()), x.dtype)
        total = total + term.energy(x.to(dtype), softening).to(x.dtype)  # type: ignore[operator]  # ModuleList
    return total
