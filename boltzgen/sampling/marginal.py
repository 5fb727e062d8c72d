"""Several redraws of one slow point, averaged: the weight of the slow coordinates alone, pseudo-marginally.

For each slow point s = (label, torsions) from q(s) there are K redraws of the rest, x₁ … x_K, each with a weight W_j
that is right for it alone: E[W_j f(x_j)] = Z ⟨f⟩ for every f. For plain redraws z_j ~ q(z|s),
W_j = p(x_j) r(x_j) |det| / (q(s) q(z_j|s)). One x_J is kept, drawn with probability W_J / Σ W, and given the weight
Ŵ = Σ W_j / K. That is the right weight of what is kept: over the choice of J alone

    E[Ŵ f(x_J) | s, x₁ … x_K] = Ŵ Σ_j (W_j / Σ W) f(x_j) = Σ_j W_j f(x_j) / K,

and the mean of that over everything else is Z ⟨f⟩, since each term is. The W_j need not be independent: redraws of one
s are not. Var Ŵ tends to the variance of the marginal weight p(s)/q(s) as K grows; what the stiff coordinates lack, the
average heals, and what the slow ones lack, it cannot.

The f above may hold a factor of x_J, such as e^{u(x) (1 − T₀/T)}: so samples are reweighted to another temperature T as
any others, with log_weight + u (1 − T₀/T), although the sum over redraws was made at T₀.

Source: Andrieu and Roberts, Ann. Stat. 37, 697 (2009), for weights that are themselves estimates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from boltzgen.sampling.extended import Draws


@dataclass(frozen=True)
class Marginal:
    """What is kept of each slow point, with log-weights ln Ŵ.

    ``log_flow_sums (2, batch)``: ln Σ W and ln Σ W² over the redraws as the flow gave them, for their joint ESS.
    """

    kept: Draws
    log_flow_sums: Tensor


def marginal(redraw: Callable[[int], Draws], n: int, inner: int, most: int, rng: torch.Generator) -> Marginal:
    """Redraw ``inner`` times, and keep one of each of ``n`` slow points.

    ``redraw(k)`` gives k draws of each of the n points, all points in order, k times over; k n is at most ``most``, or
    k is 1. The choice is the largest ln W_j − ln E_j with exponential E_j, which is distributed as it must be and needs
    no redraw to be remembered but the best one so far. If all fail one is kept all the same, with weight zero.
    """
    best = torch.full((n,), -math.inf, dtype=torch.float64, device=rng.device)
    kept: Draws | None = None
    log_sums, log_flow_sums = [], []
    done = 0
    while done < inner:
        k = min(inner - done, max(1, most // n))
        draws = redraw(k).map(partial(_by_redraw, n=n))
        waiting = torch.empty((k, n), dtype=torch.float64, device=rng.device).exponential_(generator=rng)
        key, place = (draws.log_weight - waiting.log()).max(dim=0)
        chosen = draws.map(partial(_take, place=place))
        better = key > best
        kept = chosen if kept is None else _merge(better, chosen, kept)
        best = torch.maximum(best, key)
        log_sums.append(torch.logsumexp(draws.log_weight, dim=0))
        log_flow_sums.append(
            torch.stack([torch.logsumexp(power * draws.flow_log_weight, dim=0) for power in (1.0, 2.0)])
        )
        done += k
    assert kept is not None
    log_mean = torch.logsumexp(torch.stack(log_sums), dim=0) - math.log(inner)
    return Marginal(replace(kept, log_weight=log_mean), torch.logsumexp(torch.stack(log_flow_sums), dim=0))


def _by_redraw(column: Tensor, n: int) -> Tensor:
    """``(..., k n)`` as ``(..., k, n)``."""
    return column.unflatten(-1, (-1, n))


def _take(column: Tensor, place: Tensor) -> Tensor:
    """The redraws at ``place (n,)`` of ``(..., k, n)``."""
    index = place.expand(*column.shape[:-2], 1, -1)
    return column.gather(-2, index)[..., 0, :]


def _merge(better: Tensor, new: Draws, old: Draws) -> Draws:
    return Draws(*(torch.where(better, a, b) for a, b in zip(vars(new).values(), vars(old).values(), strict=True)))
