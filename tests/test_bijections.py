"""Every bijection: its log-determinant against the autograd Jacobian, and its inverse, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from boltzgen.coordinates import charts
from boltzgen.coordinates.internal import Internal, InternalToCartesian, log_volume
from boltzgen.coordinates.zmatrix import build_zmatrix
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.coupling import AffineHead, StiffCoupling, TorsionFlow
from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow
from boltzgen.flow.spline import circular_spline, rotate, sinh_arcsinh

TOLERANCE = 1e-9
"""Float64 rounding, with a margin for the condition of the Jacobians (below 1e4)."""


def column(values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def random_like(module, scale=0.4):
    """Give a module that starts as the identity random weights, by default large enough that it is far from it."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module.double()


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def circles(*shape, seed=0):
    return math.pi * (
        2.0 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1.0
    )


BOND, ANGLE, TORSION = column([0.15, 0.1, 0.12]), column([1.9, 2.4, 1.0]), column([3.0, -2.0, 0.1])
STRAIGHT = math.pi - column([0.1, 0.2, 0.05])
WIDTH = column([1.05, 1.05, 1.5])
SPLINE = 2.0 * randn(4, 3 * 16, seed=1)
ARCSINH = randn(4, 4, seed=2)
CONTEXT = randn(1, 8, seed=3)
MASK = torch.tensor([True, False, True, False, False])


def as_batch(function):
    """A function of (n,) → ((n,), scalar) from one of (1, n) → ((1, n), (1,))."""

    def wrapped(x):
        y, log_det = function(x[None])
        return y[0], log_det[0]

    return wrapped


def as_rows(function):
    """The same from one of (n, 1) → ((n, 1), elementwise log-slopes)."""

    def wrapped(x):
        y, log_slope = function(x[:, None])
        return y[:, 0], log_slope.sum()

    return wrapped


def elementwise(function):
    def wrapped(x):
        y, log_slope = function(x)
        return y, log_slope.sum()

    return wrapped


torsion_flow = random_like(TorsionFlow(3, 16, 8, CONTEXT.shape[1]))
coupling = random_like(StiffCoupling(MASK, 8, 8))
head = random_like(AffineHead(5, 8, 8))

BIJECTIONS = {
    "bond": (
        as_rows(lambda d: charts.bond(d, BOND)),
        as_rows(lambda r: (charts.bond_inverse(r, BOND), torch.zeros_like(r))),
        0.02 * randn(3),
    ),
    "angle": (
        as_rows(lambda d: charts.angle(d, ANGLE)),
        as_rows(lambda a: (charts.angle_inverse(a, ANGLE), torch.zeros_like(a))),
        0.5 * randn(3),
    ),
    "straight_angle": (
        as_rows(lambda d: charts.straight_angle(d, STRAIGHT)),
        as_rows(lambda a: (charts.straight_angle_inverse(a, STRAIGHT), torch.zeros_like(a))),
        0.1 * randn(3),
    ),
    "torsion": (
        as_rows(lambda d: charts.torsion(d, TORSION, WIDTH)),
        as_rows(lambda t: (charts.torsion_inverse(t, TORSION, WIDTH), torch.zeros_like(t))),
        0.7 * randn(3),
    ),
    "circular_spline": (
        elementwise(lambda x: circular_spline(x, SPLINE)),
        elementwise(lambda y: circular_spline(y, SPLINE, inverse=True)),
        circles(4),
    ),
    "rotate": (
        lambda x: (rotate(x, torch.tensor(2.5)), torch.zeros(())),
        lambda y: (rotate(y, torch.tensor(-2.5)), torch.zeros(())),
        circles(4),
    ),
    "sinh_arcsinh": (
        elementwise(lambda x: sinh_arcsinh(x, ARCSINH)),
        elementwise(lambda y: sinh_arcsinh(y, ARCSINH, inverse=True)),
        2.0 * randn(4),
    ),
    "torsion_flow": (
        as_batch(lambda x: torsion_flow(x, CONTEXT)),
        as_batch(lambda x: torsion_flow.inverse(x, CONTEXT)),
        circles(3),
    ),
    "coupling": (
        as_batch(lambda z: coupling(z, CONTEXT)),
        as_batch(lambda z: coupling(z, CONTEXT, inverse=True)),
        randn(5),
    ),
    "affine_head": (
        as_batch(lambda z: head(z, CONTEXT)),
        as_batch(lambda z: head(z, CONTEXT, inverse=True)),
        randn(5),
    ),
}


@pytest.mark.parametrize("name", BIJECTIONS)
def test_log_det_and_inverse(name):
    forward, inverse, x = BIJECTIONS[name]
    y, log_det = forward(x)
    jacobian = torch.autograd.functional.jacobian(lambda v: forward(v)[0], x)
    assert log_det.item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=TOLERANCE)
    back, log_det_back = inverse(y)
    assert torch.allclose(back, x, atol=TOLERANCE, rtol=0.0)
    if name not in ("bond", "angle", "straight_angle", "torsion"):  # charts give no log-determinant on the way back
        assert log_det_back.item() == pytest.approx(-log_det.item(), abs=TOLERANCE)


@pytest.mark.parametrize("heat", [0.0, 0.7])
@pytest.mark.parametrize("n_charts", [1, 3])
def test_generator_log_prob_is_the_density_of_its_samples(n_charts, heat):
    sizes = {"n_bins": 6, "torsion_hidden": 8, "stiff_hidden": 8}
    flow = random_like(Generator(Architecture(n_torsions=2, n_stiff=4, n_charts=n_charts, **sizes)))
    base_circles, base_lines = circles(1, 2), randn(1, 4)
    label = torch.tensor([n_charts - 1])
    heat = torch.tensor([heat], dtype=torch.float64)

    def flat(v):
        slow, _ = flow.push_slow(Slow(label, v[None, :2], heat))
        stiff, _ = flow.push_stiff(v[None, 2:], slow)
        torsions = slow.torsions
        return torch.cat([torsions, stiff], dim=1)[0]

    jacobian = torch.autograd.functional.jacobian(flat, torch.cat([base_circles, base_lines], dim=1)[0])
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(base_lines).sum() - 2.0 * math.log(2.0 * math.pi)
    drawn = flow.sample(2000, torch.Generator().manual_seed(0), heat.expand(2000))
    share = (drawn.slow.label == label).double().mean()
    expected = (normal - torch.linalg.slogdet(jacobian)[1]).item()
    torsions, stiff = flat(torch.cat([base_circles, base_lines], dim=1)[0])[None].split([2, 4], dim=1)
    value = flow.log_prob(Slow(label, torsions, heat), stiff).item()
    assert math.exp(value - expected) == pytest.approx(share.item(), abs=4.0 * math.sqrt(0.25 / 2000) + TOLERANCE)
    error = (flow.log_prob(drawn.slow, drawn.stiff) - drawn.log_prob).abs()
    assert error.max() < 100.0 * TOLERANCE  # the worst conditioned of 2,000


def test_heat_stretches_stiff_coordinates_as_it_does_harmonic_ones():
    """Untrained, the flow at T is exact for harmonic coordinates: variances T/T₀."""
    flow = Generator(Architecture(n_torsions=1, n_stiff=3)).double()
    heat = torch.full((20_000,), math.log(2.0), dtype=torch.float64)
    drawn = flow.sample(20_000, torch.Generator().manual_seed(0), heat)
    assert torch.allclose(drawn.stiff.var(0), torch.full((3,), 2.0).double(), atol=0.08)  # four standard errors
    normal = torch.distributions.Normal(0.0, math.sqrt(2.0)).log_prob(drawn.stiff).sum(1)
    assert torch.allclose(drawn.log_prob, normal - math.log(2.0 * math.pi), atol=TOLERANCE)


def test_volume_element_of_internal_coordinates():
    """In the fixed frame the second atom moves on z and the third in xz; the rest of r₁² r₂² sin θ₂ is rigid motion."""
    zmatrix = build_zmatrix((6, 6, 8, 1, 1), ((0, 1), (1, 2), (0, 3), (0, 4)))
    geometry = InternalToCartesian(zmatrix)
    r, theta, phi = torch.tensor([0.15, 0.14, 0.11, 0.10]), torch.tensor([1.9, 1.8, 2.0]), torch.tensor([1.0, 2.1])
    values = torch.cat([r, theta, phi]).double()

    def internal(v):
        return Internal(v[:4, None], v[4:7, None], v[7:, None])

    def free(v):
        x = geometry.positions(internal(v))[..., 0]
        second, third = x[zmatrix.atom[1]], x[zmatrix.atom[2]]
        return torch.cat([second[2:], third[[0, 2]], x[zmatrix.atom[3:]].reshape(-1)])

    jacobian = torch.autograd.functional.jacobian(free, values)
    rigid = 2.0 * math.log(0.15) + math.log(0.14) + math.log(math.sin(1.9))
    expected = torch.linalg.slogdet(jacobian)[1].item() + rigid
    assert log_volume(internal(values)).item() == pytest.approx(expected, abs=1e-6)  # inputs are float32 literals


def test_molecular_coordinates(dipeptide_target):
    """Volume element apart (tested above), the map from latent blocks to internal coordinates."""
    [coordinates] = dipeptide_target.coordinates.charts
    n_t, n_s = coordinates.n_torsions, coordinates.n_stiff
    latent = torch.cat([circles(n_t), randn(n_s)])

    def to_internal(v):
        x, _ = coordinates.to_cartesian(v[None, :n_t], v[None, n_t:])
        values = coordinates.geometry.internal(x)
        return torch.cat([values.bonds, values.angles, values.torsions])[:, 0]

    x, log_det = coordinates.to_cartesian(latent[None, :n_t], latent[None, n_t:])
    jacobian = torch.autograd.functional.jacobian(to_internal, latent)
    n_rotors = len(coordinates.zmatrix.rotors)
    # Each rotor has its window's 1/3 in the Jacobian and three images, which log_det counts as one circle.
    expected = torch.linalg.slogdet(jacobian)[1] + log_volume(coordinates.geometry.internal(x))[0]
    expected = expected + n_rotors * math.log(3.0)
    assert log_det.item() == pytest.approx(expected.item(), abs=1e-7)
    torsions, stiff, log_det_back = coordinates.from_cartesian(x)
    assert torch.allclose(torch.cat([torsions, stiff], dim=1)[0], latent, atol=1e-9, rtol=0.0)
    assert log_det_back.item() == pytest.approx(log_det.item(), abs=1e-9)


def test_zero_parameters_are_the_identity():
    x = circles(4)
    for y, log_slope in (circular_spline(x, torch.zeros(4, 48)), sinh_arcsinh(x, torch.zeros(4, 4))):
        assert torch.allclose(y, x, atol=1e-6)
        assert log_slope.abs().max() < 1e-6


def test_density_has_no_jump_at_the_cut_of_the_circle():
    architecture = Architecture(n_torsions=2, n_stiff=3, n_bins=6, torsion_hidden=8, stiff_hidden=8)
    flow = random_like(Generator(architecture), scale=0.2)
    eps = 1e-9
    stiff = randn(1, 3).expand(2, -1)
    for k in range(2):
        torsions = circles(1, 2).repeat(2, 1)
        torsions[:, k] = torch.tensor([-math.pi + eps, math.pi - eps])
        below, above = flow.log_prob(Slow(torch.zeros(2, dtype=torch.int64), torsions), stiff)
        assert abs(below - above) < 1e-6  # the points are 2e-9 apart, and no slope exceeds 100
