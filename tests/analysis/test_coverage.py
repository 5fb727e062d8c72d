"""Lost states: a missing combination where every torsion alone looks right, and what the coordinates do not reach."""

from __future__ import annotations

import numpy as np
import pytest

from boltzgen.analysis.coverage import OUTSIDE, Part, find_lost_states
from boltzgen.simulation import Simulation

LADDERS, FRAMES = 8, 500
NAMES = (("a:ap", "a:sc"), ("b:ap", "b:sc"))


def reference(seed=0):
    """Two torsions of two states each, independent and equal; positions are the number of the joint state."""
    rng = np.random.default_rng(seed)
    states = rng.integers(0, 2, size=(2, LADDERS, FRAMES))
    joint = 2 * states[0] + states[1]
    shape = (LADDERS, FRAMES, 1)
    simulation = Simulation(
        temperatures=np.array([300.0]),
        positions=joint[..., None, None] * np.ones((1, 3)),
        energies=rng.normal(size=shape),
        torsions={},
        kept=np.ones(shape, dtype=bool),
        shapes=np.zeros(shape, dtype=np.int16),
        first_time=1.0,
        interval=1.0,
    )
    return simulation, states


def parts_of(states, drawn):
    return [Part(names, own, seen) for names, own, seen in zip(NAMES, drawn, states, strict=True)]


def weights(excess):
    """ln w of frames from the excess of each joint state, around log Z = 5."""
    values = 5.0 + np.asarray(excess, dtype=np.float64)
    return lambda positions: values[positions[:, 0, 0].astype(int)]


DRAWN = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])


def test_a_missing_combination_is_found_and_named_by_all_its_torsions():
    simulation, states = reference()
    found = find_lost_states(simulation, parts_of(states, DRAWN), weights([0, 0, 0, 9]), 5.0)
    (lost,) = found.lost
    assert lost.name == "a:sc, b:sc"
    assert lost.excess == pytest.approx(9.0)
    assert abs(lost.share.value - 0.25) < 4.0 * lost.share.stderr
    assert lost.flow == 0.25
    ladder, number = lost.frame
    assert (states[:, ladder, number] == 1).all()
    assert len(found.states) == 4
    assert found.joint_share == pytest.approx(1.0)


def test_just_below_the_threshold_nothing_is_lost():
    simulation, states = reference()
    assert find_lost_states(simulation, parts_of(states, DRAWN), weights([2.9] * 4), 5.0).lost == ()


def test_a_state_of_one_torsion_is_found_where_all_joint_states_are_rare():
    """A second torsion of 200 states leaves no joint state of 1 %."""
    simulation, states = reference()
    many = np.random.default_rng(1).integers(0, 200, size=(LADDERS, FRAMES))
    other = Part(tuple(map(str, range(200))), np.arange(4), many)
    first = Part(NAMES[0], DRAWN[0], states[0])
    found = find_lost_states(simulation, [first, other], weights([0, 0, 9, 9]), 5.0)
    assert found.states == ()
    assert [one.name for one in found.lost] == ["a:sc"]


def test_frames_that_the_coordinates_do_not_reach_are_lost_and_left_out_of_averages():
    simulation, states = reference()
    rng = np.random.default_rng(2)

    def log_weight(positions):
        return np.where(rng.random(len(positions)) < 0.05, np.inf, 5.0)

    found = find_lost_states(simulation, parts_of(states, DRAWN), log_weight, 5.0)
    assert [one.name for one in found.lost] == [OUTSIDE]
    assert found.outside == found.lost[0].share.value == pytest.approx(0.05, abs=0.02)  # 4 σ of 2000 frames
    assert found.eubo.value == 5.0
    assert found.forward_ess.value == pytest.approx(1.0)


def test_frames_of_another_configuration_are_passed_over():
    simulation, states = reference()
    simulation.kept[states[0] == 1] = False
    found = find_lost_states(simulation, parts_of(states, DRAWN), weights([0, 0, 9, 9]), 5.0)
    assert found.lost == ()
    assert [one.name for one in found.states] == ["a:ap, b:ap", "a:ap, b:sc"]


def test_a_molecule_without_states_is_looked_at_as_a_whole():
    simulation, _ = reference()
    for excess, n_lost in ((0.0, 0), (9.0, 1)):
        assert len(find_lost_states(simulation, [], weights([excess] * 4), 5.0).lost) == n_lost
