"""The generator: a density on the latent blocks, slow coordinates first, stiff coordinates given them."""

from __future__ import annotations

import copy
import math
from typing import Self

import torch
from torch import Tensor, nn

from boltzgen.coordinates.charts import random_circles
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.coupling import Perceptron, TorsionFlow, circle_features
from boltzgen.flow.latents import Latent, Lead, Slow
from boltzgen.flow.relaxation import Relaxation
from boltzgen.flow.stiff import CentredStiffFlow, StiffFlow, log_normal
from boltzgen.target import AnyTarget


class Generator(nn.Module):
    """q(k, τ, z) = q(k) q(τ | k) q(z | τ, k): a label, autoregressive circular splines, couplings and an affine head.

    Each factor is conditional on the temperature too, which it is told as heat h = ln T/T₀; at the end z is stretched
    by √(T/T₀), as harmonic coordinates are. Base: uniform circles and standard normal lines. ``log_prob`` is with
    respect to dτ dz.

    Where stiff coordinates are levers, z is counted from where the energy is least given τ, and these are drawn first:
    q(z | τ, k) = q(z_l | τ, k) q(z_r | z_l, τ, k), the latter around where the energy is least given τ and z_l. Such a
    generator needs its target, see :meth:`attach`. No gradient goes through these centres.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        n_label = a.n_charts if a.n_charts > 1 else 0
        n_context = 4 * a.n_torsions + n_label + 1
        self.label_logits = Perceptron(1, a.torsion_hidden, n_label) if n_label else None
        self.torsion_flow = TorsionFlow(a.n_torsions, a.n_bins, a.torsion_hidden, n_label + 1)
        self.stiff_flow = CentredStiffFlow(a, n_context) if a.levers else StiffFlow(a, n_context)

    def slow_parameters(self) -> list[nn.Parameter]:
        """Weights of q(k) and q(τ | k)."""
        of_slow = (self.torsion_flow, *([self.label_logits] if self.label_logits else []))
        return [parameter for module in of_slow for parameter in module.parameters()]

    def attach(self, target: AnyTarget) -> Self:
        """Let stiff coordinates relax on a target, if the architecture asks for that."""
        if isinstance(self.stiff_flow, CentredStiffFlow):
            self.stiff_flow.relaxation = Relaxation(target)
        return self

    def take_energies(self) -> int:
        """Energies, each with its forces, that relaxation took since the last call."""
        return self.stiff_flow.relaxation.take() if self.stiff_flow.relaxation else 0

    def sample(self, n: int, generator: torch.Generator, heat: Tensor | None = None) -> Latent:
        """Draw ``n`` latents, at the target's temperature or at heats ``(n,)``."""
        slow, log_prob = self.sample_slow(n, generator, heat=heat)
        stiff, log_conditional, centre = self._push_stiff(self._sample_lines(slow, generator), slow)
        return Latent(slow, stiff, log_prob + log_conditional, centre)

    def follow(self, lead: Lead, generator: torch.Generator, heat: Tensor) -> tuple[Slow, Tensor]:
        """Draw the other torsions given the first ones, at heats ``(n,)``; ln of the density of all, ``(n,)``."""
        n, given = lead.torsions.shape
        circles = Slow(lead.label, self._sample_circles(n, generator), heat)
        torsions, log_det = self.torsion_flow(circles.torsions, self._condition(circles), given=lead.torsions)
        free = self.architecture.n_torsions - given
        return Slow(lead.label, torsions, heat), lead.log_prob - free * math.log(2.0 * math.pi) - log_det

    def sample_slow(
        self, n: int, generator: torch.Generator, uniform: Tensor | None = None, heat: Tensor | None = None
    ) -> tuple[Slow, Tensor]:
        """Draw labels and torsions with ln q(k, τ), ``(n,)``, at the target's temperature or at heats ``(n,)``.

        ``uniform (n,)`` names for each draw a coordinate that is drawn broadly instead: a torsion, by its place,
        uniformly; the label, by the number of torsions, from √q(k); none by −1. The density is that of the altered
        generator.
        """
        heat = self._no_heat(n) if heat is None else heat
        label, log_label = self._sample_label(heat, generator, uniform)
        circles = Slow(label, self._sample_circles(n, generator), heat)
        torsions, log_det = self.torsion_flow(circles.torsions, self._condition(circles), uniform)
        return Slow(label, torsions, heat), log_label + self._log_base_torsions - log_det

    def sample_base(self, n: int, generator: torch.Generator) -> Slow:
        """Draw labels, and uniform base circles in the place of torsions, for :meth:`push_slow`."""
        label, _ = self._sample_label(self._no_heat(n), generator, None)
        return Slow(label, self._sample_circles(n, generator))

    def push_slow(self, base: Slow) -> tuple[Slow, Tensor]:
        """Map base circles to torsions, labels as they are, with ln q(k, τ), ``(n,)``."""
        torsions, log_det = self.torsion_flow(base.torsions, self._condition(base))
        log_prob = self.log_prob_label(base) + self._log_base_torsions - log_det
        return Slow(base.label, torsions, base.heat), log_prob

    def sample_stiff(
        self,
        slow: Slow,
        generator: torch.Generator,
        twin: Generator | None = None,
        of_levers: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw stiff coordinates ``(n, n_stiff)`` given slow ones, with ln q(z | τ, k), ``(n,)``.

        With a :meth:`twin` the gradient of ln q is that through the draws alone (the path gradient). What is left out,
        ∂ ln q/∂θ at fixed z, is zero on average and never small; the path gradient vanishes with q − p in every draw.
        Source: Roeder, Wu and Duvenaud, arXiv:1703.09194. For ``of_levers`` see :meth:`push_stiff`.
        """
        z, log_prob, centre = self._push_stiff(self._sample_lines(slow, generator), slow, of_levers)
        if twin is not None:
            along_path = twin.log_prob_stiff(z, slow, centre)
            log_prob = log_prob.detach() + (along_path - along_path.detach())
        return z, log_prob

    def twin(self) -> Generator:
        """The same weights in the same memory, which follow these as they move and get no gradient."""
        twin = copy.deepcopy(self).requires_grad_(False)
        for mine, its in zip(self.parameters(), twin.parameters(), strict=True):
            its.data = mine.data
        return twin

    def push_stiff(self, lines: Tensor, slow: Slow, of_levers: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map standard normal lines to stiff coordinates given slow ones, with ln q(z | τ, k).

        Several draws given the same slow coordinates share :meth:`centre_of_levers`, two thirds of their energies.
        """
        z, log_prob, _ = self._push_stiff(lines, slow, of_levers)
        return z, log_prob

    def centre_of_levers(self, slow: Slow) -> Tensor | None:
        """What levers are drawn around given the slow coordinates, ``(n, n_stiff)``; None where there are none."""
        return self.stiff_flow.centre_of_levers(slow)

    def centre(self, slow: Slow, stiff: Tensor) -> Tensor | None:
        """What stiff coordinates are drawn around at any temperature, ``(n, n_stiff)``; None where that is fixed."""
        return self.stiff_flow.centre(stiff, slow)

    def log_prob(self, slow: Slow, stiff: Tensor, centre: Tensor | None = None) -> Tensor:
        """ln q(k, τ, z) of latents, ``(batch,)``; NaN in, −inf out. Their centre is computed unless given."""
        value = self.log_prob_slow(slow) + self.log_prob_stiff(stiff, slow, centre)
        return value.masked_fill(value.isnan(), -math.inf)

    def log_prob_slow(self, slow: Slow) -> Tensor:
        """ln q(k, τ), ``(batch,)``."""
        _, log_det = self.torsion_flow.inverse(slow.torsions, self._condition(slow))
        return self.log_prob_label(slow) + self._log_base_torsions + log_det

    def log_prob_label(self, slow: Slow) -> Tensor:
        """ln q(k), ``(batch,)``."""
        return self._log_labels(slow.heat).gather(1, slow.label[:, None])[:, 0]

    def log_prob_stiff(self, stiff: Tensor, slow: Slow, centre: Tensor | None = None) -> Tensor:
        """ln q(z | τ, k), ``(batch,)``."""
        lines, log_det = self.stiff_flow.pull(stiff, slow, self._context(slow), centre)
        return log_normal(lines) + log_det

    def _push_stiff(
        self, lines: Tensor, slow: Slow, of_levers: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        z, log_det, centre = self.stiff_flow.push(lines, slow, self._context(slow), of_levers)
        return z, log_normal(lines) - log_det, centre

    def _sample_lines(self, slow: Slow, generator: torch.Generator) -> Tensor:
        like, n = slow.torsions, self.architecture.n_stiff
        return torch.randn((len(like), n), generator=generator, dtype=like.dtype, device=like.device)

    def _sample_label(self, heat: Tensor, generator: torch.Generator, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        log_labels = self._log_labels(heat)
        if self.label_logits is None:
            return torch.zeros(len(heat), dtype=torch.int64, device=heat.device), log_labels[:, 0]
        if uniform is not None:
            broad = (uniform == self.architecture.n_torsions)[:, None]
            log_labels = torch.where(broad, torch.log_softmax(0.5 * log_labels, dim=1), log_labels)
        label = torch.multinomial(log_labels.exp(), 1, generator=generator)
        return label[:, 0], log_labels.gather(1, label)[:, 0]

    def _sample_circles(self, n: int, generator: torch.Generator) -> Tensor:
        return random_circles((n, self.architecture.n_torsions), next(self.parameters()), generator)

    def _no_heat(self, n: int) -> Tensor:
        return next(self.parameters()).new_zeros(n)

    def _log_labels(self, heat: Tensor) -> Tensor:
        """ln q(k) at each heat, ``(batch, n_charts)``."""
        if self.label_logits is None:
            return heat.new_zeros(len(heat), 1)
        return torch.log_softmax(self.label_logits(heat[:, None]), dim=1)

    def _condition(self, slow: Slow) -> Tensor:
        """What every factor is conditional on, ``(batch, n)``: the heat, and the label where there are several."""
        n_charts, heat = self.architecture.n_charts, slow.heat[:, None].to(next(self.parameters()).dtype)
        if n_charts == 1:
            return heat
        return torch.cat([nn.functional.one_hot(slow.label, n_charts).to(heat.dtype), heat], dim=1)

    def _context(self, slow: Slow) -> Tensor:
        features = circle_features(slow.torsions.T).flatten(0, 1)
        return torch.cat([features, self._condition(slow).T]).T

    @property
    def _log_base_torsions(self) -> float:
        return -self.architecture.n_torsions * math.log(2.0 * math.pi)
