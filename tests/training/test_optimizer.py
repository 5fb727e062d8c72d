"""Muon's step: what it makes of a matrix, which weights it moves, and where a gradient leads."""

from __future__ import annotations

import torch

from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.training.optimizer import STEP, Optimizer, _orthogonal


def test_singular_values_become_alike_and_directions_stay():
    rng = torch.Generator().manual_seed(0)
    for shape in ((40, 24), (24, 40), (24, 24)):
        matrix = torch.randn(shape, generator=rng, dtype=torch.float64)
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        made = torch.linalg.svdvals(_orthogonal(matrix))
        assert s.max() / s.min() > 3.0
        assert made.min() > 0.6
        assert made.max() < 1.3
        aligned = (u.T @ _orthogonal(matrix) @ v.T).diagonal()  # the same singular vectors, in the same order
        assert aligned.min() > 0.6
    assert torch.equal(_orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_a_first_step_goes_downhill_by_the_rate():
    """Hidden matrices by the root mean square of a step, all else by the rate of Adam."""
    generator = Generator(Architecture(n_torsions=2, n_stiff=9))
    optimizer = Optimizer(generator)
    before = {name: p.detach().clone() for name, p in generator.named_parameters()}
    rng = torch.Generator().manual_seed(1)
    for parameter in generator.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=rng)
    optimizer.step(0.01)
    for name, p in generator.named_parameters():
        move = p.detach() - before[name]
        assert (move * p.grad).sum() < 0.0
        if p.ndim == 2 and not name.endswith(".4.weight") and min(p.shape) > 1:
            assert abs(move.square().mean().sqrt().item() / (0.01 * STEP) - 1.0) < 0.3  # singular values 0.7 to 1.2
        else:
            assert torch.allclose(move.abs(), torch.full_like(move, 0.01), rtol=1e-3)
