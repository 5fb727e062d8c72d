"""Relaxation: it converges from strained structures, and says so when it does not."""

from __future__ import annotations

import math

import pytest
import torch
from small_energies import Wall

from boltzgen.dynamics.minimise import minimise
from boltzgen.energy import from_openmm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strained_structures_relax(dipeptide, dtype):
    potential = from_openmm(dipeptide.system, dtype)
    x = torch.as_tensor(dipeptide.positions, dtype=dtype)[..., None].repeat(1, 1, 8)
    x += 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    start = potential.evaluate(x).energy
    minimum = minimise(potential, x)
    assert bool(minimum.converged.all())
    again = potential.evaluate(minimum.positions)
    assert torch.equal(minimum.energy, again.energy)
    assert float(again.gradient.square().sum(1).sqrt().max()) <= 10.0
    assert bool((minimum.energy < start).all())
    # OpenMM's minimiser finds wells between −140.1 and −134 kJ/mol from such starts.
    assert float(minimum.energy.max()) < -130.0


def test_a_structure_that_cannot_be_computed_is_reported_and_left_alone():
    x = torch.full((1, 3, 3), 0.2, dtype=torch.float64)
    x[0, 0, 1] = 0.7
    minimum = minimise(Wall([5000.0], edge=0.5), x, tolerance=1.0)
    assert minimum.converged.tolist() == [True, False, True]
    assert math.isinf(minimum.energy[1])
    assert math.isinf(minimum.largest_force[1])
    assert torch.equal(minimum.positions[..., 1], x[..., 1])


def test_too_few_steps_are_no_convergence():
    x = torch.full((1, 3, 1), 0.4, dtype=torch.float64)
    minimum = minimise(Wall([5000.0], edge=0.5), x, tolerance=1.0, max_steps=3)
    assert minimum.n_steps == 3
    assert not bool(minimum.converged.any())
