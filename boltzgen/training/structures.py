"""Structures from elsewhere in the coordinates of a flow, and how far the flow lacks each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow

CHUNK = 1024
"""Structures whose density is computed at once."""

THINNEST = 8.0
"""nats beyond which it makes no difference for how often a structure is chosen."""

COLUMNS = ("stiff", "log_det", "u", "centre", "excess")
"""Of structures, beside the slow coordinates."""


@dataclass(frozen=True)
class Structures:
    """Latents of n structures at the target's temperature, ``log_det`` of the map to positions, and u, ``(n,)``.

    ``centre`` is where a flow draws its stiff coordinates around, ``(n, n_stiff)``, and ``excess`` ln p/q ``(n,)``
    when it was last judged; both are NaN as long as nobody has asked.
    """

    slow: Slow
    stiff: Tensor
    log_det: Tensor
    u: Tensor
    centre: Tensor
    excess: Tensor

    def __len__(self) -> int:
        return len(self.u)

    @classmethod
    def unjudged(cls, slow: Slow, stiff: Tensor, log_det: Tensor, u: Tensor) -> Structures:
        """Those that no flow was asked about."""
        return cls(slow, stiff, log_det, u, torch.full_like(stiff, math.nan), torch.full_like(u, math.nan))

    @classmethod
    def latest(cls, parts: Sequence[Structures], most: int) -> Structures:
        """Parts one after the other, the last ``most`` of all."""
        joined = (torch.cat([getattr(part, name) for part in parts])[-most:] for name in COLUMNS)
        return cls(Slow.cat([part.slow for part in parts]).map(lambda column: column[-most:]), *joined)

    @torch.no_grad()
    def judged(self, generator: Generator, log_z: float) -> Structures:
        """The same, with the excess that a flow leaves given ln Z, and with centres where there was none."""
        centre, excess = self.centre.clone(), self.excess.clone()
        for rows in torch.arange(len(self), device=self.u.device).split(CHUNK):
            new = rows[centre[rows].isnan().any(1)]
            found = generator.centre(self.slow[new], self.stiff[new]) if len(new) else centre[new]
            around = None
            if found is not None:
                centre[new] = found
                around = centre[rows]
            log_prob = generator.log_prob(self.slow[rows], self.stiff[rows], around)
            excess[rows] = self.log_det[rows] - self.u[rows] - log_prob - log_z
        return replace(self, centre=centre, excess=excess)

    def draw(self, n: int, rng: torch.Generator) -> Slow:
        """The slow coordinates of ``n`` structures with replacement, by √(p/q) as far as it is known, and bounded."""
        chances = (0.5 * self.excess.clamp(max=THINNEST)).exp()
        known = ~chances.isnan()
        chances = torch.where(known, chances, chances[known].mean() if bool(known.any()) else 1.0)
        return self.slow[torch.multinomial(chances, n, replacement=True, generator=rng)]

    def to_tree(self) -> dict[str, Any]:
        """Nested arrays, to be stored."""
        columns = {name: getattr(self, name).cpu().numpy() for name in COLUMNS}
        return {"slow": self.slow.to_tree(), **columns}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], device: torch.device | str) -> Structures:
        """Build from what :meth:`to_tree` returned; earlier versions stored no judgement."""
        slow = Slow.from_tree(tree["slow"], device)
        columns = [torch.as_tensor(tree[name], device=device) for name in COLUMNS if name in tree]
        return cls(slow, *columns) if len(columns) == len(COLUMNS) else cls.unjudged(slow, *columns)
