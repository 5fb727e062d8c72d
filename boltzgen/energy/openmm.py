"""Forces that cannot be converted, evaluated by OpenMM itself: exact, and slow."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor

from boltzgen.energy.openmm_worker import SMALL
from boltzgen.energy.terms import Term
from boltzgen.energy.workers import OpenMMWorkers
from boltzgen.errors import InputError, UnsupportedError


class OpenMMEnergy(Term):
    """The energy of an OpenMM System as OpenMM computes it, on worker processes, sample by sample.

    Parameter: ``system_xml``, the System as OpenMM serialises it. Nothing is started before the first energy.
    Differentiable once, with OpenMM's forces. Coordinates travel in float64. Platforms: CUDA in double precision if
    there is such a device; otherwise Reference, also in double precision, below 100 atoms, and CPU, in single
    precision, above. A sample on which OpenMM fails has energy +inf and gradient zero. Nothing is softened.

    Raises
    ------
    InputError
        If the text is no System of ``n_atoms`` atoms.
    UnsupportedError
        If it has a PythonForce: that is a program, and a stored System should not be one.
    """

    def __init__(self, n_atoms: int, dtype: torch.dtype, *, system_xml: str) -> None:
        super().__init__(n_atoms, dtype)
        _check(system_xml, n_atoms)
        self._system_xml = system_xml
        self.workers = OpenMMWorkers(system_xml)

    @property
    def is_double(self) -> bool:
        """Whether OpenMM computes in double precision without a CUDA device."""
        return self.n_atoms < SMALL

    def arrays(self) -> dict[str, Any]:
        """Parameters as given to the constructor."""
        return {"system_xml": self._system_xml}

    def energy(self, x: Tensor, softening: float | None = None) -> Tensor:
        """Energy in kJ/mol, see :meth:`Term.energy`.

        Raises
        ------
        EnvironmentProblem
            If OpenMM cannot evaluate this System here at all, or its processes die again and again.
        """
        return _Energy.apply(x, self.workers)


class _Energy(torch.autograd.Function):
    """Energies whose gradient comes along with them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, workers: OpenMMWorkers) -> Tensor:
        frames = x.detach().to("cpu", torch.float64).permute(2, 0, 1).contiguous().numpy()
        energy, gradient = workers.evaluate(frames, with_gradient=ctx.needs_input_grad[0])
        ctx.save_for_backward(torch.as_tensor(gradient).permute(1, 2, 0).to(x))
        return torch.as_tensor(energy).to(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return cotangent * gradient, None


def has_python_force(root: ElementTree.Element) -> bool:
    """Whether a serialised System has a PythonForce, which OpenMM would run: to be asked before OpenMM reads it."""
    return any(element.get("type") == "PythonForce" for element in root.iter())


def _check(system_xml: str, n_atoms: int) -> None:
    try:
        root = ElementTree.fromstring(system_xml)
    except ElementTree.ParseError as error:
        raise InputError(f"the text of the OpenMM System is damaged: {error}.") from error
    if root.get("type") != "System" or len(root.findall("Particles/Particle")) != n_atoms:
        raise InputError(f"the text of the OpenMM System is not of one with {n_atoms} atoms.")
    if has_python_force(root):
        raise UnsupportedError("the System has a PythonForce, a program, which is never run from a stored System.")
