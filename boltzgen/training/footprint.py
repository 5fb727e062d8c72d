"""What a training will hold in memory, before it begins."""

from __future__ import annotations

import math

import torch

from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.target import AnyTarget
from boltzgen.training.annealing import Cooling, Schedule
from boltzgen.training.gradient import PART_SIZE
from boltzgen.training.method import ANNEALED, Method
from boltzgen.training.objectives import forward_kl, reverse_kl, score
from boltzgen.training.replay import HOT_CAPACITY, REPLAY_CAPACITY

COPIES_OF_WEIGHTS = 6
"""Weights, their average, two moments, and a gradient of each of two parts."""

BACKWARD = 2.0
"""Peak over what the forward pass saves: 1.5 to 2.5 was measured for 22, 42 and 63 atoms on one and two threads."""

_PROBES = 16, 32


def training_memory(
    target: AnyTarget,
    architecture: Architecture,
    device: torch.device,
    threads: int,
    method: Method = ANNEALED,
    draws: float = math.inf,
) -> int:
    """Bytes that training a flow on a target takes on a device, beside the program itself.

    ``draws`` are those of the whole training, on which the size of a batch depends; without a count, very many.
    What a forward pass saves is counted on a few samples of each of two sizes, and extrapolated to a batch. The density
    of challengers needs less, and gives it back before.
    """
    batch = Schedule().batch(1.0, draws)
    if device.type == "cpu":
        batch = min(batch, PART_SIZE * min(threads, -(-batch // PART_SIZE)))
    single = target.to(torch.float32)
    generator = Generator(architecture).attach(single)
    few, more = (_saved_bytes(generator, single, n, method) for n in _PROBES)
    of_one = (more - few) / (_PROBES[1] - _PROBES[0])
    weights = sum(p.numel() * p.element_size() for p in generator.parameters())
    # All that is remembered, and the pools of two temperatures; a label and the weight of a pool are two words each.
    hot = HOT_CAPACITY if method.hot_share else 0.0
    remembered, pooled = 1.0 + Cooling.levels * hot, 1.0 + hot
    words = remembered * (architecture.n_torsions + 5) + pooled * (architecture.n_torsions + 6)
    replay = 4 * REPLAY_CAPACITY * words if method.replay else 0.0
    return int(BACKWARD * of_one * batch + COPIES_OF_WEIGHTS * weights + replay)


def _saved_bytes(generator: Generator, target: AnyTarget, n: int, method: Method = ANNEALED) -> int:
    """Bytes of all tensors that the backward pass of one step on ``n`` samples needs."""
    kept: dict[int, torch.Tensor] = {}

    def keep(saved: torch.Tensor) -> torch.Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved
        return saved

    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        drawn = generator.sample(n, rng)
    atlas = target.coordinates
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        losses = []
        if method.own:
            twin = generator.twin()
            losses.append(reverse_kl(score(generator, target, n, rng, through_slow=method.through_slow, twin=twin)))
        if method.replay:
            losses.append(forward_kl(generator.log_prob_slow(drawn.slow)))
        if method.data:
            losses.append(-generator.log_prob(drawn.slow, drawn.stiff).mean())
        if method.spread:
            latent = generator.sample(n, rng)
            x, _ = atlas.to_cartesian(latent.slow.label, latent.slow.torsions, latent.stiff)
            losses.append(x.sum())
    return sum(saved.untyped_storage().nbytes() for saved in kept.values())
