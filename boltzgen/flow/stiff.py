"""The stiff coordinates given the slow ones: couplings and an affine head, around a fixed or a moving centre.

Both flows here map standard normal lines to z and back, conditional on the slow coordinates by what the generator
makes of them, the ``context``; at the end z is stretched by √(T/T₀), as harmonic coordinates are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from boltzgen.flow.architecture import Architecture
from boltzgen.flow.coupling import AffineHead, StiffCoupling
from boltzgen.flow.latents import Slow
from boltzgen.flow.relaxation import Relaxation

LEVER_COUPLINGS = 4

BOUND = 3.0
"""Whitened units beyond which conditioners tell stiff coordinates less and less apart."""


class Block(nn.Module):
    """Couplings, then an affine head: ``(batch, n)`` given a context ``(batch, n_context)``."""

    def __init__(self, n: int, n_context: int, n_hidden: int, n_couplings: int) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(StiffCoupling(mask, n_context, n_hidden) for mask in _masks(n, n_couplings))
        self.head = AffineHead(n, n_context, n_hidden) if n else None

    def forward(self, z: Tensor, context: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """The image, and ln |det| ``(batch,)``."""
        layers = [*self.couplings, self.head] if self.head else []
        log_det = z.new_zeros(len(z))
        for layer in reversed(layers) if inverse else layers:
            z, step = layer(z, context, inverse=inverse)
            log_det = log_det + step
        return z, log_det


class StiffFlow(nn.Module):
    """All stiff coordinates at once, around the centre of the whitening."""

    relaxation: Relaxation | None = None

    def __init__(self, architecture: Architecture, n_context: int) -> None:
        super().__init__()
        a = architecture
        self.block = Block(a.n_stiff, n_context, a.stiff_hidden, a.n_couplings)

    def push(
        self, lines: Tensor, slow: Slow, context: Tensor, of_levers: Tensor | None = None
    ) -> tuple[Tensor, Tensor, None]:
        """Lines ``(batch, n_stiff)`` → z and ln |det|, ``(batch,)``; there is no moving centre, of levers or others."""
        z, log_det = self.block(lines, context)
        return z * _stretch(slow), log_det + 0.5 * lines.shape[1] * slow.heat, None

    def centre(self, z: Tensor, slow: Slow) -> None:
        """There is none that moves."""

    def centre_of_levers(self, slow: Slow) -> None:
        """There are no levers."""

    def pull(self, z: Tensor, slow: Slow, context: Tensor, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z → lines and ln |det| of that; ``centre`` is for flows that have one."""
        lines, log_det = self.block(z / _stretch(slow), context, inverse=True)
        return lines, log_det - 0.5 * z.shape[1] * slow.heat


class CentredStiffFlow(nn.Module):
    """Levers around where the energy is least given the slow coordinates, then the rest around where it is given both.

    The centres are functions of what is given, and no gradient goes through them.
    """

    relaxation: Relaxation | None = None
    levers: Tensor
    rest: Tensor

    def __init__(self, architecture: Architecture, n_context: int) -> None:
        super().__init__()
        a = architecture
        levers, every = torch.tensor(a.levers, dtype=torch.int64), torch.arange(a.n_stiff)
        self.register_buffer("levers", levers, persistent=False)
        self.register_buffer("rest", every[~torch.isin(every, levers)], persistent=False)
        n = len(levers)
        self._evaluations = a.relaxation
        self.of_levers = Block(n, n_context + n, a.stiff_hidden, LEVER_COUPLINGS)
        self.of_rest = Block(a.n_stiff - n, n_context + a.n_stiff, a.stiff_hidden, a.n_couplings)

    def push(
        self, lines: Tensor, slow: Slow, context: Tensor, of_levers: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Lines ``(batch, n_stiff)`` → z, ln |det| ``(batch,)``, and the centres of z ``(batch, n_stiff)``.

        ``of_levers`` is :meth:`centre_of_levers`, which is computed unless given.
        """
        stretch, centre = _stretch(slow), self.centre_of_levers(slow) if of_levers is None else of_levers
        own = centre.index_select(1, self.levers)
        y, log_det = self.of_levers(lines.index_select(1, self.levers), _with_bounded(context, own))
        z = centre.index_copy(1, self.levers, own + y * stretch)
        around = self._centre_of_rest(slow, z)
        x, step = self.of_rest(lines.index_select(1, self.rest), _with_bounded(context, y, around))
        z = z.index_copy(1, self.rest, around + x * stretch)
        return z, log_det + step + 0.5 * lines.shape[1] * slow.heat, centre.index_copy(1, self.rest, around)

    def centre(self, z: Tensor, slow: Slow) -> Tensor:
        """The centres of z ``(batch, n_stiff)``, which are the same at every temperature.

        Of the levers given the slow coordinates, of the rest given both.
        """
        centre = self.centre_of_levers(slow)
        moved = centre.index_copy(1, self.levers, z.index_select(1, self.levers))
        return centre.index_copy(1, self.rest, self._centre_of_rest(slow, moved))

    def pull(self, z: Tensor, slow: Slow, context: Tensor, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z → lines and ln |det| of that; its centres are computed unless given."""
        stretch, centre = _stretch(slow), self.centre(z, slow) if centre is None else centre
        off = (z - centre) / stretch
        own, around = (centre.index_select(1, part) for part in (self.levers, self.rest))
        y, x = (off.index_select(1, part) for part in (self.levers, self.rest))
        first, log_det = self.of_levers(y, _with_bounded(context, own), inverse=True)
        second, step = self.of_rest(x, _with_bounded(context, y, around), inverse=True)
        lines = torch.empty_like(z).index_copy(1, self.levers, first).index_copy(1, self.rest, second)
        return lines, log_det + step - 0.5 * z.shape[1] * slow.heat

    def centre_of_levers(self, slow: Slow) -> Tensor:
        """Stiff coordinates where the energy is least given the slow ones, ``(n, n_stiff)``."""
        start = slow.torsions.new_zeros(len(slow.torsions), len(self.levers) + len(self.rest))
        every = torch.arange(start.shape[1], device=start.device)
        return self._relaxed(slow, start, every, self._evaluations)

    def _centre_of_rest(self, slow: Slow, z: Tensor) -> Tensor:
        """The same of the rest with the levers as they are in ``z``, from the rest there."""
        return self._relaxed(slow, z.detach(), self.rest, self._evaluations // 2).index_select(1, self.rest)

    def _relaxed(self, slow: Slow, start: Tensor, free: Tensor, evaluations: int) -> Tensor:
        if self.relaxation is None:
            raise RuntimeError("a generator with levers needs its target: attach it first")
        return self.relaxation(slow.label, slow.torsions.detach(), start, free, evaluations)


def log_normal(lines: Tensor) -> Tensor:
    """Standard normal log-density of each row, ``(batch,)``."""
    return -0.5 * (lines.square().sum(1) + lines.shape[1] * math.log(2.0 * math.pi))


def _stretch(slow: Slow) -> Tensor:
    """√(T/T₀), ``(batch, 1)``."""
    return (0.5 * slow.heat[:, None]).exp()


def _with_bounded(context: Tensor, *stiff: Tensor) -> Tensor:
    """A context ``(batch, n_context)`` and stiff coordinates, which a clash may have driven far."""
    return torch.cat([context.T, *(BOUND * torch.tanh(values.T / BOUND) for values in stiff)]).T


def _masks(n: int, count: int) -> Iterable[Tensor]:
    """Boolean masks of the kept coordinates: a fixed random half and its complement in turn."""
    generator = torch.Generator().manual_seed(0)
    for k in range(count if n > 1 else 0):
        if k % 2 == 0:
            mask = torch.zeros(n, dtype=torch.bool)
            mask[torch.randperm(n, generator=generator)[: n // 2]] = True
        yield mask
        mask = ~mask
