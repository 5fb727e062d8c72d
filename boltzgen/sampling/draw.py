"""Weighted samples of a trained flow, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from boltzgen.coordinates.symmetry import random_images
from boltzgen.errors import InputError
from boltzgen.flow.generator import Generator
from boltzgen.target import Target


@dataclass(frozen=True)
class Samples:
    """Independent draws with exact weights.

    ``positions (n, atoms, 3)`` nm; ``log_prob``, ``reduced_potential``, ``log_weight`` ``(n,)`` float64, natural log,
    with log_weight = −reduced_potential − log_prob, unnormalised. A failed energy is +inf with weight −inf.
    """

    positions: np.ndarray
    log_prob: np.ndarray
    reduced_potential: np.ndarray
    log_weight: np.ndarray


class BoltzmannGenerator:
    """A trained flow on its target: draws samples, and gives the density of structures from anywhere.

    Everything is evaluated in float64: a flow round-trips to 1e-4 in float32 and to 1e-12 in float64.
    """

    def __init__(self, target: Target, flow: Generator, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.target = target.to(torch.float64, self.device)
        self.flow = flow.to(self.device, torch.float64).requires_grad_(False)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int | list[int] = 0,
        batch_size: int = 2048,
        report: Callable[[int], None] | None = None,
    ) -> Samples:
        """Draw ``n`` independent samples; the same seed and batch size give the same samples.

        Equivalent hydrogens are in a random one of their equivalent orders. ``report`` is called with the number done.
        """
        if n < 1:
            raise InputError(f"{n} samples were asked for. Ask for at least one.")
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
        rng = torch.Generator(self.device).manual_seed(int(state >> 1))
        parts: list[tuple[np.ndarray, ...]] = []
        done = 0
        while done < n:
            latent = self.flow.sample(min(batch_size, n - done), rng)
            x, log_det = self.target.coordinates.to_cartesian(latent.torsions, latent.stiff)
            x = random_images(x, self.target.coordinates.zmatrix.rotors, rng)
            u = self.target.reduced_potential(x)
            log_q = latent.log_prob - log_det
            parts.append(tuple(t.cpu().numpy() for t in (x.permute(2, 0, 1), log_q, u)))
            done += len(u)
            if report:
                report(done)
        positions, log_prob, u_all = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Samples(positions, log_prob, u_all, -u_all - log_prob)

    @torch.no_grad()
    def log_prob(self, positions: np.ndarray) -> np.ndarray:
        """ln q of structures ``(n, atoms, 3)`` in nm, in the atom order of ``system.pdb``; −inf outside the support.

        With respect to the volume element of internal coordinates (Σ 2 ln r + Σ ln sin θ), without rigid motion.
        """
        x = self._batch_last(positions)
        torsions, stiff, log_det = self.target.coordinates.from_cartesian(x)
        value = self.flow.log_prob(torsions, stiff) - log_det
        return torch.nan_to_num(value, nan=-math.inf).cpu().numpy()

    @torch.no_grad()
    def reduced_potential(self, positions: np.ndarray) -> np.ndarray:
        """u = U/kT ``(n,)`` of structures ``(n, atoms, 3)`` in nm; +inf where the energy cannot be computed."""
        return self.target.reduced_potential(self._batch_last(positions)).cpu().numpy()

    def _batch_last(self, positions: np.ndarray) -> torch.Tensor:
        array = np.asarray(positions, dtype=np.float64)
        n_atoms = self.target.coordinates.zmatrix.n_atoms
        if array.ndim != 3 or array.shape[1:] != (n_atoms, 3):
            raise InputError(f"positions have shape {array.shape}. Give (n, {n_atoms}, 3), in nm.")
        return torch.as_tensor(array, device=self.device).permute(1, 2, 0).contiguous()
