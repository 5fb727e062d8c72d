"""The figures of torsions: Ramachandran planes and profiles of the free energy. Each returns a matplotlib Figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from boltzgen.analysis.comparison import ResidueReference
from boltzgen.analysis.plot_style import RAW_COLOR, REFERENCE_COLOR, REWEIGHTED_COLOR, style
from boltzgen.analysis.states import TorsionStates
from boltzgen.analysis.surfaces import ResidueAnalysis, TorsionAnalysis
from boltzgen.analysis.torsions import BASINS, assign_basins
from boltzgen.statistics.free_energy import Profile

MAX_FREE_ENERGY = 8.0
"""Surfaces are drawn up to this free energy, in kT; what lies above has the last colour."""

PROFILE_CEILING = 15.0
"""Highest free energy on a profile, kT; a few stray samples of the flow can lie far above."""

SURFACE_COLORS = "YlGnBu_r"

_OFF_SCALE = 1e3  # kT; stands for an infinite upper bound, so that its band leaves the frame

_BASIN_LABELS = {
    "alpha_R": (r"$\alpha_\mathrm{R}$", -162, -102),
    "beta": (r"$\beta$", -166, 68),
    "PII": (r"P$_\mathrm{II}$", -18, 68),
    "alpha_L": (r"$\alpha_\mathrm{L}$", 104, 104),
    "C7ax": (r"C$_7^\mathrm{ax}$", 100, -162),
}


def ramachandran_figure(residue: ResidueAnalysis, label: str, reference: ResidueReference | None = None) -> Figure:
    """Free energy over (φ, ψ), raw, reweighted and of a reference, on one colour scale; unvisited bins are white."""
    surfaces = {"flow samples": residue.surface_raw, "reweighted": residue.surface}
    if reference is not None:
        surfaces["replica exchange"] = reference.surface
    with style():
        figure = Figure(figsize=(0.8 + 3.3 * len(surfaces), 3.5), layout="compressed")
        panels = figure.subplots(1, len(surfaces), sharex=True, sharey=True)
        degrees = np.degrees(residue.edges)
        for axes, (name, surface) in zip(panels, surfaces.items(), strict=True):
            mesh = _draw_surface(axes, degrees, surface, f"{label}, {name}")
        panels[0].set_ylabel("ψ (degrees)")
        bar = figure.colorbar(mesh, ax=panels, extend="max", aspect=24, pad=0.02)
        bar.set_label("free energy (kT)")
        bar.outline.set_linewidth(0.6)
        return figure


def profile_figure(residue: ResidueAnalysis, label: str, reference: ResidueReference | None = None) -> Figure:
    """F(φ) and F(ψ) of one residue: raw line, reweighted line and that of a reference with their 95 % bands."""
    phi, psi = (reference.phi_profile, reference.psi_profile) if reference else (None, None)
    with style():
        figure = Figure(figsize=(7.4, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_profiles(left, residue.phi_raw, residue.phi_profile, phi)
        _draw_profiles(right, residue.psi_raw, residue.psi_profile, psi)
        _degree_axis(left, "φ (degrees)")
        _degree_axis(right, "ψ (degrees)")
        left.set_ylabel("free energy (kT)")
        shown = (residue.phi_raw, residue.phi_profile, residue.psi_raw, residue.psi_profile, phi, psi)
        left.set_ylim(0.0, _profile_limit(*shown))
        _legend_above(left, rows=1).set_in_layout(False)  # it reaches over both panels, at the height of the title
        right.set_title(label, loc="right")
        return figure


def torsion_figure(torsion: TorsionAnalysis, label: str, reference: Profile | None = None) -> Figure:
    """F of one torsion: raw line, reweighted line with its 95 % band, its states and the cuts between them."""
    with style():
        figure = Figure(figsize=(5.0, 3.0), layout="constrained")
        axes = figure.subplots()
        _draw_profiles(axes, torsion.raw, torsion.profile, reference)
        _draw_states(axes, torsion.states)
        _degree_axis(axes, f"{label} (degrees)")
        axes.set_ylabel("free energy (kT)")
        axes.set_ylim(0.0, _profile_limit(torsion.raw, torsion.profile, reference))
        _legend_above(axes, rows=1 if reference is None else 2)
        return figure


def _degree_axis(axes: Axes, label: str) -> None:
    axes.set_xlim(-180, 180)
    axes.xaxis.set_major_locator(MultipleLocator(90))
    axes.set_xlabel(label)


def _draw_surface(axes: Axes, degrees: NDArray[np.float64], surface: NDArray[np.float64], title: str) -> QuadMesh:
    mesh = axes.pcolormesh(
        degrees,
        degrees,
        np.ma.masked_invalid(surface).T,
        cmap=SURFACE_COLORS,
        vmin=0.0,
        vmax=MAX_FREE_ENERGY,
        rasterized=True,
    )
    _draw_basins(axes)
    axes.set_aspect("equal")
    axes.set_title(title)
    _degree_axis(axes, "φ (degrees)")
    axes.set_ylim(-180, 180)
    axes.yaxis.set_major_locator(MultipleLocator(90))
    axes.spines[:].set_visible(True)
    return mesh


def _draw_basins(axes: Axes) -> None:
    halo = [withStroke(linewidth=2.0, foreground="white")]
    grid = np.linspace(-180, 180, 721)
    basin = assign_basins(*np.meshgrid(np.radians(grid), np.radians(grid)))
    for index, name in enumerate(BASINS):
        inside = (basin == index).astype(float)
        axes.contour(grid, grid, inside, levels=[0.5], colors="#505050", linewidths=0.5)
        text, x, y = _BASIN_LABELS[name]
        axes.text(x, y, text, color="#101010", fontsize=8, ha="center", va="center", path_effects=halo)


def _draw_profiles(axes: Axes, raw: Profile, reweighted: Profile, reference: Profile | None) -> None:
    degrees = _closed(np.degrees(reweighted.centers), 360.0)
    axes.plot(degrees, _closed(_finite(raw.free_energy)), color=RAW_COLOR, label="flow samples")
    if reference is not None:
        _draw_banded(axes, reference, REFERENCE_COLOR, "replica exchange")
    _draw_banded(axes, reweighted, REWEIGHTED_COLOR, "reweighted")


def _draw_banded(axes: Axes, profile: Profile, color: str, label: str) -> None:
    degrees = _closed(np.degrees(profile.centers), 360.0)
    if profile.lower is not None and profile.upper is not None:
        label += ", 95 % band"
        axes.fill_between(
            degrees,
            _closed(_finite(profile.lower)),
            _closed(np.where(np.isfinite(profile.lower), np.minimum(profile.upper, _OFF_SCALE), np.nan)),
            color=color,
            alpha=0.25,
            linewidth=0,
        )
    axes.plot(degrees, _closed(_finite(profile.free_energy)), color=color, label=label)


def _legend_above(axes: Axes, rows: int) -> Legend:
    n = len(axes.get_legend_handles_labels()[0])
    return axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=-(-n // rows), borderaxespad=0.2)


def _draw_states(axes: Axes, states: TorsionStates) -> None:
    """Cuts as dotted lines, and the name of each state above the middle of its range, or of its longer part."""
    starts, ends = states.edges, np.append(states.edges[1:], states.edges[:1])
    if len(states.names) == 1:
        starts, ends = np.array([-180.0]), np.array([180.0])
    else:
        for edge in starts:
            axes.axvline(edge, color="#505050", linewidth=0.8, linestyle=(0, (1, 2)))
    halo = [withStroke(linewidth=2.0, foreground="white")]
    for name, start, end in zip(states.names, starts, ends, strict=True):
        parts = [(start, end)] if start < end else [(start, 180.0), (-180.0, end)]
        middle = sum(max(parts, key=lambda part: part[1] - part[0])) / 2.0
        axes.annotate(
            name,
            (middle, 1.0),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            fontsize=8,
            path_effects=halo,
        )


def _profile_limit(*profiles: Profile | None) -> float:
    highest = max(np.nanmax(_finite(profile.free_energy)) for profile in profiles if profile is not None)
    return float(min(np.ceil(highest + 1.0), PROFILE_CEILING))


def _closed(values: NDArray[np.float64], period: float = 0.0) -> NDArray[np.float64]:
    """One point more at each end of a periodic axis, so that lines reach the frame."""
    return np.concatenate([[values[-1] - period], values, [values[0] + period]])


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN in place of infinities, so that a line has a gap there."""
    return np.where(np.isfinite(values), values, np.nan)
