"""The optimiser: Muon for matrices that feed hidden units, Adam for everything else.

Adam scales every weight by itself. Muon moves a matrix by its momentum with all singular values made alike, so that
directions with small gradients are learnt as fast as those with large ones; a step has the size of one of Adam.

Sources: Kingma and Ba, arXiv:1412.6980; Jordan et al., Muon (2024); the size of a step: Liu et al., arXiv:2502.16982.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from boltzgen.flow.generator import Generator
from boltzgen.training.weights import to_arrays, to_tensors

MOMENTUM = 0.95

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial whose fifth iterate takes singular values of 0.01 to 1 to between 0.7 and 1.2."""

ITERATIONS = 5

STEP = 0.2
"""Root mean square of a step in units of the rate, about that of Adam."""


OUTPUT_LAYER = ".4.weight"
"""The last matrix of a :class:`~boltzgen.flow.coupling.Perceptron`."""


class Optimizer:
    """Moves the weights of a generator along their gradients."""

    def __init__(self, generator: Generator) -> None:
        hidden: list[Tensor] = []
        other: list[Tensor] = []
        for name, parameter in generator.named_parameters():
            is_hidden = parameter.ndim == 2 and not name.endswith(OUTPUT_LAYER) and min(parameter.shape) > 1
            (hidden if is_hidden else other).append(parameter)
        self._hidden = hidden
        self._momenta = [torch.zeros_like(parameter) for parameter in hidden]
        self._adam = torch.optim.Adam(other, fused=True)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step along the gradients; weights without one stay."""
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        for parameter, momentum in zip(self._hidden, self._momenta, strict=True):
            if parameter.grad is None:
                continue
            momentum.lerp_(parameter.grad, 1.0 - MOMENTUM)
            ahead = parameter.grad.lerp(momentum, MOMENTUM)
            parameter.add_(_orthogonal(ahead), alpha=-rate * STEP * math.sqrt(max(parameter.shape)))

    def to_tree(self) -> dict[str, Any]:
        """Momenta as nested arrays, to be stored."""
        moments = self._adam.state_dict()["state"]
        return {
            "adam": {str(k): to_arrays(moment) for k, moment in moments.items()},
            "momenta": to_arrays({str(k): momentum for k, momentum in enumerate(self._momenta)}),
        }

    def load_tree(self, tree: Mapping[str, Any]) -> None:
        """Go on from what :meth:`to_tree` returned."""
        adam = self._adam.state_dict()
        adam["state"] = {int(k): to_tensors(moment) for k, moment in tree["adam"].items()}
        self._adam.load_state_dict(adam)
        for k, value in to_tensors(tree["momenta"]).items():
            self._momenta[int(k)].copy_(value)


def _orthogonal(matrix: Tensor) -> Tensor:
    """U Vᵀ of the singular value decomposition U S Vᵀ, about, by Newton and Schulz."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / matrix.norm().clamp(min=1e-30)
    if is_tall := x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
