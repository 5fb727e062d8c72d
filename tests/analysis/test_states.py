"""States of torsions: wells of mixtures with known populations, and no wells where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import vonmises

from boltzgen.analysis.states import TorsionStates, find_states
from boltzgen.statistics.free_energy import weighted_probabilities

N = 20_000


def draw(centres, shares, concentration, seed=0, n=N):
    """Independent radians in (-π, π] of a mixture of von Mises distributions, centres in degrees."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(centres), n, p=shares)
    return rng.vonmises(np.radians(np.asarray(centres, dtype=float))[chosen], concentration)


def exact_populations(states, centres, shares, concentration):
    """Shares of a mixture in the states, by quadrature on a grid of a hundredth of a degree."""
    grid = np.radians(np.arange(-180.0, 180.0, 0.01) + 0.005)
    density = sum(p * vonmises.pdf(grid, concentration, np.radians(c)) for c, p in zip(centres, shares, strict=True))
    return np.bincount(states.assign(grid), density / density.sum(), len(states.names))


@pytest.mark.parametrize(
    ("centres", "shares", "names"),
    [
        ([-60, 60, 180], [0.2, 0.2, 0.6], ("-sc", "+sc", "ap")),
        ([0, 180], [0.7, 0.3], ("sp", "ap")),
        ([-90, 90], [0.5, 0.5], ("-c", "+c")),
        ([-120, 0, 120], [0.1, 0.8, 0.1], ("-ac", "sp", "+ac")),
        ([-60, 60, 180], [0.005, 0.495, 0.5], ("-sc", "+sc", "ap")),
    ],
)
def test_wells_are_cut_at_barriers_and_hold_their_known_populations(centres, shares, names):
    angle = draw(centres, shares, 20.0)
    states = find_states(angle, np.zeros(N))
    assert states.names == names
    estimates = weighted_probabilities(states.assign(angle), len(names), np.zeros(N), np.random.default_rng(1))
    exact = exact_populations(states, centres, shares, 20.0)
    for estimate, expected in zip(estimates, exact, strict=True):
        assert abs(estimate.value - expected) < 4 * estimate.stderr
    # Wells overlap by less than 2e-3 at this concentration, so states hold the components themselves.
    assert exact == pytest.approx(shares, abs=4e-3)


@pytest.mark.parametrize("centre", [0, 180, -180])
def test_a_planar_well_is_not_cut_in_two(centre):
    angle = draw([centre, centre + 180], [0.5, 0.5], 8.0)
    states = find_states(angle, np.zeros(N))
    labels = states.assign(np.radians(centre + np.array([-30.0, -1e-9, 0.0, 1e-9, 30.0])))
    assert len(set(labels.tolist())) == 1
    assert states.names[labels[0]] == ("sp" if centre == 0 else "ap")


@pytest.mark.parametrize(("centre", "name"), [(0, "sp"), (180, "ap"), (70, "+sc"), (-110, "-ac")])
def test_a_single_well_is_one_state_of_its_own_name(centre, name):
    angle = draw([centre], [1.0], 8.0)
    states = find_states(angle, np.zeros(N))
    assert states.names == (name,)
    assert (states.assign(np.linspace(-7, 7, 1001)) == 0).all()
    assert abs((states.minima[0] - centre + 180) % 360 - 180) < 6  # the top is flat to 2 % over 10 degrees


@pytest.mark.parametrize("n", [50, 500, N])
@pytest.mark.parametrize("seed", range(5))
def test_noise_on_a_uniform_distribution_makes_no_wells(n, seed):
    angle = np.random.default_rng(seed).uniform(-np.pi, np.pi, n)
    assert find_states(angle, np.zeros(n)).names == ("free",)


def test_ripples_below_one_kt_are_no_barriers_and_those_above_are():
    """F = a (1 - cos 3φ)/2 in kT, by weights on uniform angles."""
    angle = np.random.default_rng(3).uniform(-np.pi, np.pi, 200_000)
    names = {a: find_states(angle, -0.5 * a * (1 - np.cos(3 * angle))).names for a in (0.8, 1.4, 5.0)}
    # The kernel takes 1 - exp(-(3 · 5°)²/2) = 3 % off; noise at the most 0.1 kT.
    assert names == {0.8: ("free",), 1.4: ("-ac", "sp", "+ac"), 5.0: ("-ac", "sp", "+ac")}


def test_a_few_heavy_weights_on_a_barrier_are_no_state():
    angle = np.append(draw([-60, 60], [0.5, 0.5], 30.0, n=5000), np.radians([178.0, 179.0, 181.0]))
    log_w = np.append(np.zeros(5000), np.log([60.0, 40.0, 30.0]))
    assert find_states(angle, log_w).names == ("-sc", "+sc")
    # Where as much weight is on many samples, it is one.
    many = np.append(angle[:5000], draw([180], [1.0], 30.0, n=130))
    assert set(find_states(many, np.zeros(5130)).names) == {"-sc", "+sc", "ap"}


def test_one_heavy_weight_does_not_hide_the_well_that_it_is_in():
    angle = draw([-60, 60, 180], [0.4, 0.01, 0.59], 20.0)
    log_w = np.zeros(N)
    log_w[np.argmin(np.abs(angle - np.radians(60)))] = np.log(400.0)
    assert find_states(angle, log_w).names == ("-sc", "+sc", "ap")


def test_weights_and_not_the_draws_decide():
    """Uniform draws, weighted into two wells; the same draws without weights have none."""
    angle = np.random.default_rng(4).uniform(-np.pi, np.pi, N)
    assert find_states(angle, 4 * np.cos(2 * angle)).names == ("sp", "ap")


def test_two_wells_of_one_name_are_told_apart_by_their_angle():
    states = find_states(draw([-22, 22, 180], [0.3, 0.3, 0.4], 60.0), np.zeros(N))
    assert states.names[-1] == "ap"
    assert [name[:3] for name in states.names[:2]] == ["sp(", "sp("]
    angles = [float(name[3:-1]) for name in states.names[:2]]
    assert angles == pytest.approx([-22, 22], abs=3)
    assert len(set(states.names)) == 3


def test_kept_cuts_give_the_same_states_anywhere():
    angle = draw([-60, 60, 180], [0.2, 0.2, 0.6], 20.0)
    states = find_states(angle, np.zeros(N))
    again = TorsionStates.from_tree(states.to_tree())
    turns = 2 * np.pi * np.random.default_rng(5).integers(-3, 4, N)
    np.testing.assert_array_equal(again.assign(angle + turns), states.assign(angle))
    degrees = np.array([-60.0, 60.0, 179.0, -179.0])
    assert [states.names[k] for k in again.assign(np.radians(degrees))] == ["-sc", "+sc", "ap", "ap"]


def test_states_do_not_depend_on_where_the_circle_is_cut():
    """A turn by whole degrees turns edges and minima, and nothing else."""
    angle = np.radians(np.degrees(draw([-60, 60, 180], [0.2, 0.2, 0.6], 20.0)) + 0.25)
    first = find_states(angle, np.zeros(N))
    for turn in (37, 150, -95):
        turned = find_states(angle + np.radians(turn), np.zeros(N))
        for mine, yours in ((first.edges, turned.edges), (first.minima, turned.minima)):
            assert sorted((mine + turn) % 360) == pytest.approx(sorted(yours % 360))


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        find_states(np.zeros(3), np.zeros(4))
