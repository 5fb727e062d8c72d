"""The flow on the compiled kernels against its definition in plain torch, for every instruction set."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from boltzgen.flow import compiled
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.compiled import Rows
from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow
from boltzgen.flow.spline import circular_splines, sinh_arcsinh
from boltzgen.native import load

pytestmark = pytest.mark.skipif(load() is None, reason="built without compiled kernels")

INSTRUCTION_SETS = [name for name in ("avx512", "avx2", "baseline") if load(name)]
N_BINS, N_SPLINES = 16, 2

# Largest deviation from the definition in float64, relative to 1 + |value|. Rounding of one part in 2^53 or 2^24, some
# ten times in a line. A spline with widths of down to 1e-2 and slopes of up to 30 magnifies that of its input and of
# its knots by their ratio, and gradients by its square; the definition in float32 deviates as much.
LINE_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
SPLINE_TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-3}


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _affine(x, parameters, *, inverse):
    a, b = parameters.unbind(-1)
    return ((x - a) * (-b).exp(), -b) if inverse else (a + b.exp() * x, b)


def _line_case(function, dtype, *, n_kept=2, n_moved=5, batch=67, scale=1.0, strided=False):
    """Kernel and definition as functions of the same leaves, and these: z, product, bias."""
    affine = function is _affine
    kept, moved = (
        torch.arange(n_kept) * 2,
        torch.tensor([k for k in range(n_kept + n_moved) if k % 2 or k >= 2 * n_kept]),
    )
    each = 2 if affine else 4
    z, product = 2.0 * _randn(n_kept + n_moved, batch), scale * _randn(each * n_moved, batch, seed=1)
    leaves = [t.to(dtype) for t in (z, product, 0.3 * _randn(each * n_moved, seed=2))]
    if strided:
        leaves = [t.T.contiguous().T for t in leaves[:2]] + leaves[2:]

    def kernel(kernels, z, product, bias, inverse):
        if affine:
            image, log_det = compiled.affine_rows(kernels, z[moved], Rows(product, bias), inverse=inverse)
            return z.clone().index_copy(0, moved, image), log_det
        return compiled.sinh_arcsinh_rows(kernels, z, Rows(product, bias), kept, moved, inverse=inverse)

    def definition(z, product, bias, inverse):
        parameters = (product + bias[:, None]).view(each, n_moved, batch).movedim(0, -1)
        image, log_slope = function(z[moved], parameters, inverse=inverse)
        return z.clone().index_copy(0, moved, image), log_slope.sum(0)

    return kernel, definition, leaves


def _spline_case(dtype, *, n_bins=N_BINS, batch=67, scale=1.0, strided=False):
    n = N_SPLINES * (3 * n_bins + 1)
    x = math.pi * (2.0 * torch.rand(batch, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1.0)
    leaves = [t.to(dtype) for t in (x, scale * _randn(n, batch, seed=1), 0.3 * _randn(n, seed=2))]
    if strided:
        leaves = [leaves[0][:, None].expand(-1, 2).contiguous()[:, 0], leaves[1].T.contiguous().T, leaves[2]]

    def kernel(kernels, x, product, bias, inverse):
        return compiled.circular_splines(kernels, x, Rows(product, bias), N_SPLINES, inverse=inverse)

    def definition(x, product, bias, inverse):
        return circular_splines(x, (product + bias[:, None]).T, N_SPLINES, inverse=inverse)

    return kernel, definition, leaves


def _with_gradients(function, leaves):
    """Image, ln |det| and the gradients of a fixed combination of both by every leaf."""
    leaves = [t.detach().requires_grad_() for t in leaves]
    results = function(*leaves)
    weights = [_randn(*r.shape, seed=7 + k).to(r.dtype) for k, r in enumerate(results)]
    total = sum((w * r).sum() for w, r in zip(weights, results, strict=True))
    return [t.detach() for t in results] + list(torch.autograd.grad(total, leaves))


def _assert_agree(case, name, inverse, tolerance):
    kernel, definition, leaves = case
    found = _with_gradients(lambda *t: kernel(load(name), *t, inverse), leaves)
    expected = _with_gradients(lambda *t: definition(*t, inverse), [t.double() for t in leaves])
    for value, exact in zip(found, expected, strict=True):
        assert value.shape == exact.shape
        assert ((value.double() - exact).abs() / (1.0 + exact.abs())).max() < tolerance


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("function", [sinh_arcsinh, _affine])
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_lines_and_their_gradients(name, function, inverse, dtype):
    _assert_agree(_line_case(function, dtype), name, inverse, LINE_TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("n_bins", [1, 5, N_BINS])
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_splines_and_their_gradients(name, n_bins, inverse, dtype):
    _assert_agree(_spline_case(dtype, n_bins=n_bins), name, inverse, SPLINE_TOLERANCE[dtype])


@pytest.mark.parametrize("batch", [1, 4, 8, 15, 16, 17, 33])
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_a_batch_of_any_size(name, batch):
    """The gradient of the bias is a sum over the batch, in which no lane beyond its end may appear."""
    _assert_agree(_line_case(sinh_arcsinh, torch.float64, batch=batch), name, False, 1e-12)
    _assert_agree(_spline_case(torch.float64, batch=batch), name, True, 1e-10)


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_an_empty_batch(name):
    for kernel, _, leaves in (_line_case(sinh_arcsinh, torch.float64, batch=0), _spline_case(torch.float64, batch=0)):
        image, log_det, *gradients = _with_gradients(lambda *t, k=kernel: k(load(name), *t, False), leaves)
        assert not image.numel()
        assert not log_det.numel()
        assert not gradients[2].any()


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_strided_inputs(name):
    _assert_agree(_line_case(sinh_arcsinh, torch.float64, strided=True), name, False, 1e-12)
    _assert_agree(_spline_case(torch.float64, strided=True), name, False, 1e-10)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_extreme_parameters(name, inverse):
    """Bounds saturate and bins shrink to their minimum; the values are ill-conditioned there, not wrong.

    Bins of 6e-3 beside ones of 6 magnify rounding by 1e3 for each of two splines, the inverse of a line that of tails.
    """
    tolerance = 1e-8
    for case in (_line_case(sinh_arcsinh, torch.float64, scale=15.0), _spline_case(torch.float64, scale=15.0)):
        kernel, definition, leaves = case
        found, expected = kernel(load(name), *leaves, inverse), definition(*leaves, inverse)
        for value, exact in zip(found, expected, strict=True):
            assert ((value - exact).abs() / (1.0 + exact.abs())).max() < tolerance


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_points_at_the_cut_and_at_the_knots(name, inverse):
    """Zero parameters put the knots at multiples of 2π/K, where the map is the identity from either side."""
    knots = math.pi * torch.linspace(-1.0, 1.0, N_BINS + 1, dtype=torch.float64)
    x = torch.cat([knots, knots.nextafter(torch.tensor(9.0).double()), knots.nextafter(torch.tensor(-9.0).double())])
    n = N_SPLINES * (3 * N_BINS + 1)
    product, bias = torch.zeros(n, len(x), dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    y, log_slope = compiled.circular_splines(load(name), x, Rows(product, bias), N_SPLINES, inverse=inverse)
    turns = (y - x) / (2.0 * math.pi)
    assert (turns - turns.round()).abs().max() < 1e-14
    assert ((y >= -math.pi) & (y <= math.pi)).all()
    assert log_slope.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_a_sample_that_is_not_finite_spoils_no_other(name, dtype):
    for kernel, _, leaves in (_line_case(sinh_arcsinh, dtype, batch=40), _spline_case(dtype, batch=40)):
        good = _with_gradients(lambda *t, k=kernel: k(load(name), *t, False), leaves)[:4]
        spoilt = [t.clone() for t in leaves]
        for column, value in ((3, math.nan), (17, math.inf), (39, -math.inf)):
            spoilt[0][..., column] = value
        spoilt[1][:, 20] = math.nan
        bad = _with_gradients(lambda *t, k=kernel: k(load(name), *t, False), spoilt)[:4]
        kept = torch.tensor([c for c in range(40) if c not in (3, 17, 20, 39)])
        for one, other in zip(good, bad, strict=True):
            assert torch.equal(one[..., kept], other[..., kept])
        assert not torch.isfinite(bad[1][[3, 17, 20, 39]]).any()


@pytest.mark.parametrize("inverse", [False, True])
def test_gradcheck(inverse):
    """Gradients against finite differences, whatever the definition says."""
    for case in (_line_case(sinh_arcsinh, torch.float64, batch=3), _spline_case(torch.float64, n_bins=4, batch=3)):
        kernel, _, leaves = case
        leaves = [t.requires_grad_() for t in leaves]
        assert torch.autograd.gradcheck(lambda *t, k=kernel: k(load(), *t, inverse), leaves)


def _random_generator(**sizes: int) -> Generator:
    flow = Generator(Architecture(n_torsions=3, n_bins=6, torsion_hidden=8, stiff_hidden=8, **sizes)).double()
    for k, parameter in enumerate(flow.parameters()):
        parameter.data = 0.3 * _randn(*parameter.shape, seed=k)
    return flow


def _losses(flow: Generator, n: int) -> list[torch.Tensor]:
    """Draws, their density, and the gradients that training takes, by every weight."""
    drawn = flow.sample(n, torch.Generator().manual_seed(1))
    slow, stiff = Slow(drawn.slow.label, drawn.slow.torsions.detach()), drawn.stiff.detach()
    loss = (drawn.stiff.cos().sum() + drawn.log_prob.sum() + flow.log_prob(slow, stiff).sum()) / max(n, 1)
    gradients = torch.autograd.grad(loss, list(flow.parameters()), materialize_grads=True)
    return [drawn.slow.torsions.detach(), stiff, drawn.log_prob.detach(), *gradients]


@pytest.mark.parametrize("sizes", [{"n_stiff": 7}, {"n_stiff": 1}, {"n_stiff": 7, "n_charts": 3}])
def test_generator_with_and_without_kernels(sizes, monkeypatch):
    flow = _random_generator(**sizes)
    fast = _losses(flow, 37)
    monkeypatch.setattr(compiled, "kernels", lambda: None)
    plain = _losses(flow, 37)
    for one, other in zip(fast, plain, strict=True):
        assert (one - other).abs().max() < 1e-9 * (1.0 + other.abs().max())  # float64 through some twenty layers


def test_generator_without_torsions(monkeypatch):
    flow = Generator(Architecture(n_torsions=0, n_stiff=5, stiff_hidden=8)).double()
    fast = _losses(flow, 9)
    monkeypatch.setattr(compiled, "kernels", lambda: None)
    for one, other in zip(fast, _losses(flow, 9), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


def test_parts_on_threads_do_not_disturb_each_other():
    flow = _random_generator(n_stiff=7)
    alone = _losses(flow, 200)
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(lambda _: _losses(flow, 200), range(16)):
            assert all(torch.equal(one, other) for one, other in zip(alone, results, strict=True))


def test_a_large_batch_on_threads_of_the_kernels(monkeypatch):
    kernel, _, leaves = _line_case(sinh_arcsinh, torch.float64, n_moved=40, batch=6001)
    one = kernel(load(), *leaves, False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for value, other in zip(one, kernel(load(), *leaves, False), strict=True):
        assert torch.equal(value, other)


def test_mixed_precision_is_left_to_torch(monkeypatch):
    """Torch promotes it; the kernels would read one type as the other."""
    flow = _random_generator(n_stiff=3)
    slow = Slow(torch.zeros(2, dtype=torch.int64), torch.ones(2, 3))
    value = flow.log_prob(slow, torch.ones(2, 3))
    monkeypatch.setattr(compiled, "kernels", lambda: None)
    assert torch.allclose(value, flow.log_prob(slow, torch.ones(2, 3)), rtol=1e-9)
