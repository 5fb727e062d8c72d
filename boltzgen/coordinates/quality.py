"""Figures that judge fitted coordinates: whether the map is a bijection with the volume it claims, how its base fits.

They come from samples of the base, any chart, torsions uniform on their circles and stiff coordinates standard normal,
all in float64. The harmonic expectation for u − ln |det| above its minimum is ½χ² with n_stiff degrees of freedom: what
it would be if the stiff coordinates were harmonic and the torsions free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.special import gammaincinv
from torch import Tensor

from boltzgen.coordinates.atlas import Atlas
from boltzgen.coordinates.harmonic import ReducedPotential
from boltzgen.coordinates.protocol import Coordinates

QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Quality:
    """What :func:`judge` measures.

    Attributes
    ----------
    n_samples
        Samples of the base.
    round_trip
        Largest ``|x' − x|`` of latent → x → latent → x', over all atoms and samples, nm.
    log_det
        Largest deviation of ln |det ∂x/∂latent| from autograd.
    finite
        Share of the samples whose energy is a number.
    excess
        Median of u − ln |det| above the lowest conformer of the chart, less the harmonic median, by degree of freedom;
        kT.
    spread, harmonic_spread
        Distance of the quartiles of u − ln |det|, and what the harmonic model expects; kT.
    """

    n_samples: int
    round_trip: float
    log_det: float
    finite: float
    excess: float
    spread: float
    harmonic_spread: float

    ROUND_TRIP_BOUND: ClassVar[float] = 1e-9
    """nm. Rounding leaves 1e-15; a wrong branch or support leaves 1e-3 and more."""
    LOG_DET_BOUND: ClassVar[float] = 1e-8
    """Rounding leaves 1e-13; a volume element that is wrong is off in the first digits."""

    @property
    def faults(self) -> list[str]:
        """What is out of bounds, one sentence each; NaN is."""
        found = []
        if not self.round_trip < self.ROUND_TRIP_BOUND:
            found.append(f"the coordinates do not lead back to the positions: off by {self.round_trip:.1e} nm")
        if not self.log_det < self.LOG_DET_BOUND:
            found.append(f"the volume element of the coordinates deviates from autograd by {self.log_det:.1e}")
        if self.finite == 0.0:
            found.append(f"none of {self.n_samples:,} samples of the base has a finite energy")
        return found


def judge(
    atlas: Atlas,
    potential: ReducedPotential,
    conformers: np.ndarray,
    *,
    n_samples: int = 1000,
    n_log_det: int = 5,
    seed: int = 0,
) -> Quality:
    """Judge coordinates against u and the minimised ``conformers (k, atoms, 3)`` nm: ``n_samples`` + k energies."""
    label, torsions, stiff = base_samples(atlas, n_samples, seed)
    with torch.no_grad():
        x, log_det = atlas.to_cartesian(label, torsions, stiff)
        back = atlas.from_cartesian(x, label)
        again, _ = atlas.to_cartesian(label, back[0], back[1])
        u = potential(x)
        floor = _floors(atlas, potential, conformers)[label]
    deviations = [
        abs(autograd_log_det(atlas, label[k : k + 1], torsions[k : k + 1], stiff[k : k + 1]) - float(log_det[k]))
        for k in range(n_log_det)
    ]
    finite = torch.isfinite(u)
    above = (u - log_det - floor)[finite].numpy()
    low, median, high = np.quantile(above, QUARTILES) if len(above) else (math.nan,) * 3
    harmonic_low, harmonic_median, harmonic_high = gammaincinv(0.5 * atlas.n_stiff, QUARTILES)
    return Quality(
        n_samples=n_samples,
        round_trip=float((again - x).abs().max()),  # NaN stays NaN, and is out of bounds
        log_det=float(np.max(deviations)),
        finite=float(finite.double().mean()),
        excess=float(median - harmonic_median) / (atlas.n_torsions + atlas.n_stiff),
        spread=float(high - low),
        harmonic_spread=float(harmonic_high - harmonic_low),
    )


def _floors(atlas: Atlas, potential: ReducedPotential, conformers: np.ndarray) -> Tensor:
    """Lowest u − ln |det| of the conformers of each chart ``(n_charts,)``."""
    x = torch.as_tensor(conformers).permute(1, 2, 0)
    label = atlas.assign(x)
    effective = potential(x) - atlas.from_cartesian(x, label)[2]
    own = [effective[label == k] for k in range(atlas.n_charts)]
    return torch.stack([(values if len(values) else effective).min() for values in own])


def base_samples(atlas: Coordinates, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Even labels ``(n,)``, uniform torsions and normal stiff coordinates ``(n, ·)``, float64."""
    generator = torch.Generator().manual_seed(seed)
    torsions = torch.rand(n, atlas.n_torsions, generator=generator, dtype=torch.float64)
    stiff = torch.randn(n, atlas.n_stiff, generator=generator, dtype=torch.float64)
    return torch.arange(n) % atlas.n_charts, (2.0 * torsions - 1.0) * math.pi, stiff


def autograd_log_det(atlas: Atlas, label: Tensor, torsions: Tensor, stiff: Tensor) -> float:
    """ln |det ∂x/∂(translation, rotation, latent)| of one sample ``(1, ·)``, whatever frame the coordinates use.

    The slogdet of the 3N columns, the latent ones by autograd, is the volume element without the factor 8π²V; a window
    that stands for k equivalent images counts k times.
    """
    n_rows = 3 * atlas.zmatrix.n_atoms
    torsions, stiff = (t.expand(n_rows, -1).clone().requires_grad_() for t in (torsions, stiff))
    x, _ = atlas.to_cartesian(label.expand(n_rows), torsions, stiff)
    used = [t for t in (torsions, stiff) if t.shape[1]]  # a rigid molecule has no torsions
    # Sample k of a batch of equal ones gives row k: the trace is over component k of sample k.
    rows = torch.autograd.grad(x.permute(2, 0, 1).reshape(n_rows, n_rows).trace(), used)
    one = x[..., 0].detach()
    axes = torch.eye(3, dtype=one.dtype)
    if len(one) == 2:  # nothing turns about the bond
        axes = torch.linalg.svd((one[1] - one[0])[None]).Vh[1:]
    turn = torch.stack([torch.linalg.cross(axis.expand_as(one), one) for axis in axes], -1)
    shift = torch.eye(3, dtype=one.dtype).repeat(len(one), 1)
    jacobian = torch.cat([shift, turn.reshape(n_rows, len(axes)), *rows], dim=1)
    log_images = sum(math.log(rotor.order) for rotor in atlas.zmatrix.rotors)
    return float(torch.linalg.slogdet(jacobian)[1]) + log_images
