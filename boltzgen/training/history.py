"""The history of a training: one row of numbers for each step."""

from __future__ import annotations

import math
from typing import Any

import torch

from boltzgen.training.objectives import Scored
from boltzgen.training.replay import effective_share

COLUMNS = (
    "step",
    "energies",
    "replayed",
    "seconds",
    "temperature",
    "learning_rate",
    "batch",
    "elbo",
    "log_z",
    "elbo_gap",
    "ess_fraction",
    "tempering",
    "skipped_steps",
    "failed_energies",
    "exchange_energies",
    "challengers",
    "thin",
    "forces",
    "frames",
    "loss_reverse_kl",
    "loss_forward_kl",
    "loss_log_variance",
    "loss_data",
    "loss_spread",
    "held_out_nll",
    "slow_entropy",
    "target_ess_fraction",
    "largest_share",
    "buffer_ess",
    "seconds_energy",
    "seconds_flow",
    "seconds_exchange",
    "seconds_other",
)
"""Columns of the history, as ``docs/format.md`` explains them; NaN is what a step did not measure."""


def batch_figures(own: list[Scored], temperature: float, target_temperature: float) -> dict[str, float]:
    """Figures of the draws of one step that have no uniform coordinate and an energy, with softened energies.

    ``elbo``, ``log_z``, ``elbo_gap`` (nats) and ``ess_fraction`` are at the current temperature,
    ``target_ess_fraction`` and ``largest_share`` at that of the target; a small batch flatters ESS. ``slow_entropy`` is
    −E ln q(k, τ), nats.
    """
    names = (
        "elbo", "log_z", "elbo_gap", "ess_fraction", "target_ess_fraction", "largest_share", "slow_entropy",
    )  # fmt: skip
    n = sum(len(part) for part in own)
    if n == 0:
        return dict.fromkeys(names, math.nan)
    log_weights = torch.cat([part.log_weight for part in own]).double()
    elbo = log_weights.mean().item()
    log_sum = torch.logsumexp(log_weights, 0)
    log_z = log_sum.item() - math.log(n)
    # u of another temperature: the positions, and with them their density, stay as they were drawn.
    u = torch.cat([part.reduced_potential for part in own]).double()
    at_target = log_weights + u * (1.0 - temperature / target_temperature)
    entropy = -torch.cat([part.log_prob_slow for part in own]).double().mean().item()
    largest = (at_target.max() - torch.logsumexp(at_target, 0)).exp().item()
    values = (elbo, log_z, log_z - elbo, effective_share(log_weights), effective_share(at_target), largest, entropy)
    return dict(zip(names, values, strict=True))


def history_columns(history: list[dict[str, float]]) -> dict[str, Any]:
    """The history as one float64 array per column."""
    return {name: torch.tensor([row[name] for row in history], dtype=torch.float64).numpy() for name in COLUMNS}


def history_rows(columns: dict[str, Any]) -> list[dict[str, float]]:
    """The inverse of :func:`history_columns`."""
    n_rows = len(next(iter(columns.values()), []))
    return [{name: float(column[k]) for name, column in columns.items()} for k in range(n_rows)]


def shown_figures(row: dict[str, float]) -> dict[str, float | int | str]:
    """What a line of progress shows of a row."""
    fields: dict[str, float | int | str] = {}
    if row["energies"]:
        fields |= {
            "energies": int(row["energies"]),
            "T": f"{row['temperature']:.0f} K",
            "batch ESS": f"{100 * row['ess_fraction']:.0f} %",
            "gap": f"{row['elbo_gap']:.2f}",
        }
    if row["frames"]:
        fields |= {"frames": int(row["frames"]), "-ln q": f"{row['loss_data']:.2f}"}
    skipped, failed = int(row["skipped_steps"]), int(row["failed_energies"])
    return fields | ({"skipped": skipped, "failed": failed} if skipped or failed else {})
