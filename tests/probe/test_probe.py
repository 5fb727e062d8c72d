"""The probe on double wells with exact draws: joint losses are named, rare states and broad weights are no loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boltzgen.models.wells import Wells
from boltzgen.probe import Challenge, probe

WELLS = Wells(n=2, a=1.0, b=-6.0, c=0.0)
"""Two blocks of two equal wells with a barrier of 9 kT: four joint states of a quarter each."""

TARGET = WELLS.target()


def exact_draws(n, seed, tilt=0.0, lowest=-4.0):
    """Draws ``(n, 2, 2)``; a ``tilt`` c makes the wells on the right rarer, with ``lowest = 0`` x is in these."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(lowest, 4.0, 20_001)
    density = np.exp(-(WELLS.a * grid**4 + WELLS.b * grid**2 + tilt * grid))
    integral = np.cumsum(density) / density.sum()
    x = np.interp(rng.random((n, 2)), integral, grid)
    return np.stack([x, rng.normal(size=(n, 2))], axis=-1)


def potential(positions):
    x = torch.as_tensor(positions).permute(1, 2, 0)
    return TARGET.reduced_potential(x).numpy()


class Flow:
    """p, times ``factor(positions)``, as a density: what it draws is p's draws kept with that probability."""

    def __init__(self, factor, seed=0, spread=0.0):
        self._factor, self._spread = factor, spread
        x = exact_draws(40_000, seed)
        self._norm = float(factor(x).mean())
        kept = x[np.random.default_rng(seed + 1).random(len(x)) < factor(x)]
        self.positions = kept
        self.log_weight = -potential(kept) - self.log_prob(kept)

    def log_prob(self, positions):
        with np.errstate(divide="ignore"):
            return -potential(positions) - WELLS.log_z() + np.log(self._factor(positions) / self._norm)


def challengers(n=1600, chains=16, tilt=0.0):
    x = exact_draws(n, seed=5, tilt=tilt)
    return Challenge(x, potential(x), np.repeat(np.arange(chains), n // chains), 0)


def both_right(positions):
    return (positions[:, :, 0] > 0).all(axis=1)


def probed(flow, these=None):
    return probe(flow, TARGET, flow.positions, flow.log_weight, these or challengers(), seed=0)


def test_an_honest_flow_has_lost_nothing_and_its_log_z_is_bridged():
    found = probed(Flow(lambda x: np.ones(len(x))))
    assert found.states == ()
    assert found.n_states == 4
    assert abs(found.bridged.value - WELLS.log_z()) < 4.0 * found.bridged.stderr + 1e-6


@pytest.mark.parametrize("share", [0.0, 1e-6, 0.02])
def test_a_missing_combination_is_lost_where_each_coordinate_alone_looks_right(share):
    flow = Flow(lambda x: np.where(both_right(x), np.maximum(share, 1e-12), 1.0))
    found = probed(flow)
    (lost,) = found.lost
    assert both_right(challengers().positions[lost.structures]).all()
    assert abs(lost.share.value - 0.25) < 4.0 * lost.share.stderr
    assert abs(found.bridged.value - WELLS.log_z()) < 4.0 * found.bridged.stderr
    if share < 1e-3:  # draws that are there have the right weights
        assert found.bridged.value - found.log_z.value == pytest.approx(np.log(4.0 / 3.0), abs=0.02)
    assert lost.name.count(",") == 1  # two coordinates tell it


def test_a_state_drawn_ten_times_too_rarely_is_scarce_and_not_lost():
    """The threshold of loss is e³ = 20; its weights are good enough to tell."""
    (scarce,) = probed(Flow(lambda x: np.where(both_right(x), 0.1, 1.0))).states
    assert scarce.kind == "scarce"
    assert abs(scarce.share.value - 0.25) < 4.0 * scarce.share.stderr
    assert scarce.drawn == pytest.approx(0.1 / 3.1, abs=0.005)


def test_a_state_drawn_three_times_too_rarely_is_no_trouble():
    assert probed(Flow(lambda x: np.where(both_right(x), 1.0 / 3.0, 1.0))).states == ()


def test_a_part_of_a_state_that_is_missed_is_lost_though_the_state_is_drawn():
    """Its y > 0: no well parts it from the rest, and a tenth of all draws is in the state."""
    flow = Flow(lambda x: np.where(both_right(x) & (x[:, 0, 1] > 0.0), 1e-9, 1.0))
    (lost,) = probed(flow).lost
    assert both_right(challengers().positions[lost.structures]).all()
    assert lost.drawn > 0.1
    assert lost.weighted < 0.75 * lost.share.value


def test_a_rare_state_that_challengers_dwell_in_is_no_loss():
    """Both coordinates right: e^−7 of the ensemble, a quarter of the challengers, and the flow never draws it."""
    rare = Wells(n=2, a=1.0, b=-6.0, c=1.0)
    target = rare.target()

    def u(positions):
        return target.reduced_potential(torch.as_tensor(positions).permute(1, 2, 0)).numpy()

    def log_prob(positions):
        return -u(positions) - rare.log_z() - np.where(both_right(positions), 12.0, 0.0)

    drawn = exact_draws(20_000, 1, tilt=1.0)
    drawn = drawn[~both_right(drawn)]
    x = np.concatenate([exact_draws(1200, 2, tilt=1.0), exact_draws(400, 3, tilt=1.0, lowest=0.0)])
    x = x[np.random.default_rng(4).permutation(len(x))]
    these = Challenge(x, u(x), np.arange(len(x)) % 16, 0)
    density = type("Flow", (), {"log_prob": staticmethod(log_prob)})()
    found = probe(density, target, drawn, -u(drawn) - log_prob(drawn), these, seed=0)
    (state,) = found.states
    assert (state.kind, state.drawn) == ("rare", 0.0)
    assert state.visited > 0.2
    exact = (1.0 - rare.population(0.0)) ** 2
    assert abs(state.share.value - exact) < 4.0 * state.share.stderr


def test_weights_that_scatter_everywhere_are_no_loss():
    """A complete flow whose y is too narrow: medians of ln w stand high, the shares of the draws are right."""
    width = 0.45
    rng = np.random.default_rng(0)
    drawn = exact_draws(40_000, 1)
    drawn[..., 1] = width * rng.normal(size=drawn.shape[:2])

    def log_prob(positions):
        y = positions[..., 1]
        of_y = (-0.5 * (y / width) ** 2 + 0.5 * y**2 - np.log(width)).sum(axis=1)
        return -potential(positions) - WELLS.log_z() + of_y

    density = type("Flow", (), {"log_prob": staticmethod(log_prob)})()
    found = probe(density, TARGET, drawn, -potential(drawn) - log_prob(drawn), challengers(), seed=0)
    assert found.lost == ()


def test_the_same_seed_finds_the_same():
    flow = Flow(lambda x: np.where(both_right(x), 1e-6, 1.0))
    first, second = probed(flow), probed(flow)
    assert first.lost[0].share == second.lost[0].share
