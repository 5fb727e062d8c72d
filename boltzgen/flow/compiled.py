"""The flow on the compiled kernels: what is used on a CPU in place of the definitions in plain torch.

Arrays are rows: ``(n, batch)``, so that a coordinate is contiguous. Parameters of a map come as a matrix product and a
bias, whose sum is never stored. Functions are differentiable once.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from boltzgen.native import Activation, CircleMap, Kernels, LineMap, kernels

THREAD_WORK = 100_000
"""Elements for which a further thread is worth its start."""


@dataclass(frozen=True)
class Rows:
    """Parameters of a map: ``product (n, batch)`` plus ``bias (n,)``."""

    product: Tensor
    bias: Tensor


def kernels_for(*tensors: Tensor) -> Kernels | None:
    """The kernels where they can compute on these tensors, else None."""
    dtype = tensors[0].dtype
    if dtype not in (torch.float32, torch.float64):
        return None
    if any(t.device.type != "cpu" or t.dtype != dtype for t in tensors):
        return None
    return kernels()


def perceptron(kernels: Kernels, network: nn.Sequential, z: Tensor, kept: Tensor | None, context: Tensor) -> Rows:
    """What a perceptron of two hidden layers with SiLU says of rows ``kept`` (or all) of ``z`` and of ``context``."""
    first, second, last = (layer for layer in network if isinstance(layer, nn.Linear))
    tensors = (first.weight, first.bias, second.weight, second.bias, last.weight, z, context)
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return Rows(_Perceptron.apply(kernels, keep, kept, *tensors), last.bias)


def sinh_arcsinh_rows(
    kernels: Kernels, z: Tensor, parameters: Rows, kept: Tensor, moved: Tensor, *, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Sinh-arcsinh maps of the rows ``moved`` of ``z (n, batch)``; the image and ln |det|, ``(batch,)``.

    Parameters are a, b, c, e of all moved rows in turn.
    """
    return _Lines.apply(kernels, z, parameters.product, parameters.bias, kept, moved, False, inverse)


def affine_rows(kernels: Kernels, z: Tensor, parameters: Rows, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """a + eᵇ z of all rows of ``z (n, batch)``; the image and ln |det|, ``(batch,)``."""
    every = torch.arange(len(z))
    return _Lines.apply(kernels, z, parameters.product, parameters.bias, every[:0], every, True, inverse)


def circular_splines(
    kernels: Kernels, x: Tensor, parameters: Rows, n_splines: int, *, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Circular splines of ``x (batch,)``, each with its rotation; n_splines (3 K + 1) parameters."""
    return _Circles.apply(kernels, x, parameters.product, parameters.bias, n_splines, inverse)


class _Perceptron(Function):
    """The last layer is left without its bias, which the map adds."""

    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        keep: bool,
        kept: Tensor | None,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        w3: Tensor,
        z: Tensor,
        context: Tensor,
    ) -> Tensor:
        x = torch.cat([z if kept is None else z.index_select(0, kept), context])
        h1, slopes1 = _activate(kernels, torch.mm(w1, x), b1, keep)
        h2, slopes2 = _activate(kernels, torch.mm(w2, h1), b2, keep)
        if keep:
            ctx.kernels, ctx.n_rows, ctx.n_kept = kernels, len(z), len(x) - len(context)
            ctx.save_for_backward(kept, w1, w2, w3, x, h1, slopes1, h2, slopes2)
        return torch.mm(w3, h2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g3: Tensor) -> tuple[Tensor | None, ...]:
        kept, w1, w2, w3, x, h1, slopes1, h2, slopes2 = ctx.saved_tensors
        g3 = g3.contiguous()
        g2, g_b2 = _activate_adjoint(ctx.kernels, torch.mm(w3.t(), g3), slopes2)
        g1, g_b1 = _activate_adjoint(ctx.kernels, torch.mm(w2.t(), g2), slopes1)
        g_weights = torch.mm(g1, x.t()), g_b1, torch.mm(g2, h1.t()), g_b2, torch.mm(g3, h2.t())
        *_, wants_z, wants_context = ctx.needs_input_grad
        g_z = g_context = None
        if wants_z:
            g_z = torch.mm(w1[:, : ctx.n_kept].t(), g1)
            if kept is not None:
                g_z = g1.new_zeros(ctx.n_rows, g1.shape[1]).index_copy_(0, kept, g_z)
        if wants_context:
            g_context = torch.mm(w1[:, ctx.n_kept :].t(), g1)
        return None, None, None, *g_weights, g_z, g_context


def _activate(kernels: Kernels, values: Tensor, bias: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    """SiLU of values plus bias, in their place, and its derivative."""
    bias = bias.contiguous()
    slopes = torch.empty_like(values) if keep else None
    job = Activation(*values.shape, _address(bias), _address(values), _address(slopes), None)
    _run(kernels, "activate", job, values)
    return values, slopes


def _activate_adjoint(kernels: Kernels, adjoint: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """The adjoint before the activation, in the place of that after it, and that of the bias."""
    bias_adjoint = adjoint.new_zeros(len(adjoint))
    job = Activation(*adjoint.shape, None, _address(adjoint), _address(slopes), _address(bias_adjoint))
    _run(kernels, "activate", job, adjoint)
    return adjoint, bias_adjoint


class _Lines(Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        z: Tensor,
        product: Tensor,
        bias: Tensor,
        kept: Tensor,
        moved: Tensor,
        affine: bool,
        inverse: bool,
    ) -> tuple[Tensor, Tensor]:
        inputs = [z.contiguous(), product.contiguous(), bias.contiguous()]
        outputs = [torch.empty_like(inputs[0]), z.new_zeros(z.shape[1])]
        ctx.kernels, ctx.affine, ctx.inverse = kernels, affine, inverse
        ctx.save_for_backward(*inputs, kept, moved)
        _run_lines(kernels, affine, inverse, kept, moved, [*inputs, *outputs, None, None, None, None, None])
        return outputs[0], outputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_image: Tensor, g_log: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, kept, moved = ctx.saved_tensors
        g_results, g_inputs = [g_image.contiguous(), g_log.contiguous()], _adjoints(*inputs)
        arrays = [*inputs, None, None, *g_results, *g_inputs]
        _run_lines(ctx.kernels, ctx.affine, ctx.inverse, kept, moved, arrays)
        return None, *g_inputs, None, None, None, None


def _run_lines(
    kernels: Kernels, affine: bool, inverse: bool, kept: Tensor, moved: Tensor, arrays: list[Tensor | None]
) -> None:
    like = arrays[0]
    assert like is not None
    sizes = len(kept), len(moved), like.shape[1]
    job = LineMap(*sizes, _address(kept), _address(moved), affine, inverse, *map(_address, arrays))
    _run(kernels, "lines", job, like, sums=arrays[-1] is not None)


class _Circles(Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, x: Tensor, product: Tensor, bias: Tensor, n_splines: int, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        inputs = [x.contiguous(), product.contiguous(), bias.contiguous()]
        outputs = [torch.empty_like(inputs[0]), torch.empty_like(inputs[0])]
        ctx.kernels, ctx.n_splines, ctx.inverse = kernels, n_splines, inverse
        ctx.save_for_backward(*inputs)
        _run_circles(kernels, n_splines, inverse, [*inputs, *outputs, None, None, None, None, None])
        return outputs[0], outputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_image: Tensor, g_log: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        g_results, g_inputs = [g_image.contiguous(), g_log.contiguous()], _adjoints(*inputs)
        _run_circles(ctx.kernels, ctx.n_splines, ctx.inverse, [*inputs, None, None, *g_results, *g_inputs])
        return None, *g_inputs, None, None


def _run_circles(kernels: Kernels, n_splines: int, inverse: bool, arrays: list[Tensor | None]) -> None:
    product = arrays[1]
    assert product is not None
    n_bins = (len(product) // n_splines - 1) // 3
    job = CircleMap(n_splines, n_bins, product.shape[1], inverse, *map(_address, arrays))
    _run(kernels, "circles", job, product, sums=arrays[-1] is not None)


def _adjoints(input_: Tensor, product: Tensor, bias: Tensor) -> list[Tensor]:
    return [torch.empty_like(input_), torch.empty_like(product), torch.zeros_like(bias)]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _run(kernels: Kernels, function: str, job: ctypes.Structure, like: Tensor, *, sums: bool = False) -> None:
    """Run a function; on one thread if it sums over the batch."""
    if like.numel():
        threads = 1 if sums else min(torch.get_num_threads(), 1 + like.numel() // THREAD_WORK)
        kernels.run(f"{function}_{'float32' if like.dtype == torch.float32 else 'float64'}", job, threads)
