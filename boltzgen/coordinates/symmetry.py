"""Equivalent branches of rotors: their images are the same molecule, and are used exactly.

The angle of a rotor of order n is the mean τ̄ = τ₁ + Σ (Δₖ − Δₖ⁰)/n of the torsions of the n atoms on its axis, with Δₖ
the offsets from the first and Δₖ⁰ = ±2πk/n. An exchange of the branches by one shifts τ̄ by exactly 2π/n and leaves the
energy as it is. A generator therefore samples τ̄ on one window of 2π/n and each of the n images with probability 1/n.
As a density on all configurations the window's factor n and the images' 1/n cancel: the circle s = n(τ̄ − c) enters
with log-determinant 0. How the other coordinates of a branch change under the exchange does not matter: a relabelling
of equal atoms keeps the volume, and the density is that of the one image in the window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boltzgen.coordinates.rotor import Rotor


def cycle_image(x: Tensor, rotor: Rotor, shift: Tensor) -> Tensor:
    """Relabel the atoms of one rotor cyclically.

    ``x`` is ``(atoms, 3, batch)``, ``shift`` ``(batch,)`` with entries 0 to n − 1: each atom of branch i takes the
    place of the one ``shift`` branches further on. Returns a new tensor.
    """
    branches = torch.as_tensor(rotor.branches, device=x.device)
    source = (torch.arange(rotor.order, device=x.device)[:, None] + shift[None]) % rotor.order
    group = x[branches]
    index = source[:, None, None, :].expand(-1, *group.shape[1:])
    x = x.clone()
    x[branches] = group.gather(0, index)
    return x


def random_images(x: Tensor, rotors: tuple[Rotor, ...], generator: torch.Generator) -> Tensor:
    """Give every rotor of every sample one of its images with equal probability; ``x`` is ``(atoms, 3, batch)``."""
    for rotor in reversed(rotors):
        shift = torch.randint(rotor.order, (x.shape[-1],), generator=generator, device=x.device)
        x = cycle_image(x, rotor, shift)
    return x
