"""Losses as small functions: what is minimised, and the log weights that fall out on the way."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Lead, Slow
from boltzgen.target import AnyTarget

PAIR_SOFTENING = 200.0
"""kJ/mol above which a non-bonded pair grows only logarithmically during training."""

LOSS_CLIP = 10.0
"""nats above the median where the per-sample loss turns logarithmic: a clash must not drown the batch."""

RATIO_BOUND = 3.0
"""nats from the median beyond which ln p/q of a draw of the slow coordinates pulls no harder."""


@dataclass(frozen=True)
class Scored:
    """Fresh draws, ``stiff`` and ``log_weight = −u + ln r + ln|det| − ln q`` ``(batch,)``, with softened u = U/kT.

    T is the temperature that a draw belongs to, see its heat. r is the share of the chart in the configuration, see
    :mod:`boltzgen.coordinates.atlas`; ``reduced_potential`` is u and ``log_prob_slow`` the part ln q(k, τ) of ln q,
    ``(batch,)``.
    """

    slow: Slow
    stiff: Tensor
    log_weight: Tensor
    reduced_potential: Tensor
    log_prob_slow: Tensor

    def __len__(self) -> int:
        return len(self.log_weight)

    def select(self, index: Tensor) -> Scored:
        """The draws of a boolean mask or of indices."""
        return Scored(self.slow[index], *(column[index] for column in self._columns()))

    def pooled(self, redraws: int) -> Scored:
        """The slow points, each with the mean weight of its ``redraws``; the other columns are of the first of them."""
        if redraws == 1:
            return self
        by_redraw = self.log_weight.unflatten(0, (redraws, -1))
        first = self.select(torch.arange(by_redraw.shape[1], device=by_redraw.device))
        return replace(first, log_weight=torch.logsumexp(by_redraw, dim=0) - math.log(redraws))

    def detach(self) -> Scored:
        """The same numbers without their history."""
        return Scored(self.slow.map(Tensor.detach), *(column.detach() for column in self._columns()))

    def _columns(self) -> tuple[Tensor, ...]:
        return self.stiff, self.log_weight, self.reduced_potential, self.log_prob_slow


class Clock:
    """Seconds that energies with their forces took; on a GPU, until their computation was handed over."""

    def __init__(self) -> None:
        self.energy = 0.0


def score(
    generator: Generator,
    target: AnyTarget,
    n: int,
    rng: torch.Generator,
    uniform: Tensor | None = None,
    heat: Tensor | None = None,
    *,
    through_slow: bool = False,
    clock: Clock | None = None,
    twin: Generator | None = None,
    redraws: int = 1,
) -> Scored:
    """Draw ``n`` latents and weigh them against the softened target: n energies with forces.

    The log weight is differentiable through the stiff coordinates alone, or ``through_slow`` through the torsions
    as well. A label has no such gradient, see :func:`label_surrogate`.

    ``uniform (n,)`` names a slow coordinate to be drawn uniformly in each draw, or −1, and ``heat (n,)`` is ln T/T₀ of
    each, see :meth:`~boltzgen.flow.generator.Generator.sample_slow`. Draws whose energy fails have a weight that is
    not finite, and no gradient through the energy. With a ``twin`` the gradient is the path gradient, see
    :meth:`~boltzgen.flow.generator.Generator.sample_stiff`. For ``redraws`` see :func:`score_stiff`.
    """
    with torch.set_grad_enabled(through_slow and torch.is_grad_enabled()):
        slow, log_prob = generator.sample_slow(n, rng, uniform, heat)
    return score_stiff(generator, target, slow, log_prob, rng, clock, twin, redraws)


def score_led(
    generator: Generator,
    target: AnyTarget,
    lead: Lead,
    heat: Tensor,
    rng: torch.Generator,
    clock: Clock | None = None,
    twin: Generator | None = None,
    redraws: int = 1,
) -> Scored:
    """Draw what is left of latents whose first slow coordinates come from elsewhere, and weigh them as :func:`score`.

    No gradient goes through the slow coordinates.
    """
    with torch.no_grad():
        slow, log_prob = generator.follow(lead, rng, heat)
    return score_stiff(generator, target, slow, log_prob, rng, clock, twin, redraws)


def score_stiff(
    generator: Generator,
    target: AnyTarget,
    slow: Slow,
    log_prob: Tensor,
    rng: torch.Generator,
    clock: Clock | None = None,
    twin: Generator | None = None,
    redraws: int = 1,
) -> Scored:
    """Draw stiff coordinates for each of given slow ones, and weigh them as :func:`score` does.

    ``log_prob (n,)`` is the density that the slow ones were drawn from. With several ``redraws`` of each there are as
    many times n draws, all slow points in order and then all of them again.
    """
    atlas, of_levers = target.coordinates, None
    if redraws > 1:
        of_levers = generator.centre_of_levers(slow)
        every = torch.arange(len(log_prob), device=log_prob.device).repeat(redraws)
        slow, log_prob = slow[every], log_prob[every]
        of_levers = None if of_levers is None else of_levers[every]
    stiff, log_conditional = generator.sample_stiff(slow, rng, twin, of_levers)
    x, log_det = atlas.to_cartesian(slow.label, slow.torsions, stiff)
    started = time.perf_counter()
    u = target.reduced_potential(x, softening=PAIR_SOFTENING) * (-slow.heat).exp()
    if clock:
        clock.energy += time.perf_counter() - started
    log_weight = log_det - u - log_prob - log_conditional
    if atlas.n_charts > 1:
        log_weight = log_weight + atlas.log_shares(x).gather(0, slow.label[None])[0]
    return Scored(slow, stiff, log_weight, u, log_prob)


def reverse_kl(scored: Scored) -> Tensor:
    """KL(q‖p) − ln Z = E_q[−log w], per sample clipped softly above the median; a scalar.

    With slow coordinates fixed this is the KL of the stiff ones given them, averaged over what was drawn.
    L → c(1 + ln(L/c)) beyond c = 10 nats above the median, so the gradient of outliers fades and never jumps.
    """
    loss = -scored.log_weight
    excess = loss - loss.detach().median()
    beyond = LOSS_CLIP * (1.0 + torch.log(excess.clamp(min=LOSS_CLIP) / LOSS_CLIP))
    return torch.where(excess > LOSS_CLIP, beyond, excess).mean()


def label_surrogate(generator: Generator, scored: Scored) -> Tensor:
    """A scalar whose gradient is that of the reverse KL through the distribution of labels.

    A label is drawn and not transformed, so it has the score-function gradient E[(L − L̄) ∇ ln q(k)], with the loss
    L = −log w cut at 10 nats above the median.
    """
    loss = -scored.log_weight.detach()
    loss = (loss - loss.median()).clamp(max=LOSS_CLIP)
    return ((loss - loss.mean()) * generator.log_prob_label(scored.slow)).mean()


def forward_kl(log_q: Tensor) -> Tensor:
    """KL(p‖q) up to a constant, −E_p[ln q], of draws distributed as p with densities ``log_q (n,)``; a scalar."""
    return -log_q.mean()


def log_variance(log_q: Tensor, log_p: Tensor) -> Tensor:
    """½ E[(ln p − ln q − c)²] where c is the median of ln p − ln q, and linear beyond a bound; a scalar.

    Zero at q ∝ p alone, wherever the draws ``(n,)`` come from: each tells the density at its place, where the forward
    KL learns from their number. Source: Richter et al., VarGrad, arXiv:2010.10436; Huber, Ann. Math. Stat. 35, 73.
    """
    ratio = log_p - log_q
    return torch.nn.functional.huber_loss(ratio, ratio.detach().median().expand_as(ratio), delta=RATIO_BOUND)


def broad_choice(n: int, n_broad: int, candidates: Tensor, rng: torch.Generator) -> Tensor:
    """Slow coordinate to draw uniformly, ``(n,)``: one of ``candidates`` in the first ``n_broad`` draws, else −1."""
    choice = torch.full((n,), -1, device=rng.device)
    if len(candidates):
        choice[:n_broad] = candidates[torch.randint(len(candidates), (n_broad,), generator=rng, device=rng.device)]
    return choice
