"""The check at the end of prepare: states that the coordinates reach, and those that they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boltzgen.chemistry.build import build
from boltzgen.chemistry.read import read_input
from boltzgen.constants import thermal_energy
from boltzgen.coordinates.fitting import fit_coordinates
from boltzgen.coordinates.quality import Quality
from boltzgen.coordinates.zmatrix import build_zmatrix
from boltzgen.energy import from_openmm
from boltzgen.target import Target
from boltzgen.workflow.coordinates_check import CoordinatesCheck, States, check_coordinates, find_states

KT = thermal_energy(300.0)
GOOD = Quality(1000, 1e-15, 1e-13, 1.0, 0.4, 9.0, 7.0)


def prepared(smiles):
    chemical = build(read_input(smiles=smiles))
    molecule, potential = chemical.molecule, from_openmm(chemical.system)
    zmatrix = build_zmatrix(molecule.atomic_numbers, molecule.bonds, molecule.rigid_bonds, chemical.positions)
    fitted = fit_coordinates(
        zmatrix, chemical.positions, lambda x: potential.batch_last(x, 200.0) / KT, molecule.planar_atoms
    )
    return Target(molecule, potential, fitted.coordinates, 300.0), potential, fitted.conformers


@pytest.mark.parametrize("smiles", ["CCCC", "CC(N)=O", "NCCO", "CCNC(N)=[NH2+]", "CC=C=C", "CN(C)CCO"])
def test_molecules_without_rings_have_all_states_inside(smiles):
    states = find_states(*prepared(smiles), seed=0)
    assert states.n >= 1
    assert states.n_inside == states.n
    assert states.lowest_outside is None
    assert states.warning is None


def test_an_inverted_nitrogen_is_outside_and_the_warning_says_how_far_up():
    check = check_coordinates(*prepared("CN1CCCCC1"), seed=0)
    states = check.states
    assert 0 < states.n_inside < states.n
    assert 0.0 < states.lowest_outside < 30.0  # kJ/mol: the axial methyl
    assert any(f"{states.lowest_outside:.1f} kJ/mol above" in warning for warning in check.warnings)
    assert check.summary()["in_bounds"]
    assert check.n_energies > check.quality.n_samples


def test_the_lowest_state_outside_is_called_the_lowest_of_all():
    warning = States(n=3, n_inside=1, lowest_outside=0.0, n_energies=1).warning
    assert "2 of 3" in warning
    assert warning.endswith("is the lowest of all")


def test_a_search_that_finds_nothing_is_said(monkeypatch):
    found = prepared("CCO")
    empty = lambda *_: np.empty((0, 9, 3))  # noqa: E731  # a stand-in of one line
    monkeypatch.setattr("boltzgen.chemistry.conformers.ConformerSearch.embed", empty)
    states = find_states(*found, seed=0)
    assert (states.n, states.n_inside, states.lowest_outside) == (0, 0, None)
    assert "finds no conformer" in states.warning


def test_each_fault_is_a_warning():
    states = States(n=1, n_inside=1, lowest_outside=None, n_energies=1)
    assert CoordinatesCheck(GOOD, states).warnings == []
    bad = CoordinatesCheck(replace(GOOD, round_trip=float("nan"), log_det=1e-3, finite=0.0), states)
    assert len(bad.warnings) == 3
    assert not bad.summary()["in_bounds"]
