"""The figures of a step: right where the temperature is not that of the target, and none without draws."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from boltzgen.flow.latents import Slow
from boltzgen.training.history import COLUMNS, batch_figures, history_columns, history_rows
from boltzgen.training.objectives import Scored


def test_figures_at_the_target_are_of_weights_at_its_temperature():
    rng = torch.Generator().manual_seed(0)
    energy, log_q = 10.0 * torch.rand(500, generator=rng).double(), torch.randn(500, generator=rng).double()
    hot, cold = -energy / 5.0 - log_q, -energy / 2.5 - log_q  # kT of 600 K and 300 K, about
    slow = Slow(torch.zeros(500, dtype=torch.int64), torch.zeros(500, 1))
    scored = Scored(slow, torch.zeros(500, 2), hot, energy / 5.0, log_q)
    halves = [scored.select(torch.arange(500) < 200), scored.select(torch.arange(500) >= 200)]
    figures = batch_figures(halves, 600.0, 300.0)
    weights = torch.softmax(cold, 0)
    assert figures["target_ess_fraction"] == pytest.approx(1.0 / (500 * weights.square().sum().item()))
    assert figures["largest_share"] == pytest.approx(weights.max().item())
    of_batch = torch.softmax(hot, 0)
    assert figures["ess_fraction"] == pytest.approx(1.0 / (500 * of_batch.square().sum().item()))
    assert figures["log_z"] == pytest.approx(hot.exp().mean().log().item())
    assert figures["elbo_gap"] == pytest.approx(figures["log_z"] - hot.mean().item())
    assert figures["slow_entropy"] == pytest.approx(-log_q.mean().item())


def test_a_step_without_draws_measures_nothing():
    assert all(math.isnan(value) for value in batch_figures([], 300.0, 300.0).values())


def test_rows_come_back_from_columns():
    rows = [dict.fromkeys(COLUMNS, float(k)) for k in range(3)]
    assert history_rows(history_columns(rows)) == rows
    assert history_rows({}) == []


def test_every_column_is_explained():
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
    section = text.partition("### metrics.csv")[2].partition("\n## ")[0]
    assert [name for name in COLUMNS if f"`{name}`" not in section] == []
