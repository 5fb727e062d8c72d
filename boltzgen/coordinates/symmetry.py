"""Equivalent atoms of methyl-like rotors: their images are the same molecule, and are used exactly.

The angle of a rotor is the mean of its three hydrogens' torsions, τ̄ = τ₁ + (Δ₂ + Δ₃)/3. A cyclic relabelling of the
hydrogens shifts it by exactly 2π/3 and leaves the energy as it is. A generator therefore samples τ̄ on one window of
2π/3 and each of the three images with probability ⅓. As a density on all configurations the window's factor 3 and
the images' ⅓ cancel: the circle s = 3(τ̄ − c) enters with log-determinant 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boltzgen.coordinates.zmatrix import ROTOR_ORDER, Rotor


def cycle_images(x: Tensor, rotors: tuple[Rotor, ...], shifts: Tensor) -> Tensor:
    """Relabel the atoms of each rotor cyclically.

    ``x`` is ``(atoms, 3, batch)``, ``shifts`` ``(rotors, batch)`` with entries 0, 1, 2: the first atom of rotor i takes
    the place of the atom ``shifts[i]`` further on. Returns a new tensor.
    """
    x = x.clone()
    for rotor, shift in zip(rotors, shifts, strict=True):
        atoms = torch.as_tensor(rotor.atoms, device=x.device)
        group = x[atoms]
        source = (torch.arange(ROTOR_ORDER, device=x.device)[:, None] + shift[None]) % ROTOR_ORDER
        x[atoms] = group.gather(0, source[:, None, :].expand(-1, 3, -1))
    return x


def random_images(x: Tensor, rotors: tuple[Rotor, ...], generator: torch.Generator) -> Tensor:
    """Give every rotor of every sample one of its images with equal probability; ``x`` is ``(atoms, 3, batch)``."""
    shifts = torch.randint(ROTOR_ORDER, (len(rotors), x.shape[-1]), generator=generator, device=x.device)
    return cycle_images(x, rotors, shifts)
