"""Torsions: sign and range, and basins that tile the torus."""

from __future__ import annotations

import mdtraj
import numpy as np
import pytest

from boltzgen.analysis.torsions import (
    BASINS,
    assign_basins,
    dihedral,
    is_positive_phi,
    ramachandran_pairs,
)


def test_dihedral_has_the_sign_of_mdtraj():
    rng = np.random.default_rng(1)
    positions = rng.normal(size=(500, 6, 3)).astype(np.float32)
    atoms = (4, 0, 5, 2)
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(6):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    expected = mdtraj.compute_dihedrals(mdtraj.Trajectory(positions, topology), [atoms])[:, 0]
    difference = np.angle(np.exp(1j * (dihedral(positions, atoms) - expected)))
    assert np.abs(difference).max() < 1e-4  # mdtraj works in float32


def test_dihedral_of_known_angles_in_a_half_open_range(ensemble):
    np.testing.assert_allclose(dihedral(ensemble.positions, (0, 1, 2, 3)), ensemble.phi, atol=1e-12)
    flat = np.array([[[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, -1, z]] for z in (0.0, -0.0, 1e-9, -1e-9)])
    assert dihedral(flat, (0, 1, 2, 3)).tolist()[:2] == [np.pi, np.pi]
    assert np.abs(dihedral(flat, (0, 1, 2, 3))).min() > 3.14


def test_basins_hold_their_minima():
    minima = {
        "alpha_R": (-70, -30),
        "beta": (-150, 155),
        "PII": (-70, 150),
        "alpha_L": (55, 40),
        "C7ax": (70, -50),
    }
    for name, (phi, psi) in minima.items():
        assert BASINS[assign_basins(np.radians(phi), np.radians(psi))] == name
    assert BASINS[assign_basins(np.radians(-80), np.radians(80))] == "PII"  # C7eq
    assert BASINS[assign_basins(np.radians(175), np.radians(-175))] == "beta"  # β across both borders


def test_basins_tile_the_torus_with_the_areas_of_their_rectangles():
    # Midpoints of 1-degree cells: each basin must own exactly the cells of its rectangle.
    degrees = np.arange(-180, 180) + 0.5
    labels = assign_basins(*np.meshgrid(np.radians(degrees), np.radians(degrees), indexing="ij"))
    cells = dict(zip(BASINS, np.bincount(labels.ravel(), minlength=5).tolist(), strict=True))
    assert cells == {
        "alpha_R": 240 * 170,
        "beta": 150 * 190,
        "PII": 90 * 190,
        "alpha_L": 120 * 120,
        "C7ax": 120 * 240,
    }
    assert sum(cells.values()) == 360 * 360


def test_labels_do_not_depend_on_the_period():
    rng = np.random.default_rng(2)
    phi, psi = rng.uniform(-np.pi, np.pi, (2, 5000))
    turned = [angle + 2 * np.pi * rng.integers(-2, 3, 5000) for angle in (phi, psi)]
    np.testing.assert_array_equal(assign_basins(phi, psi), assign_basins(*turned))
    np.testing.assert_array_equal(is_positive_phi(phi), phi > 0)
    np.testing.assert_array_equal(is_positive_phi(turned[0]), phi > 0)
    assert not is_positive_phi([0.0, np.pi, -np.pi]).any()


def test_only_residues_with_both_torsions_are_paired():
    torsions = {
        "omega:ALA2": (0, 1, 2, 3),
        "psi:GLY3": (5, 6, 7, 8),
        "phi:ALA2": (1, 2, 3, 4),
        "phi:GLY3": (4, 5, 6, 7),
        "psi:ALA2": (2, 3, 4, 5),
        "phi:NHE4": (6, 7, 8, 9),
    }
    assert ramachandran_pairs(torsions) == [
        ("ALA2", (1, 2, 3, 4), (2, 3, 4, 5)),
        ("GLY3", (4, 5, 6, 7), (5, 6, 7, 8)),
    ]


@pytest.mark.parametrize("n", [0, 1])
def test_small_batches_keep_their_shape(n):
    assert dihedral(np.random.default_rng(3).normal(size=(n, 4, 3)), (0, 1, 2, 3)).shape == (n,)
