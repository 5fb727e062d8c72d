"""The gradient of the reverse KL through the draws alone: what it leaves out is zero on average, and noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from one_torsion import OneTorsion

from boltzgen.flow.generator import Generator
from boltzgen.training.objectives import score
from boltzgen.training.optimizer import Optimizer

SINGLE = OneTorsion((3, 0.0, 5.0))


@pytest.fixture(params=["fixed centre", "moving centre"])
def generator(request):
    """Away from the identity, in float64."""
    levers = (1,) if request.param == "moving centre" else ()
    torch.manual_seed(0)
    generator = Generator(replace(SINGLE.architecture, levers=levers, relaxation=4)).double().attach(SINGLE.target)
    for parameter in generator.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return generator


def drawn(generator, twin=None, n=200, seed=0):
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        slow, _ = generator.sample_slow(n, rng, heat=torch.full((n,), 0.3, dtype=torch.float64))
    return slow, *generator.sample_stiff(slow, rng, twin)


def gradient(loss, generator):
    found = torch.autograd.grad(loss, list(generator.stiff_flow.parameters()), materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def test_what_is_left_out_is_the_score(generator):
    """The whole gradient, less that at fixed stiff coordinates, draw for draw; the density is the same."""
    slow, stiff, whole = drawn(generator)
    _, _, along = drawn(generator, generator.twin())
    assert torch.equal(whole, along)
    weights = torch.linspace(-1.0, 1.0, len(whole), dtype=torch.float64)
    fixed = generator.log_prob_stiff(stiff.detach(), slow)
    expected = gradient((weights * (whole - fixed)).sum(), generator)
    assert expected.norm() > 1.0
    assert (gradient((weights * along).sum(), generator) - expected).norm() < 1e-6 * expected.norm()


def test_it_vanishes_in_every_draw_where_the_flow_is_right(generator):
    """Against a density that is the flow's own."""
    right = generator.twin()
    norms = []
    for twin in (None, generator.twin()):
        slow, stiff, log_q = drawn(generator, twin)
        norms.append(gradient((log_q - right.log_prob_stiff(stiff, slow)).sum(), generator).norm())
    assert norms[0] > 10.0
    assert norms[1] < 1e-9 * norms[0]


def test_a_twin_follows_the_weights_as_they_move(generator):
    twin, optimizer = generator.twin(), Optimizer(generator)
    for parameter in generator.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = [parameter.detach().clone() for parameter in generator.parameters()]
    optimizer.step(0.01)
    for mine, its, was in zip(generator.parameters(), twin.parameters(), before, strict=True):
        assert torch.equal(mine, its)
        assert not torch.equal(mine, was)
        assert mine.requires_grad
        assert not its.requires_grad


def test_the_reverse_kl_has_the_same_gradient_on_average_and_less_noise(generator):
    """The mean of the difference over many batches against its own standard error."""
    flow, target = generator.float(), SINGLE.target.to(torch.float32)
    found = {}
    for name, twin in (("whole", None), ("path", flow.twin())):
        rng = torch.Generator().manual_seed(3)
        losses = (-score(flow, target, 256, rng, twin=twin).log_weight.mean() for _ in range(60))
        found[name] = torch.stack([gradient(loss, flow) for loss in losses]).double()
    off = found["whole"] - found["path"]
    z = off.mean(0) / (off.std(0) / len(off) ** 0.5).clamp(min=1e-12)
    assert z[off.std(0) > 0].square().mean() < 1.5
    assert found["path"].std(0).norm() < found["whole"].std(0).norm()
