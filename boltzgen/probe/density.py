"""A normal density of circles and lines, fitted to frames of one state."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from boltzgen.coordinates.charts import wrap

INFLATION = 1.3
"""Of the fitted variances: a normal density that is too narrow misses what its frames did not reach."""

LEAST_WIDTH = 0.05
"""Standard deviation, in radians or whitened units, below which no coordinate is taken to be."""


class NormalDensity:
    """Normal density of ``n_circles`` circles, cut open opposite of their mean, and lines, from frames ``z (n, d)``."""

    def __init__(self, z: Tensor, n_circles: int) -> None:
        circles = z[:, :n_circles]
        mean = torch.atan2(circles.sin().mean(0), circles.cos().mean(0))
        self._n = n_circles
        self._centre = torch.cat([mean, z[:, n_circles:].mean(0)])
        covariance = INFLATION * shrunk_covariance(self._deviations(z))
        covariance += LEAST_WIDTH**2 * torch.eye(z.shape[1], dtype=z.dtype)
        self._cholesky = torch.linalg.cholesky(covariance)

    def draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates ``(n, d)``, ln of the density ``(n,)``, and which are inside the windows of all circles ``(n,)``.

        Draws outside are no draws: the density is that on the line, of which the window is a part.
        """
        noise = torch.randn((n, len(self._centre)), generator=rng, dtype=self._centre.dtype)
        deviations = noise @ self._cholesky.T
        inside = (deviations[:, : self._n].abs() < math.pi).all(1)
        z = self._centre + deviations
        return torch.cat([wrap(z[:, : self._n]), z[:, self._n :]], dim=1), self._log_normal(noise), inside

    def log_prob(self, z: Tensor) -> Tensor:
        """ln of the density ``(n,)``."""
        noise = torch.linalg.solve_triangular(self._cholesky, self._deviations(z).T, upper=False).T
        return self._log_normal(noise)

    def _deviations(self, z: Tensor) -> Tensor:
        deviations = z - self._centre
        return torch.cat([wrap(deviations[:, : self._n]), deviations[:, self._n :]], dim=1)

    def _log_normal(self, noise: Tensor) -> Tensor:
        log_volume = self._cholesky.diagonal().log().sum() + 0.5 * noise.shape[1] * math.log(2.0 * math.pi)
        return -0.5 * noise.square().sum(1) - log_volume


def shrunk_covariance(deviations: Tensor) -> Tensor:
    """Covariance of n frames ``(n, d)``, drawn towards its diagonal as far as its own noise asks for.

    Source: Schäfer and Strimmer, Stat. Appl. Genet. Mol. Biol. 2005, 4, 32, target D.
    """
    n = len(deviations)
    centred = deviations - deviations.mean(0)
    products, squares = centred.T @ centred / n, centred.square()
    noise = (squares.T @ squares / n - products.square()) / n
    off = ~torch.eye(products.shape[0], dtype=torch.bool)
    share = float((noise[off].sum() / products[off].square().sum().clamp(min=1e-30)).clamp(0.0, 1.0))
    shrunk = (1.0 - share) * products
    shrunk.diagonal().copy_(products.diagonal())
    return shrunk
