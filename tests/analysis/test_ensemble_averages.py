"""Averages of ensembles: sizes by hand, ends of molecules, energies against the weights."""

from __future__ import annotations

import numpy as np
import pytest

from boltzgen.analysis.averages import ensemble_averages, farthest_atoms, radius_of_gyration
from boltzgen.constants import thermal_energy


def test_radius_of_gyration_by_hand_weighted_by_masses():
    x = np.array([[[0.0, 0.0, 0.0], [0.4, 0.0, 0.0]]]) + 7.0
    assert radius_of_gyration(x, [1.0, 1.0]) == pytest.approx([0.2])
    assert radius_of_gyration(x, [3.0, 1.0]) == pytest.approx([0.4 * np.sqrt(3 / 16)])


def test_the_ends_are_heavy_and_as_many_bonds_apart_as_there_are(dipeptide):
    molecule = dipeptide.molecule
    ends = farthest_atoms(molecule)
    assert [(molecule.residue_label(a), molecule.atom_names[a]) for a in ends] == [("ACE1", "CH3"), ("NME3", "CH3")]


def test_averages_are_weighted_and_have_errors_and_a_bimodal_torsion_has_no_direction(ensemble):
    averages = ensemble_averages(
        ensemble.positions, ensemble.log_w, ensemble.reduced_potential, ensemble.molecule, 300.0, n_bootstrap=50
    )
    weights = np.exp(ensemble.log_w - ensemble.log_w.max())
    kept = weights > 0
    mean = np.sum(weights[kept] * ensemble.reduced_potential[kept]) / weights.sum()
    energy = averages["potential energy"]
    assert energy.estimate.value == pytest.approx(mean * thermal_energy(300.0))
    assert 0 < energy.estimate.stderr < 0.1
    assert "direction of phi:ALA2" in averages
    assert "direction of psi:ALA2" not in averages
    assert averages["direction of phi:ALA2"].estimate.value == pytest.approx(
        np.degrees(np.angle(np.sum(weights * np.exp(1j * ensemble.phi)))), abs=1e-6
    )
