"""The generator: a density on the latent blocks, slow coordinates first, stiff coordinates given them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from boltzgen.coordinates.charts import random_circles
from boltzgen.coordinates.protocol import Coordinates
from boltzgen.flow.coupling import AffineHead, Perceptron, StiffCoupling, TorsionFlow, circle_features
from boltzgen.flow.relaxation import Relaxation
from boltzgen.target import AnyTarget

LEVER_COUPLINGS = 4

BOUND = 3.0
"""Whitened units beyond which conditioners tell stiff coordinates less and less apart."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of a generator."""

    n_torsions: int
    n_stiff: int
    n_charts: int = 1
    n_bins: int = 16
    torsion_hidden: int = 64
    stiff_hidden: int = 128
    n_couplings: int = 5
    levers: tuple[int, ...] = ()
    """Stiff coordinates that are drawn before the others; if there are any, all are centred by relaxation."""
    relaxation: int = 12
    """Energies that relax all stiff coordinates; half of them relax the others, once the levers are drawn."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "levers", tuple(int(lever) for lever in self.levers))

    @property
    def energies_per_draw(self) -> int:
        """Energies behind a draw: its own, and those of relaxation."""
        return 1 + (self.relaxation + self.relaxation // 2 if self.levers else 0)

    @classmethod
    def of(cls, coordinates: Coordinates, *, relaxes: bool = True, **sizes: int) -> Architecture:
        """The architecture for the coordinates of a system, without relaxation if so asked.

        ``sizes`` replace the defaults.
        """
        levers = coordinates.levers if relaxes else ()
        return cls(coordinates.n_torsions, coordinates.n_stiff, coordinates.n_charts, levers=levers, **sizes)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, to be stored."""
        return asdict(self) | {"levers": np.asarray(self.levers, dtype=np.int64)}


@dataclass(frozen=True)
class Slow:
    """The slow coordinates: ``label (batch,)`` of the chart, an integer, and ``torsions (batch, n_torsions)``.

    ``heat (batch,)`` is ln T/T₀ of the temperature that they belong to, T₀ that of the target; zero unless given.
    """

    label: Tensor
    torsions: Tensor
    heat: Tensor = None  # type: ignore[assignment]  # see below

    def __post_init__(self) -> None:
        if self.heat is None:
            object.__setattr__(self, "heat", self.torsions.new_zeros(len(self.torsions)))

    def __getitem__(self, index: Tensor) -> Slow:
        return self.map(lambda column: column[index])

    def map(self, change: Callable[[Tensor], Tensor]) -> Slow:
        """The same function of every column."""
        return Slow(change(self.label), change(self.torsions), change(self.heat))

    @classmethod
    def cat(cls, parts: Sequence[Slow]) -> Slow:
        """Parts one after the other."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("label", "torsions", "heat")))

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        return {name: column.cpu().numpy() for name, column in vars(self).items()}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], device: torch.device | str) -> Slow:
        """Build from what :meth:`to_tree` returned."""
        return cls(*(torch.as_tensor(tree[name], device=device) for name in ("label", "torsions", "heat")))


@dataclass(frozen=True)
class Lead:
    """Slow coordinates drawn elsewhere: ``label (n,)``, the first m ``torsions (n, m)``, and ln of their density."""

    label: Tensor
    torsions: Tensor
    log_prob: Tensor


@dataclass(frozen=True)
class Latent:
    """Draws of a generator: slow coordinates, ``stiff (batch, n_stiff)``, ``log_prob (batch,)``."""

    slow: Slow
    stiff: Tensor
    log_prob: Tensor


class Generator(nn.Module):
    """q(k, τ, z) = q(k) q(τ | k) q(z | τ, k): a label, autoregressive circular splines, couplings and an affine head.

    Each factor is conditional on the temperature too, which it is told as heat h = ln T/T₀; at the end z is stretched
    by √(T/T₀), as harmonic coordinates are. Base: uniform circles and standard normal lines. ``log_prob`` is with
    respect to dτ dz.

    Where stiff coordinates are levers, z is counted from where the energy is least given τ, and these are drawn first:
    q(z | τ, k) = q(z_l | τ, k) q(z_r | z_l, τ, k), the latter around where the energy is least given τ and z_l. Such a
    generator needs its target, see :meth:`attach`. No gradient goes through these centres.
    """

    _levers: Tensor
    _rest: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.relaxation: Relaxation | None = None
        self.architecture = a = architecture
        n_label = a.n_charts if a.n_charts > 1 else 0
        n_context = 4 * a.n_torsions + n_label + 1
        self.label_logits = Perceptron(1, a.torsion_hidden, n_label) if n_label else None
        self.torsion_flow = TorsionFlow(a.n_torsions, a.n_bins, a.torsion_hidden, n_label + 1)
        levers = torch.tensor(a.levers, dtype=torch.int64)
        every = torch.arange(a.n_stiff)
        self.register_buffer("_levers", levers, persistent=False)
        self.register_buffer("_rest", every[~torch.isin(every, levers)], persistent=False)
        n_levers = len(a.levers)
        self.lever_couplings = nn.ModuleList(
            StiffCoupling(mask, n_context + n_levers, a.stiff_hidden) for mask in _masks(n_levers, LEVER_COUPLINGS)
        )
        self.lever_head = AffineHead(n_levers, n_context + n_levers, a.stiff_hidden) if n_levers else None
        n_rest, n_context = a.n_stiff - n_levers, n_context + (a.n_stiff if n_levers else 0)
        masks = _masks(n_rest, a.n_couplings)
        self.couplings = nn.ModuleList(StiffCoupling(mask, n_context, a.stiff_hidden) for mask in masks)
        self.head = AffineHead(n_rest, n_context, a.stiff_hidden) if n_rest else None

    def attach(self, target: AnyTarget) -> Self:
        """Let stiff coordinates relax on a target, if the architecture asks for that."""
        self.relaxation = Relaxation(target) if self.architecture.levers else None
        return self

    def take_energies(self) -> int:
        """Energies, each with its forces, that relaxation took since the last call."""
        return self.relaxation.take() if self.relaxation else 0

    def sample(self, n: int, generator: torch.Generator, heat: Tensor | None = None) -> Latent:
        """Draw ``n`` latents, at the target's temperature or at heats ``(n,)``."""
        slow, log_prob = self.sample_slow(n, generator, heat=heat)
        stiff, log_conditional = self.sample_stiff(slow, generator)
        return Latent(slow, stiff, log_prob + log_conditional)

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

    def sample_stiff(self, slow: Slow, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw stiff coordinates ``(n, n_stiff)`` given slow ones, with ln q(z | τ, k), ``(n,)``."""
        like = slow.torsions
        shape = (len(like), self.architecture.n_stiff)
        lines = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
        return self.push_stiff(lines, slow)

    def push_stiff(self, lines: Tensor, slow: Slow) -> tuple[Tensor, Tensor]:
        """Map standard normal lines to stiff coordinates given slow ones, with ln q(z | τ, k)."""
        context, stretch = self._context(slow), (0.5 * slow.heat[:, None]).exp()
        log_prob = _log_normal(lines) - 0.5 * self.architecture.n_stiff * slow.heat
        if not self.architecture.levers:
            z, log_det = _through(self._stiff_layers(), lines, context)
            return z * stretch, log_prob - log_det
        levers, rest = self._levers, self._rest
        centre = self._centre(slow)
        own = centre.index_select(1, levers)
        y, log_det = _through(self._lever_layers(), lines.index_select(1, levers), _with_bounded(context, own))
        z = centre.index_copy(1, levers, own + y * stretch)
        around = self._centre_of_rest(slow, z.detach()).index_select(1, rest)
        context = _with_bounded(context, y, around)
        y, step = _through(self._stiff_layers(), lines.index_select(1, rest), context)
        return z.index_copy(1, rest, around + y * stretch), log_prob - log_det - step

    def log_prob(self, slow: Slow, stiff: Tensor) -> Tensor:
        """ln q(k, τ, z) of latents, ``(batch,)``; NaN in, −inf out."""
        value = self.log_prob_slow(slow) + self.log_prob_stiff(stiff, slow)
        return value.masked_fill(value.isnan(), -math.inf)

    def log_prob_slow(self, slow: Slow) -> Tensor:
        """ln q(k, τ), ``(batch,)``."""
        _, log_det = self.torsion_flow.inverse(slow.torsions, self._condition(slow))
        return self.log_prob_label(slow) + self._log_base_torsions + log_det

    def log_prob_label(self, slow: Slow) -> Tensor:
        """ln q(k), ``(batch,)``."""
        return self._log_labels(slow.heat).gather(1, slow.label[:, None])[:, 0]

    def log_prob_stiff(self, stiff: Tensor, slow: Slow) -> Tensor:
        """ln q(z | τ, k), ``(batch,)``."""
        context, shrink = self._context(slow), (-0.5 * slow.heat[:, None]).exp()
        log_det = -0.5 * self.architecture.n_stiff * slow.heat
        if not self.architecture.levers:
            lines, step = _through(self._stiff_layers(), stiff * shrink, context, inverse=True)
            return _log_normal(lines) + log_det + step
        levers, rest = self._levers, self._rest
        centre = self._centre(slow)
        own, drawn = centre.index_select(1, levers), stiff.index_select(1, levers)
        y = (drawn - own) * shrink
        first, log_first = _through(self._lever_layers(), y, _with_bounded(context, own), inverse=True)
        known = centre.index_copy(1, levers, drawn)
        around = self._centre_of_rest(slow, known.detach()).index_select(1, rest)
        context = _with_bounded(context, y, around)
        others = (stiff.index_select(1, rest) - around) * shrink
        second, log_second = _through(self._stiff_layers(), others, context, inverse=True)
        return _log_normal(first) + _log_normal(second) + log_det + log_first + log_second

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

    def _centre(self, slow: Slow) -> Tensor:
        """Stiff coordinates where the energy is least given the slow ones, ``(n, n_stiff)``."""
        start = slow.torsions.new_zeros(len(slow.torsions), self.architecture.n_stiff)
        every = torch.arange(self.architecture.n_stiff, device=start.device)
        return self._relaxed(slow, start, every, self.architecture.relaxation)

    def _centre_of_rest(self, slow: Slow, stiff: Tensor) -> Tensor:
        """The same with the levers as they are in ``stiff``, from the other coordinates there."""
        return self._relaxed(slow, stiff, self._rest, self.architecture.relaxation // 2)

    def _relaxed(self, slow: Slow, start: Tensor, free: Tensor, evaluations: int) -> Tensor:
        if self.relaxation is None:
            raise RuntimeError("a generator with levers needs its target: attach it first")
        return self.relaxation(slow.label, slow.torsions.detach(), start, free, evaluations)

    def _stiff_layers(self) -> list[nn.Module]:
        return [*self.couplings, self.head] if self.head else []

    def _lever_layers(self) -> list[nn.Module]:
        return [*self.lever_couplings, self.lever_head] if self.lever_head else []

    @property
    def _log_base_torsions(self) -> float:
        return -self.architecture.n_torsions * math.log(2.0 * math.pi)


def _through(
    layers: Sequence[nn.Module], z: Tensor, context: Tensor, *, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Pass layers one after the other, backwards if inverse; ln |det|, ``(batch,)``."""
    log_det = z.new_zeros(len(z))
    for layer in reversed(layers) if inverse else layers:
        z, step = layer(z, context, inverse=inverse)
        log_det = log_det + step
    return z, log_det


def _with_bounded(context: Tensor, *stiff: Tensor) -> Tensor:
    """A context ``(batch, n_context)`` and stiff coordinates, which a clash may have driven far."""
    return torch.cat([context.T, *(BOUND * torch.tanh(values.T / BOUND) for values in stiff)]).T


def _log_normal(lines: Tensor) -> Tensor:
    """Standard normal log-density of each row."""
    return -0.5 * (lines.square().sum(1) + lines.shape[1] * math.log(2.0 * math.pi))


def _masks(n: int, count: int) -> Iterable[Tensor]:
    """Boolean masks of the kept coordinates: a fixed random half and its complement in turn."""
    generator = torch.Generator().manual_seed(0)
    for k in range(count if n > 1 else 0):
        if k % 2 == 0:
            mask = torch.zeros(n, dtype=torch.bool)
            mask[torch.randperm(n, generator=generator)[: n // 2]] = True
        yield mask
        mask = ~mask
