"""The judge of coordinates: right ones pass with the figures that theory gives, each kind of fault is caught."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fitted_molecules import THERMAL_ENERGY, case

from boltzgen.coordinates.atlas import Atlas
from boltzgen.coordinates.quality import judge


class Altered:
    """Coordinates with one thing wrong."""

    def __init__(self, coordinates, log_det=0.0, shift=0.0):
        self._coordinates, self._log_det, self._shift = coordinates, log_det, shift

    def __getattr__(self, name):
        return getattr(self._coordinates, name)

    def to_cartesian(self, label, torsions, stiff):
        x, log_det = self._coordinates.to_cartesian(label, torsions, stiff)
        return x, log_det + self._log_det

    def from_cartesian(self, x, label):
        torsions, stiff, log_det = self._coordinates.from_cartesian(x, label)
        return torsions, stiff + self._shift, log_det


@pytest.fixture(scope="module")
def butane():
    return case("CCCC")


def energy(found, x):
    return found.potential.batch_last(x) / THERMAL_ENERGY


def conformer_at_the_origin(coordinates):
    zero = torch.zeros(1, coordinates.n_torsions).double(), torch.zeros(1, coordinates.n_stiff).double()
    return coordinates.to_cartesian(*zero)[0].permute(2, 0, 1).numpy()


def test_a_harmonic_molecule_has_no_excess_and_the_harmonic_spread(butane):
    coordinates = butane.coordinates

    def harmonic(x):
        _, stiff, log_det = coordinates.from_cartesian(x)
        return 0.5 * stiff.square().sum(1) + log_det

    quality = judge(Atlas([coordinates]), harmonic, conformer_at_the_origin(coordinates), n_samples=4000)
    assert quality.faults == []
    assert quality.finite == 1.0
    # The standard error of a median is 1.25 σ/√n; four of them, with σ² = n_stiff/2, by degree of freedom.
    n_dof = coordinates.n_torsions + coordinates.n_stiff
    assert abs(quality.excess) < 4.0 * 1.25 * math.sqrt(coordinates.n_stiff / 2.0 / 4000.0) / n_dof
    assert quality.spread == pytest.approx(quality.harmonic_spread, rel=0.1)  # its error is 2.5 % at 4,000 samples
    # The normal limit of ½χ², whose skewness still counts 1 % at 33 degrees of freedom.
    assert quality.harmonic_spread == pytest.approx(1.349 * math.sqrt(coordinates.n_stiff / 2.0), rel=0.02)


def test_a_wider_base_than_the_energy_asks_for_shows_as_excess(butane):
    coordinates = butane.coordinates

    def narrow(x):
        _, stiff, log_det = coordinates.from_cartesian(x)
        return stiff.square().sum(1) + log_det

    quality = judge(Atlas([coordinates]), narrow, conformer_at_the_origin(coordinates))
    n_dof = coordinates.n_torsions + coordinates.n_stiff
    assert quality.excess == pytest.approx(0.5 * coordinates.n_stiff / n_dof, rel=0.05)
    assert quality.spread > 1.8 * quality.harmonic_spread


@pytest.mark.parametrize("smiles", ["O", "N#N", "CC(C)(C)O", "CC#N", "C1CCCCC1"])
def test_fitted_coordinates_are_in_bounds(smiles):
    found = case(smiles)
    quality = judge(found.fitted.coordinates, lambda x: energy(found, x), found.fitted.conformers, n_samples=200)
    assert quality.faults == []
    assert quality.round_trip < 1e-12
    assert quality.log_det < 1e-11


def test_a_wrong_volume_element_is_caught(butane):
    quality = judge(
        Altered(butane.fitted.coordinates, log_det=1e-6),
        lambda x: energy(butane, x),
        butane.fitted.conformers,
        n_samples=20,
    )
    assert quality.log_det == pytest.approx(1e-6, rel=1e-3)
    assert len(quality.faults) == 1
    assert "volume element" in quality.faults[0]


@pytest.mark.parametrize("shift", [1e-4, math.nan])
def test_coordinates_that_do_not_lead_back_are_caught(butane, shift):
    quality = judge(
        Altered(butane.fitted.coordinates, shift=shift),
        lambda x: energy(butane, x),
        butane.fitted.conformers,
        n_samples=20,
    )
    assert any("lead back" in fault for fault in quality.faults)


def test_energies_that_are_no_numbers_are_counted_and_none_at_all_is_a_fault(butane):
    conformers, calls = butane.fitted.conformers, []

    def failing(x, every):
        u = energy(butane, x)
        calls.append(len(u))
        u[::every] = math.inf if len(calls) % 2 else u[0]
        return u

    some = judge(butane.fitted.coordinates, lambda x: failing(x, 4), conformers, n_samples=200)
    assert some.finite == 0.75
    assert some.faults == []
    none = judge(butane.fitted.coordinates, lambda x: failing(x, 1), conformers, n_samples=200)
    assert none.finite == 0.0
    assert np.isnan(none.excess)
    assert any("finite energy" in fault for fault in none.faults)
