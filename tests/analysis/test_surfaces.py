"""The analysis of a synthetic ensemble whose populations are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boltzgen.analysis.states import TorsionStates
from boltzgen.analysis.surfaces import analyze_ensemble, energy_histogram, log_weight_histogram
from boltzgen.analysis.torsions import BASINS, assign_basins


@pytest.fixture(scope="module")
def analysis(ensemble):
    return analyze_ensemble(ensemble.positions, ensemble.log_w, ensemble.reduced_potential, ensemble.molecule, bins=36)


def exact_populations(ensemble) -> dict[str, float]:
    degrees = np.radians(np.arange(-180, 180) + 0.5)
    phi, psi = (a.ravel() for a in np.meshgrid(degrees, degrees))
    share = ensemble.target_density(phi, psi)
    share /= share.sum()
    exact = dict(zip(BASINS, np.bincount(assign_basins(phi, psi), share), strict=True))
    return {f"ALA2:{k}": v for k, v in exact.items()} | {"ALA2:phi>0": share[phi > 0].sum()}


def test_populations_agree_with_quadrature_within_their_errors(analysis, ensemble):
    exact = exact_populations(ensemble)
    assert list(analysis.populations) == list(exact)
    for state, estimate in analysis.populations.items():
        assert abs(estimate.value - exact[state]) < 4 * estimate.stderr, state
        assert estimate.stderr < 0.01


def test_surfaces_have_phi_first_and_only_the_reweighted_one_follows_the_target(analysis, ensemble):
    residue = analysis.residues["ALA2"]
    centers = 0.5 * (residue.edges[1:] + residue.edges[:-1])
    phi, psi = (a.ravel() for a in np.meshgrid(centers, centers, indexing="ij"))
    exact = -np.log(ensemble.target_density(phi, psi)).reshape(36, 36)
    exact -= exact.min()
    deep = exact < 3.0
    # At least 25 samples a bin, 20 % each, and the curvature of the density over a bin of 10 degrees.
    assert np.abs(residue.surface - exact)[deep].max() < 0.8
    assert np.abs(residue.surface - exact)[deep].mean() < 0.15
    c7ax = np.searchsorted(residue.edges, np.radians([70, -50])) - 1
    assert residue.surface[tuple(c7ax)] - residue.surface_raw[tuple(c7ax)] > 1.5
    assert residue.surface.min() == residue.surface_raw.min() == 0.0
    assert np.isinf(residue.surface).any()


def test_a_molecule_without_residues_has_profiles_and_states(ensemble):
    """The same frames, φ under the name of a ligand's torsion: its states are integrals of the exact density."""
    molecule = replace(ensemble.molecule, torsions={"tor:C1-N1-C2-C3": ensemble.molecule.torsions["phi:ALA2"]})
    analysis = analyze_ensemble(ensemble.positions, ensemble.log_w, ensemble.reduced_potential, molecule, bins=36)
    assert not analysis.residues
    torsion = analysis.torsions["C1-N1-C2-C3"]
    assert torsion.states.minima == pytest.approx([-150, -70, 56], abs=10)  # tops of the mixture, flat over 10 degrees
    degrees = np.radians(np.arange(-180, 180) + 0.5)
    phi, psi = (a.ravel() for a in np.meshgrid(degrees, degrees))
    share = ensemble.target_density(phi, psi)
    exact = np.bincount(torsion.states.assign(phi), share / share.sum())
    assert list(analysis.populations) == [f"C1-N1-C2-C3:{name}" for name in torsion.states.names]
    for estimate, expected in zip(analysis.populations.values(), exact, strict=True):
        assert abs(estimate.value - expected) < 4 * estimate.stderr
    assert torsion.profile.free_energy.min() == 0.0
    stored = analysis.to_tree()["torsions"]["C1-N1-C2-C3"]
    assert set(stored) == {"angle", "states", "state", "raw", "profile"}
    np.testing.assert_array_equal(TorsionStates.from_tree(stored["states"]).assign(torsion.angle), torsion.state)


def test_failed_energies_are_counted_and_kept_out_of_the_averages(analysis):
    assert analysis.weights.n_failed == 3
    assert analysis.weights.n_samples == 20_000
    assert np.isfinite(analysis.energy.edges).all()
    assert np.isfinite(analysis.log_weight.edges).all()


def test_histograms_are_normalised_over_all_samples(analysis):
    for histogram, raw_least in ((analysis.energy, 0.979), (analysis.log_weight, 1 - 3 / 20_000)):
        width = np.diff(histogram.edges)
        assert raw_least - 1e-9 <= (histogram.raw * width).sum() <= 1.0
        assert 0.9998 <= (histogram.reweighted * width).sum() <= 1.0 + 1e-9


def test_clashes_do_not_squeeze_the_histograms():
    rng = np.random.default_rng(5)
    energies = rng.normal(size=10_000)
    energies[:100] = 1e9
    log_w = -energies
    assert energy_histogram(energies, log_w).edges[-1] < 10
    edges = log_weight_histogram(log_w, 0.5).edges
    assert edges[0] == pytest.approx(-29.5)
    assert edges[-1] == pytest.approx(log_w.max())


def test_equal_energies_still_give_a_histogram():
    histogram = energy_histogram(np.full(100, 5.0), np.zeros(100))
    assert (histogram.raw * np.diff(histogram.edges)).sum() == pytest.approx(1.0)


def test_tree_holds_only_what_can_be_stored(analysis, ensemble):
    def leaves(tree):
        for key, value in tree.items():
            assert isinstance(key, str)
            if isinstance(value, dict):
                yield from leaves(value)
            else:
                yield value

    few = slice(100, 200)  # too few for error bars, so that undetermined values occur
    small = analyze_ensemble(
        ensemble.positions[few], ensemble.log_w[few], ensemble.reduced_potential[few], ensemble.molecule
    )
    assert "stderr" not in small.to_tree()["populations"]["ALA2:beta"]
    assert "lower" not in small.to_tree()["residues"]["ALA2"]["phi_profile"]
    for tree in (analysis.to_tree(), small.to_tree()):
        for leaf in leaves(tree):
            assert isinstance(leaf, np.ndarray | str | int | float) or (
                isinstance(leaf, list) and all(isinstance(item, str) for item in leaf)
            )
    assert analysis.to_tree()["residues"]["ALA2"]["surface"].shape == (36, 36)


def test_same_seed_same_errors(analysis, ensemble):
    again = analyze_ensemble(ensemble.positions, ensemble.log_w, ensemble.reduced_potential, ensemble.molecule, bins=36)
    assert again.populations == analysis.populations


def test_lengths_that_differ_are_refused(ensemble):
    with pytest.raises(ValueError, match="must be equal"):
        analyze_ensemble(ensemble.positions[:10], ensemble.log_w, ensemble.reduced_potential, ensemble.molecule)
