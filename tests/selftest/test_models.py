"""Models are bijections with the volume that they claim, and what is wrong with an answer is seen."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from boltzgen.coordinates.quality import base_samples
from boltzgen.errors import Interrupted
from boltzgen.models.particles import LennardJonesPair, SquareWellPair
from boltzgen.models.rings import XYRing
from boltzgen.models.wells import Mixture, MuellerBrown, Wells
from boltzgen.selftest.check import attempt_case, run_case, square_log_det
from boltzgen.selftest.modelled import double_well
from boltzgen.training.challengers import can_propose

MODELS = [XYRing(5, 1.0), Wells(2, 1.0, -6.0, 1.0), MuellerBrown(15.0), Mixture(), LennardJonesPair(1.0)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_coordinates_lead_back_and_have_the_volume_of_their_derivatives(model):
    coordinates = model.target().coordinates
    label, torsions, stiff = base_samples(coordinates, 50, 3)
    x, log_det = coordinates.to_cartesian(label, torsions, stiff)
    assert tuple(x.shape) == (*coordinates.shape, 50)
    back = coordinates.from_cartesian(x)
    # half a turn from an opened circle's end the tangent is 1e2, and digits are lost by its square
    assert torch.allclose(back[0], torsions, atol=1e-9)
    assert torch.allclose(back[1], stiff, atol=1e-9)
    assert torch.allclose(back[2], log_det, atol=1e-9)
    for k in range(5):
        expected = square_log_det(coordinates, label[[k]], torsions[[k]], stiff[[k]])
        assert log_det[k].item() == pytest.approx(expected, abs=1e-9)


def test_a_model_at_another_temperature_has_a_scaled_energy_and_no_challengers():
    target = Wells(1, 1.0, -6.0, 1.0).target()
    x = torch.tensor([[[1.0], [0.5]]], dtype=torch.float64)
    assert target.reduced_potential(x, 600.0).item() == pytest.approx(0.5 * target.reduced_potential(x).item())
    assert not can_propose(target)


def test_an_energy_that_is_infinite_stays_so():
    target = SquareWellPair(1.0).target()
    u = target.reduced_potential(torch.tensor([[[0.5], [0.0], [0.0]]]))
    assert u.item() == math.inf


@pytest.fixture(scope="module")
def case():
    """A training of seconds."""
    return replace(double_well(20_000), least_ess=0.05)


def test_right_answers_pass_and_wrong_ones_are_told(case):
    result = run_case(case, 5000, 0, 1, lambda progress: None)
    assert all(row.is_met for row in result.rows), [row for row in result.rows if not row.is_met]
    assert json.dumps([asdict(row) for row in result.rows])  # no number of NumPy's own
    wrong = replace(
        case,
        log_z=case.log_z + 0.3,
        means=tuple(replace(mean, exact=mean.exact - 0.1) for mean in case.means if mean.name.startswith("P")),
        energy=lambda x: case.energy(x) + 1e-5,
        least_ess=1.0,
    )
    failed = {row.name for row in run_case(wrong, 5000, 0, 1, lambda progress: None).rows if not row.is_met}
    assert {"ln Z", "u again", "effective share"} <= failed
    assert any(name.startswith("P(") for name in failed)
    assert "ln q again" not in failed


def test_a_determined_answer_needs_an_error_bar(case):
    """Too few samples say nothing: that is no pass."""
    rows = run_case(case, 50, 0, 1, lambda progress: None).rows
    log_z = next(row for row in rows if row.name == "ln Z")
    assert log_z.stderr is None
    assert not log_z.is_met
    assert np.isfinite(log_z.value)


def test_an_error_in_a_case_is_a_failed_check(case):
    """Not an end of the other cases; but a stop that was asked for is one."""

    def broken(x):
        raise KeyError("no such thing")

    [row] = attempt_case("that one", lambda: broken(0), 100, 0, 1, lambda progress: None).rows
    assert (row.case, row.is_met) == ("that one", False)
    assert "KeyError" in row.error
    assert "test_models.py" in row.error
    result = attempt_case("that one", lambda: replace(case, energy=broken), 100, 0, 1, lambda progress: None)
    assert not any(row.is_met for row in result.rows)

    def stopped(progress):
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        attempt_case("that one", lambda: case, 100, 0, 1, stopped)
