"""Losses as small functions: what is minimised, and the log weights that fall out on the way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from boltzgen.flow.generator import Generator, Latent
from boltzgen.target import Target

PAIR_SOFTENING = 200.0
"""kJ/mol above which a non-bonded pair grows only logarithmically during training."""

LOSS_CLIP = 10.0
"""nats above the median where the per-sample loss turns logarithmic: a clash must not drown the batch."""


@dataclass(frozen=True)
class Scored:
    """Fresh draws with ``log_weight = −u + ln|det| − ln q``, differentiable, softened; ``(batch,)``."""

    latent: Latent
    log_weight: Tensor


def score(generator: Generator, target: Target, n: int, temperature: float, rng: torch.Generator) -> Scored:
    """Draw ``n`` latents and weigh them against the softened target at a temperature in K: n energies."""
    latent = generator.sample(n, rng)
    ratio = temperature / target.temperature
    x, log_det = target.coordinates.to_cartesian(latent.torsions, latent.stiff, ratio)
    u = target.reduced_potential(x, temperature, softening=PAIR_SOFTENING)
    return Scored(latent, log_det - u - latent.log_prob)


def reverse_kl(scored: Scored) -> Tensor:
    """KL(q‖p) − ln Z = E_q[−log w], per sample clipped softly above the median; a scalar.

    L → c(1 + ln(L/c)) beyond c = 10 nats above the median, so the gradient of outliers fades and never jumps.
    """
    loss = -scored.log_weight
    excess = loss - loss.detach().median()
    beyond = LOSS_CLIP * (1.0 + torch.log(excess.clamp(min=LOSS_CLIP) / LOSS_CLIP))
    return torch.where(excess > LOSS_CLIP, beyond, excess).mean()


def forward_kl(generator: Generator, torsions: Tensor, stiff: Tensor) -> Tensor:
    """KL(p‖q) up to a constant, −E_p[ln q], on latents that are distributed as the target; a scalar."""
    return -generator.log_prob(torsions, stiff).mean()
