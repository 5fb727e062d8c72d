"""Weighted samples of a trained flow, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from boltzgen.coordinates.symmetry import random_images
from boltzgen.errors import InputError
from boltzgen.flow.generator import Generator, Slow
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
            slow = latent.slow
            x, log_det = self.target.coordinates.to_cartesian(slow.label, slow.torsions, latent.stiff)
            x = random_images(x, self.target.coordinates.zmatrix.rotors, rng)
            u = self.target.reduced_potential(x)
            log_q = self._log_mixture(x, slow.label, latent.log_prob - log_det)
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
        none = torch.full((x.shape[-1],), -1, device=self.device)
        return self._log_mixture(x, none, x.new_full((x.shape[-1],), -math.inf)).cpu().numpy()

    @torch.no_grad()
    def reduced_potential(self, positions: np.ndarray) -> np.ndarray:
        """u = U/kT ``(n,)`` of structures ``(n, atoms, 3)`` in nm; +inf where the energy cannot be computed."""
        return self.target.reduced_potential(self._batch_last(positions)).cpu().numpy()

    def _log_mixture(self, x: torch.Tensor, label: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
        """ln Σ_k q(k) q(x | k) over all charts, ``(batch,)``; ``log_q`` is that of the chart ``label``."""
        parts = [log_q]
        for k in range(self.target.coordinates.n_charts):
            rows = (label != k).nonzero()[:, 0]
            if len(rows):
                parts.append(torch.full_like(log_q, -math.inf).index_put((rows,), self._log_chart(k, x[..., rows])))
        return torch.nan_to_num(torch.logsumexp(torch.stack(parts), dim=0), nan=-math.inf)

    def _log_chart(self, k: int, x: torch.Tensor) -> torch.Tensor:
        """ln q(k) q(x | k), ``(batch,)``; −inf outside the support of chart k."""
        chart = self.target.coordinates.charts[k]
        value = x.new_full((x.shape[-1],), -math.inf)
        inside = chart.is_in_support(chart.canonical_images(x)).nonzero()[:, 0]
        if len(inside):
            torsions, stiff, log_det = chart.from_cartesian(x[..., inside])
            value[inside] = self.flow.log_prob(Slow(torch.full_like(inside, k), torsions), stiff) - log_det
        return value

    def _batch_last(self, positions: np.ndarray) -> torch.Tensor:
        array = np.asarray(positions, dtype=np.float64)
        n_atoms = self.target.coordinates.zmatrix.n_atoms
        if array.ndim != 3 or array.shape[1:] != (n_atoms, 3):
            raise InputError(f"positions have shape {array.shape}. Give (n, {n_atoms}, 3), in nm.")
        return torch.as_tensor(array, device=self.device).permute(1, 2, 0).contiguous()
