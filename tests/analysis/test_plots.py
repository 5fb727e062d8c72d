"""Figures: that the pixels say what the numbers say."""

from __future__ import annotations

import io

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from boltzgen.analysis import plot_style, plots, torsion_plots
from boltzgen.analysis.comparison import ResidueReference, chain_profile
from boltzgen.analysis.states import find_states
from boltzgen.analysis.surfaces import TorsionAnalysis, analyze_ensemble
from boltzgen.statistics.free_energy import free_energy_profile
from boltzgen.statistics.growth import ess_growth
from boltzgen.statistics.weights import normalized_weights


@pytest.fixture(scope="module")
def analysis(ensemble):
    return analyze_ensemble(
        ensemble.positions,
        ensemble.log_w,
        ensemble.reduced_potential,
        ensemble.molecule,
        bins=36,
        n_bootstrap=50,
    )


def pixel(rgb, axes, x, y):
    """Colour at data coordinates of a rendered figure."""
    column, row = axes.transData.transform((x, y))
    return rgb[rgb.shape[0] - 1 - round(row), round(column)] / 255.0


def share(rgb, color):
    """Share of the pixels that have this colour, to within three levels of 255."""
    return np.mean(np.abs(rgb.astype(int) - np.round(255 * np.array(to_rgb(color)))).max(axis=-1) <= 3)


def test_ramachandran_is_dark_in_the_minima_white_where_empty_and_not_transposed(analysis):
    figure = torsion_plots.ramachandran_figure(analysis.residues["ALA2"], "ALA2")
    _, rgb = plot_style.render(figure)
    for axes in figure.axes[:2]:
        for phi, psi in ((-65, -35), (-65, 145)):
            assert pixel(rgb, axes, phi, psi).sum() < 1.2, (phi, psi)
        assert pixel(rgb, axes, 145, -95).tolist() == [1, 1, 1]
        assert pixel(rgb, axes, 135, -25).tolist() == [1, 1, 1]
    raw, reweighted = figure.axes[:2]
    assert pixel(rgb, reweighted, 72, -52).sum() > pixel(rgb, raw, 72, -52).sum() + 0.3


def test_the_name_of_a_state_stands_over_its_well_and_a_line_on_each_cut():
    angle = np.random.default_rng(0).vonmises(np.radians([-60, 60, 180])[np.arange(9000) % 3], 20.0)
    states = find_states(angle, np.zeros(9000))
    profile = free_energy_profile(angle, np.zeros(9000), np.linspace(-np.pi, np.pi, 37), np.random.default_rng(0))
    torsion = TorsionAnalysis(angle, states, states.assign(angle), profile, profile)
    axes = torsion_plots.torsion_figure(torsion, "C1-C2-C3-C4").axes[0]
    for text in axes.texts:
        assert states.names[states.assign(np.radians(text.xy[0]))] == text.get_text()
    assert [text.get_text() for text in axes.texts] == ["-sc", "+sc", "ap"]
    cuts = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2]
    assert cuts == states.edges.tolist()


def test_profiles_show_the_raw_line_the_reweighted_line_and_its_band(analysis):
    figure = torsion_plots.profile_figure(analysis.residues["ALA2"], "ALA2")
    _, rgb = plot_style.render(figure)
    assert share(rgb, plot_style.RAW_COLOR) > 1e-3
    assert share(rgb, plot_style.REWEIGHTED_COLOR) > 1e-3
    band = 0.75 * np.ones(3) + 0.25 * np.array(to_rgb(plot_style.REWEIGHTED_COLOR))
    assert share(rgb, band) > 1e-4


def test_no_band_is_drawn_or_named_where_errors_are_undetermined(ensemble):
    few = slice(100, 200)
    small = analyze_ensemble(
        ensemble.positions[few], ensemble.log_w[few], ensemble.reduced_potential[few], ensemble.molecule
    )
    figure = torsion_plots.profile_figure(small.residues["ALA2"], "ALA2")
    assert not any(axes.collections for axes in figure.axes)
    assert "band" not in figure.axes[0].get_legend().get_texts()[1].get_text()
    plot_style.render(figure)


def test_a_reference_is_drawn_beside_both(analysis, ensemble):
    rng = np.random.default_rng(0)
    angles = {"phi:ALA2": ensemble.phi, "psi:ALA2": ensemble.psi}
    chosen = rng.choice(len(ensemble.phi), (8, 250), p=normalized_weights(ensemble.log_w))
    kept = np.ones(chosen.shape, dtype=bool)
    profiles = [chain_profile(angle[chosen], kept, 36) for angle in angles.values()]
    residue = analysis.residues["ALA2"]
    for profile, own in zip(profiles, (residue.phi_profile, residue.psi_profile), strict=True):
        assert np.sum(profile.density) * 2 * np.pi / 36 == pytest.approx(1.0)
        # Both are of one density: 2000 frames against 20,000 weighted samples, in the bins of many frames.
        full = own.density > 0.2
        assert np.abs(profile.density[full] / own.density[full] - 1.0).max() < 0.5
        assert np.all(profile.lower <= profile.free_energy)
    reference = ResidueReference(residue.surface, *profiles)
    _, rgb = plot_style.render(torsion_plots.profile_figure(residue, "ALA2", reference))
    assert share(rgb, plot_style.REFERENCE_COLOR) > 1e-3
    figure = torsion_plots.ramachandran_figure(residue, "ALA2", reference)
    assert sum(axes.get_title().endswith("replica exchange") for axes in figure.axes) == 1
    plot_style.render(figure)


def test_log_weights_mark_log_z_where_it_is(analysis):
    figure = plots.log_weight_figure(analysis.log_weight, analysis.weights)
    axes = figure.axes[0]
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_label() == "log Z"]
    assert marks == [analysis.weights.log_z]
    assert axes.get_yscale() == "log"
    _, rgb = plot_style.render(figure)
    assert share(rgb, plot_style.MARK_COLOR) > 1e-4


def test_every_figure_renders_and_its_png_holds_the_same_pixels(analysis):
    figures = plots.analysis_figures(analysis)
    assert set(figures) == {"ramachandran_ALA2", "profiles_ALA2", "energy", "log_weight"}
    for figure in figures.values():
        png, rgb = plot_style.render(figure)
        assert rgb.dtype == np.uint8
        assert rgb.shape[2] == 3
        decoded = matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]
        np.testing.assert_array_equal(np.round(255 * decoded).astype(np.uint8), rgb)
        assert rgb.std() > 10


def test_training_curve_skips_what_was_not_measured():
    nan = np.nan
    figure = plots.training_figure(
        {
            "step": [0, 1, 2, 3],
            "energies": [512, 1024, 1536, 2048],
            "elbo": [9.0, 5.0, 4.0, 3.5],
            "ess_fraction": [nan, 0.1, nan, 0.4],
            "elbo_gap": [nan, nan, nan, nan],
        }
    )
    lines = {axes.get_ylabel(): axes.lines[0].get_xydata().tolist() for axes in figure.axes}
    assert set(lines) == {"ELBO (nats)", "batch ESS (%)"}
    assert lines["batch ESS (%)"] == [[1024, 10], [2048, 40]]
    _, rgb = plot_style.render(figure)
    assert share(rgb, plot_style.REWEIGHTED_COLOR) > 1e-4


@pytest.mark.parametrize("columns", [{"elbo": [1.0]}, {"energies": [1], "elbo": [np.nan]}, {"energies": [1]}])
def test_training_curve_without_data_is_refused(columns):
    with pytest.raises(ValueError, match="training columns"):
        plots.training_figure(columns)


def test_plotting_leaves_global_settings_alone(analysis):
    before = dict(matplotlib.rcParams)
    plots.energy_figure(analysis.energy)
    assert dict(matplotlib.rcParams) == before


def test_a_heavy_tail_sags_in_the_plot_of_the_effective_share():
    rng = np.random.default_rng(0)
    heavy, tame = (
        plots.ess_figure(ess_growth(log_w), 0.5).axes[0].lines[0].get_ydata()
        for log_w in (-0.8 * np.log(rng.random(20_000)), 0.3 * rng.normal(size=20_000))
    )
    assert heavy[-1] < 0.6 * heavy[0]
    assert tame[-1] > 0.95 * tame[0]
    _, rgb = plot_style.render(plots.ess_figure(ess_growth(np.zeros(1000)), 0.0))
    assert share(rgb, plot_style.REWEIGHTED_COLOR) > 0.001
