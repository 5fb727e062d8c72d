"""Weighted samples of a trained flow, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from boltzgen.errors import InputError
from boltzgen.flow.generator import Generator
from boltzgen.flow.latents import Slow
from boltzgen.random_streams import Purpose, random_stream
from boltzgen.sampling.estimator import Estimator
from boltzgen.target import AnyTarget


@dataclass(frozen=True)
class Samples:
    """Independent samples with exact weights.

    ``positions (n, atoms, 3)`` nm; ``log_prob``, ``reduced_potential``, ``log_weight`` ``(n,)`` float64, natural log,
    with log_weight = −reduced_potential − log_prob, unnormalised. A failed energy is +inf with weight −inf.

    ``log_prob`` is ln q where samples are plain draws of the flow; else it is what makes this formula right, and no
    density. ``flow_ess_fraction`` is the Kish ESS of the flow's draws behind the samples, as a share of their number;
    ``acceptance`` that of the moves of a refinement.
    """

    positions: np.ndarray
    log_prob: np.ndarray
    reduced_potential: np.ndarray
    log_weight: np.ndarray
    n_energy_evaluations: int
    n_force_evaluations: int
    flow_ess_fraction: float
    acceptance: float | None = None


class BoltzmannGenerator:
    """A trained flow on its target: draws samples, and gives the density of structures from anywhere.

    ``temperatures``, in K, by their shares: samples are drawn from the flow at all of them, and the density of each is
    that of the mixture, Σ_t share_t q(x | T_t), whichever it came from (the balance heuristic). So no weight exceeds
    p(x) / (share_t q(x | T_t)) for any t: a share at a higher temperature is a defence against heavy tails, and shares
    at several make one set of samples for all of them. None: the target's temperature alone.

    Everything is evaluated in float64: a flow round-trips to 1e-4 in float32 and to 1e-12 in float64.

    Source: Veach and Guibas, SIGGRAPH 1995, 419; Owen and Zhou, J. Am. Stat. Assoc. 95, 135 (2000).
    """

    def __init__(
        self,
        target: AnyTarget,
        flow: Generator,
        device: torch.device | str = "cpu",
        temperatures: Mapping[float, float] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.target = target.to(torch.float64, self.device)
        self.flow = flow.to(self.device, torch.float64).requires_grad_(False)
        temperatures = temperatures or {target.temperature: 1.0}
        kelvin, shares = (
            torch.tensor(list(values), dtype=torch.float64) for values in (temperatures, temperatures.values())
        )
        self._heats = (kelvin / target.temperature).log().to(self.device)
        self._shares = (shares / shares.sum()).to(self.device)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        inner: int = 1,
        refine: int = 0,
        seed: int | list[int] = 0,
        batch_size: int = 2048,
        report: Callable[[int], None] | None = None,
    ) -> Samples:
        """Draw ``n`` independent samples; the same seed and batch size give the same samples.

        ``inner`` redraws of the stiff coordinates stand behind each sample, which gets the mean of their weights, see
        :mod:`~boltzgen.sampling.marginal`; each is annealed towards the target over ``refine`` bridges, see
        :mod:`~boltzgen.sampling.annealed`. ``batch_size`` redraws are computed at once.

        Equivalent hydrogens are in a random one of their equivalent orders. ``report`` is called with the number done.
        """
        if n < 1:
            raise InputError(f"{n} samples were asked for. Ask for at least one.")
        if inner < 1:
            raise InputError(f"{inner} redraws of each sample were asked for. Ask for at least one.")
        if refine < 0:
            raise InputError(f"a refinement over {refine} steps was asked for. Ask for none, or more.")
        rng = random_stream(Purpose.SAMPLES, seed, self.device)
        estimator = None
        if inner > 1 or refine:
            pilot = random_stream(Purpose.PILOT, seed, self.device)
            estimator = Estimator(self.target, self.flow, inner, refine, pilot)
        parts: list[tuple[np.ndarray, ...]] = []
        done = 0
        self.flow.take_energies()  # of whatever was done before
        while done < n:
            if estimator is None:
                x, log_q, u = self._plain(min(batch_size, n - done), rng)
                log_w = (-u - log_q).masked_fill(~torch.isfinite(u), -math.inf)
                log_sums = torch.stack([log_w, 2.0 * log_w])
            else:
                drawn = estimator.draw(n - done, batch_size, rng)
                x, u, log_w, log_sums = drawn.kept.x, drawn.kept.u, drawn.kept.log_weight, drawn.log_flow_sums
                x = self.target.coordinates.random_images(x, rng)
                failed = torch.isinf(log_w)
                u = torch.where(failed, math.inf, u)
                log_q = torch.where(failed, drawn.kept.log_prob, -u - log_w)
            parts.append(tuple(t.cpu().numpy() for t in (x.permute(2, 0, 1), log_q, u, log_w, log_sums.T)))
            done += len(u)
            if report:
                report(done)
        positions, log_prob, u_all, log_weight, sums = (np.concatenate(column) for column in zip(*parts, strict=True))
        relaxed = self.flow.take_energies()
        return Samples(
            positions,
            log_prob,
            u_all,
            log_weight,
            n_energy_evaluations=relaxed + (estimator.extended.n_energies if estimator else n),
            n_force_evaluations=relaxed + (estimator.extended.n_forces if estimator else 0),
            flow_ess_fraction=_ess(sums) / (n * inner),
            acceptance=estimator.acceptance if estimator else None,
        )

    def _plain(self, n: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Positions ``(atoms, 3, n)``, ln q of the mixture of charts, and reduced potential of draws of the flow."""
        component = torch.zeros(n, dtype=torch.int64, device=self.device)
        if len(self._heats) > 1:
            component = torch.multinomial(self._shares, n, replacement=True, generator=rng)
        latent = self.flow.sample(n, rng, self._heats[component])
        slow = latent.slow
        log_q = self._log_prob(slow, latent.stiff, latent.centre, component, latent.log_prob)
        x, log_det = self.target.coordinates.to_cartesian(slow.label, slow.torsions, latent.stiff)
        x = self.target.coordinates.random_images(x, rng)
        return x, self._log_mixture(x, slow.label, log_q - log_det), self.target.reduced_potential(x)

    def _log_prob(
        self,
        slow: Slow,
        stiff: torch.Tensor,
        centre: torch.Tensor | None,
        component: torch.Tensor,
        log_q: torch.Tensor,
    ) -> torch.Tensor:
        """ln q(k, τ, z) of the mixture of temperatures, ``(batch,)``; ``log_q`` is that of the ``component`` alone."""
        log_shares = self._shares.log()
        parts = [log_shares[component] + log_q]
        for t, heat in enumerate(self._heats):
            rows = (component != t).nonzero()[:, 0]
            if len(rows):
                at_heat = replace(slow[rows], heat=heat.expand(len(rows)))
                around = None if centre is None else centre[rows]
                other = log_shares[t] + self.flow.log_prob(at_heat, stiff[rows], around)
                parts.append(torch.full_like(log_q, -math.inf).index_put((rows,), other))
        return torch.logsumexp(torch.stack(parts), dim=0)

    @torch.no_grad()
    def log_prob(self, positions: np.ndarray) -> np.ndarray:
        """ln q of structures ``(n, atoms, 3)`` in nm, in the atom order of ``system.pdb``; −inf outside the support.

        With respect to the volume element of internal coordinates (Σ 2 ln r + Σ ln sin θ), without rigid motion.
        """
        x = self._batch_last(positions)
        return self._log_mixture(x, *self._nothing_known(x.shape[-1])).cpu().numpy()

    @torch.no_grad()
    def reduced_potential(self, positions: np.ndarray) -> np.ndarray:
        """u = U/kT ``(n,)`` of structures ``(n, atoms, 3)`` in nm; +inf where the energy cannot be computed."""
        return self.target.reduced_potential(self._batch_last(positions)).cpu().numpy()

    def _log_mixture(self, x: torch.Tensor, label: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
        """ln Σ_k q(k) q(x | k) over all charts, ``(batch,)``; ``log_q`` is the part of the chart ``label``."""
        parts = [log_q]
        for k in range(self.target.coordinates.n_charts):
            rows = (label != k).nonzero()[:, 0]
            if len(rows):
                parts.append(torch.full_like(log_q, -math.inf).index_put((rows,), self._log_chart(k, x[..., rows])))
        total = torch.logsumexp(torch.stack(parts), dim=0)
        return total.masked_fill(total.isnan(), -math.inf)

    def _log_chart(self, k: int, x: torch.Tensor) -> torch.Tensor:
        """ln q(k) q(x | k), ``(batch,)``; −inf outside the support of chart k."""
        chart = self.target.coordinates.charts[k]
        value = x.new_full((x.shape[-1],), -math.inf)
        inside = chart.reaches(x).nonzero()[:, 0]
        if len(inside):
            torsions, stiff, log_det = chart.from_cartesian(x[..., inside])
            slow = Slow(torch.full_like(inside, k), torsions)
            centre = self.flow.centre(slow, stiff)
            value[inside] = self._log_prob(slow, stiff, centre, *self._nothing_known(len(inside))) - log_det
        return value

    def _nothing_known(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """No chart or component, −1, and its ln q, −inf; ``(n,)`` each."""
        none = torch.full((n,), -1, device=self.device)
        return none, torch.full_like(none, -math.inf, dtype=torch.float64)

    def _batch_last(self, positions: np.ndarray) -> torch.Tensor:
        array = np.asarray(positions, dtype=np.float64)
        sites, components = self.target.coordinates.shape
        if array.ndim != 3 or array.shape[1:] != (sites, components):
            raise InputError(f"positions have shape {array.shape}. Give (n, {sites}, {components}), in nm.")
        return torch.as_tensor(array, device=self.device).permute(1, 2, 0).contiguous()


def _ess(log_sums: np.ndarray) -> float:
    """Kish effective sample size from ``(n, 2)`` ln Σ w and ln Σ w² of parts; 0 if nothing has weight."""
    total, squares = np.logaddexp.reduce(log_sums, axis=0)
    return float(np.exp(2.0 * total - squares)) if np.isfinite(total) else 0.0
