"""The loss that spreads a reaction coordinate: least for an even density, and followed by training."""

from __future__ import annotations

import math

import pytest
import torch
from one_torsion import OneTorsion

from boltzgen.flow.generator import Generator
from boltzgen.training.method import Method
from boltzgen.training.reaction import ReactionCoordinate, spread_loss

PHI = ReactionCoordinate((4, 6, 8, 14), -math.pi, math.pi)
DISTANCE = ReactionCoordinate((0, 5), 0.3, 0.9)


def even(coordinate, n=3600):
    return coordinate.low + (coordinate.high - coordinate.low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n


@pytest.mark.parametrize("coordinate", [PHI, DISTANCE, ReactionCoordinate((0, 1, 2, 3), 0.0, 1.0)])
def test_an_even_density_is_the_minimum_and_its_value_is_zero(coordinate):
    values = even(coordinate).requires_grad_()
    loss = spread_loss(values, coordinate)
    assert abs(loss.item()) < 1e-6  # of 100 values to a bin; at the ends of a range as well
    (gradient,) = torch.autograd.grad(loss, values)
    span = coordinate.high - coordinate.low
    assert gradient.abs().sum().item() * span < 0.05  # it would be of order one away from the minimum
    for uneven in (
        coordinate.low + 0.5 * (even(coordinate) - coordinate.low),
        0.99 * even(coordinate).mean() + 0.0 * values,
    ):
        assert spread_loss(uneven.detach(), coordinate).item() > 0.5


def test_half_a_range_costs_ln_2():
    """KL of the uniform density on half from that on all, up to the width of the kernel."""
    values = DISTANCE.low + 0.5 * (even(DISTANCE) - DISTANCE.low)
    assert spread_loss(values, DISTANCE).item() == pytest.approx(math.log(2.0), abs=0.06)


def test_what_lies_far_outside_does_not_count_and_nothing_is_nan():
    values = torch.cat([even(DISTANCE), torch.full((1000,), 5.0, dtype=torch.float64)]).requires_grad_()
    loss = spread_loss(values, DISTANCE)
    (gradient,) = torch.autograd.grad(loss, values)
    assert loss.item() < 1e-6
    assert torch.isfinite(gradient).all()
    assert gradient[-1000:].abs().max() == 0.0


def test_values_are_those_of_the_molecule(dipeptide_target):
    atlas = dipeptide_target.coordinates
    torsions = torch.tensor([[2.0, -1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    x, _ = atlas.to_cartesian(
        torch.zeros(1, dtype=torch.int64), torsions, torch.zeros(1, atlas.n_stiff, dtype=torch.float64)
    )
    atoms = dipeptide_target.molecule.torsions["phi:ALA2"]
    slow = {
        tuple(int(z[row]) for z in (atlas.zmatrix.atom, atlas.zmatrix.bond, atlas.zmatrix.angle, atlas.zmatrix.torsion))
        for row in atlas.zmatrix.slow
    }
    assert {atoms, atoms[::-1]} & slow
    angle = ReactionCoordinate(atoms, -math.pi, math.pi).values(x).item()
    assert min(abs(angle - t) for t in torsions[0].tolist()) < 1e-9
    shifted = ReactionCoordinate(atoms, 0.0, 2.0 * math.pi).values(x).item()
    assert 0.0 <= shifted < 2.0 * math.pi
    assert math.cos(shifted - angle) == pytest.approx(1.0)
    length = ReactionCoordinate((0, 5), 0.0, 1.0).values(x).item()
    assert length == pytest.approx((x[0] - x[5]).norm().item())


def test_training_with_this_loss_alone_spreads_the_torsion():
    """From a flow of which nine tenths lie in a third of the circle."""
    chain = OneTorsion((3, 0.0, 5.0))
    coordinate = ReactionCoordinate((0, 1, 2, 3), -math.pi, math.pi)
    start = Generator(chain.architecture)
    bias = start.torsion_flow.conditioners[0][-1].bias
    with torch.no_grad():
        bias[16:32] = torch.linspace(-3.0, 3.0, 16)  # heights of the first spline
    # ``own`` is there for the budget; its weight is too small to matter
    method = Method(own=1e-6, spread=1.0)
    trainer = chain.train(method, start=start, coordinate=coordinate, max_energies=40_000)
    course = [row["loss_spread"] for row in trainer.history]
    assert course[0] > 0.5
    # 36 bins and 1,024 values: an even density has about 35 / (2 · 1,024) by chance, less for the kernel's width
    assert course[-1] < 0.03
