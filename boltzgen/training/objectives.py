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

    def select(self, index: Tensor) -> Scored:
        """The draws of a boolean mask or of indices."""
        latent = self.latent
        parts = Latent(latent.torsions[index], latent.stiff[index], latent.log_prob[index])
        return Scored(parts, self.log_weight[index])

    def detach(self) -> Scored:
        """The same numbers without their history."""
        latent = self.latent
        parts = Latent(latent.torsions.detach(), latent.stiff.detach(), latent.log_prob.detach())
        return Scored(parts, self.log_weight.detach())


def score(
    generator: Generator,
    target: Target,
    n: int,
    temperature: float,
    rng: torch.Generator,
    uniform: Tensor | None = None,
) -> Scored:
    """Draw ``n`` latents and weigh them against the softened target at a temperature in K: n energies.

    ``uniform (n,)`` names a torsion to be drawn uniformly in each draw, or −1, see :meth:`Generator.sample`. Draws
    whose energy fails get a weight that is not finite, and no gradient.
    """
    latent = generator.sample(n, rng, uniform)
    ratio = temperature / target.temperature
    x, log_det = target.coordinates.to_cartesian(latent.torsions, latent.stiff, ratio)
    u = target.reduced_potential(x, temperature, softening=PAIR_SOFTENING)
    failed = ~torch.isfinite(u.detach())
    if x.requires_grad and bool(failed.any()):
        x.register_hook(lambda gradient: gradient.masked_fill(failed, 0.0))
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


def broad_choice(n: int, n_broad: int, n_torsions: int, rng: torch.Generator) -> Tensor:
    """Torsion to draw uniformly, ``(n,)``: one of ``n_torsions`` at random in the first ``n_broad`` draws, else −1."""
    choice = torch.full((n,), -1, device=rng.device)
    if n_torsions:
        choice[:n_broad] = torch.randint(n_torsions, (n_broad,), generator=rng, device=rng.device)
    return choice
