"""The budget and its rounds of exchange, on counters that are set by hand."""

from __future__ import annotations

import math

import pytest

from boltzgen.training.budget import ENOUGH, FIRST_GUESS_OF_SPEED, LAST_PHASE, STEPS_TO_JUDGE, Budget
from boltzgen.training.challengers import LEAST_ROUND
from boltzgen.training.counters import Counters
from boltzgen.training.rounds import BURN_IN, FEWEST_ROUNDS, LAST_ROUND, MOST_ROUNDS, Rounds


def test_progress_is_the_larger_of_energies_and_seconds():
    counters = Counters(step=50, energies=300, frames=900, seconds=5.0)
    assert Budget(counters, 1000).progress == 0.3
    assert Budget(counters, None, 10.0).progress == 0.5
    assert Budget(counters, 1000, 10.0).progress == 0.5
    assert Budget(counters, 1000, 100.0).progress == 0.3
    assert Budget(counters, 1000, of_frames=True).progress == 0.9
    assert Budget(counters, 100).progress == 1.0


def test_no_batch_is_larger_than_what_is_left():
    counters = Counters(energies=900, frames=300)
    assert [Budget(counters, 1000).affordable(n) for n in (64, 256)] == [64, 100]
    assert Budget(counters, 1000, of_frames=True).affordable(800) == 700
    assert Budget(counters, None, 10.0).affordable(256) == 256


def test_expected_energies_follow_the_speed_of_a_time_budget():
    early, late = Counters(step=19, energies=1, seconds=50.0), Counters(step=50, energies=400_000, seconds=10.0)
    assert Budget(early, None, 100.0).expected_energies == 100.0 * FIRST_GUESS_OF_SPEED
    assert Budget(late, None, 100.0).expected_energies == pytest.approx(4e6)
    assert Budget(late, 1_000_000, 100.0).expected_energies == 1e6


@pytest.mark.parametrize(
    ("shares", "ends"),
    [
        (STEPS_TO_JUDGE * [0.99], True),
        ((STEPS_TO_JUDGE - 1) * [0.99], False),  # too few to tell
        (STEPS_TO_JUDGE * [0.97], False),
        ([*((STEPS_TO_JUDGE - 1) * [1.0]), 0.5], False),  # 0.99 on average, and one that lacks a half
        (STEPS_TO_JUDGE * [math.nan], False),
        ([*(10 * [0.1]), *(STEPS_TO_JUDGE * [0.99])], True),  # long ago
    ],
)
def test_the_budget_shrinks_to_a_last_phase_once_draws_are_good_enough(shares, ends):
    counters = Counters(energies=200)
    budget = Budget(counters, 1000)
    budget.end_if_enough(shares)
    assert budget.progress == pytest.approx(LAST_PHASE if ends else 0.2)
    counters.energies = 250
    assert (budget.progress >= 1.0) == ends


def test_a_training_in_its_last_phase_is_not_cut_short():
    budget = Budget(Counters(energies=900), 1000)
    budget.end_if_enough(STEPS_TO_JUDGE * [ENOUGH])
    assert budget.progress == 0.9


def test_a_budget_without_exchange_is_all_draws():
    """None by wish, or because it would buy too few rounds."""
    enough = 3 * FEWEST_ROUNDS * LEAST_ROUND
    draws = {
        (n, share): Rounds(Budget(Counters(), n), share).expected_draws
        for n in (enough // 2, enough)
        for share in (0.0, 0.5)
    }
    assert draws == {(n, share): n * (1.0 - share * (n == enough)) for n, share in draws}


def test_rounds_are_at_most_so_many_and_no_shorter_than_the_least():
    few, many = (Rounds(Budget(Counters(), n * LEAST_ROUND), 0.5).length for n in (50, 1000))
    assert few == LEAST_ROUND
    assert many == 500 * LEAST_ROUND / MOST_ROUNDS


def test_exchange_is_due_when_it_lags_behind_its_share():
    counters = Counters()
    rounds = Rounds(Budget(counters, 10_000_000), 0.25)
    assert not rounds.is_due(0)  # nothing is spent at all
    counters.energies = 4_000_000
    assert rounds.is_due(999_999)
    assert not rounds.is_due(1_000_000)
    counters.energies = math.ceil(LAST_ROUND * 10_000_000)
    assert not rounds.is_due(0)
    assert [rounds.is_burnt_in(int(share * 2_500_000)) for share in (BURN_IN, 1.01 * BURN_IN)] == [False, True]


def test_of_dear_draws_the_budget_buys_fewer_and_exchange_keeps_its_share():
    counters = Counters(energies=4_000_000)
    rounds = Rounds(Budget(counters, 19_000_000, cost=19), 0.25)
    assert rounds.is_due(999_999)
    assert not rounds.is_due(1_000_000)
    assert rounds.expected_draws == pytest.approx(750_000)


def test_the_first_round_of_a_time_budget_waits_for_the_speed():
    """By a guess of the speed it might take half of the time where energies are slow."""
    counters = Counters(step=19, energies=5_000, seconds=1.0)
    rounds = Rounds(Budget(counters, None, 3600.0), 0.25)
    assert rounds.length > 0.0
    assert not rounds.is_due(0)
    counters.step = 20
    assert rounds.is_due(0)
    counters.seconds = 600.0
    assert not rounds.is_due(0)  # too slow for a round
