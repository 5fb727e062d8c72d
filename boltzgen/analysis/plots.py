"""The figures of an analysis. Each function returns a matplotlib Figure; :func:`render` makes pixels of it.

Raw samples are grey, reweighted ones blue, a reference is green (Okabe and Ito's palette for colour-blind readers).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import matplotlib.image
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from boltzgen.analysis.comparison import Comparison, ResidueReference
from boltzgen.analysis.states import TorsionStates
from boltzgen.analysis.surfaces import EnsembleAnalysis, Histogram, ResidueAnalysis, TorsionAnalysis
from boltzgen.analysis.torsions import BASINS, assign_basins
from boltzgen.statistics.free_energy import Profile
from boltzgen.statistics.weights import WeightSummary

MAX_FREE_ENERGY = 8.0
"""Surfaces are drawn up to this free energy, in kT; what lies above has the last colour."""

RAW_COLOR = "#8c8c8c"
REWEIGHTED_COLOR = "#0072B2"
REFERENCE_COLOR = "#009E73"
MARK_COLOR = "#D55E00"
SURFACE_COLORS = "YlGnBu_r"

_OFF_SCALE = 1e3  # kT; stands for an infinite upper bound, so that its band leaves the frame

_BASIN_LABELS = {
    "alpha_R": (r"$\alpha_\mathrm{R}$", -162, -102),
    "beta": (r"$\beta$", -166, 68),
    "PII": (r"P$_\mathrm{II}$", -18, 68),
    "alpha_L": (r"$\alpha_\mathrm{L}$", 104, 104),
    "C7ax": (r"C$_7^\mathrm{ax}$", 100, -162),
}

_STYLE = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#404040",
    "axes.labelcolor": "#202020",
    "xtick.color": "#404040",
    "ytick.color": "#404040",
    "xtick.direction": "out",
    "ytick.direction": "out",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "figure.dpi": 160,
}

PROFILE_CEILING = 15.0
"""Highest free energy on a profile, kT; a few stray samples of the flow can lie far above."""

_TRAINING_PANELS = (
    ("elbo", "ELBO (nats)"),
    ("elbo_gap", "log Z − ELBO (nats)"),
    ("ess_fraction", "batch ESS (%)"),
    ("temperature", "temperature (K)"),
    ("held_out_nll", "held-out −E ln q (nats)"),
)


def analysis_figures(analysis: EnsembleAnalysis, reference: Comparison | None = None) -> dict[str, Figure]:
    """All figures of an analysis, by the stem of the file they are stored under."""
    residues = reference.residues if reference else {}
    torsions = reference.torsions if reference else {}
    figures = {}
    for label, residue in analysis.residues.items():
        figures[f"ramachandran_{label}"] = ramachandran_figure(residue, label, residues.get(label))
        figures[f"profiles_{label}"] = profile_figure(residue, label, residues.get(label))
    for label, torsion in analysis.torsions.items():
        figures[f"torsion_{label}"] = torsion_figure(torsion, label, torsions.get(label))
    figures["energy"] = energy_figure(analysis.energy)
    figures["log_weight"] = log_weight_figure(analysis.log_weight, analysis.weights)
    return figures


def ramachandran_figure(residue: ResidueAnalysis, label: str, reference: ResidueReference | None = None) -> Figure:
    """Free energy over (φ, ψ), raw, reweighted and of a reference, on one colour scale; unvisited bins are white."""
    surfaces = {"flow samples": residue.surface_raw, "reweighted": residue.surface}
    if reference is not None:
        surfaces["replica exchange"] = reference.surface
    with _style():
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
    with _style():
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
    with _style():
        figure = Figure(figsize=(5.0, 3.0), layout="constrained")
        axes = figure.subplots()
        _draw_profiles(axes, torsion.raw, torsion.profile, reference)
        _draw_states(axes, torsion.states)
        _degree_axis(axes, f"{label} (degrees)")
        axes.set_ylabel("free energy (kT)")
        axes.set_ylim(0.0, _profile_limit(torsion.raw, torsion.profile, reference))
        _legend_above(axes, rows=1 if reference is None else 2)
        return figure


def energy_figure(histogram: Histogram) -> Figure:
    """Density of the reduced potential among samples as drawn and as weighted."""
    with _style():
        figure = Figure(figsize=(5.0, 3.2), layout="constrained")
        axes = figure.subplots()
        _draw_histogram(axes, histogram)
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("reduced potential U/kT")
        axes.set_ylabel("density")
        axes.legend()
        return figure


def log_weight_figure(histogram: Histogram, summary: WeightSummary) -> Figure:
    """Density of the log-weights, log scale; the reweighted curve shows which weights carry the averages."""
    with _style():
        figure = Figure(figsize=(5.0, 3.2), layout="constrained")
        axes = figure.subplots()
        _draw_histogram(axes, histogram)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5 * histogram.raw[histogram.raw > 0].min())
        axes.axvline(summary.log_z, color=MARK_COLOR, linewidth=1.2, linestyle=(0, (4, 2)), label="log Z")
        axes.set_xlabel("log-weight (nats)")
        axes.set_ylabel("density")
        axes.set_title(f"ESS {summary.ess:,.0f} of {summary.n_samples:,}   k̂ {summary.khat:.2f}", loc="right")
        axes.legend(loc="upper left")
        return figure


def training_figure(columns: Mapping[str, ArrayLike]) -> Figure:
    """Course of the training over the number of energy evaluations, or of draws of frames where there are none.

    Parameters
    ----------
    columns
        ``energies``, ``frames`` if there are no energies, and any of ``elbo``, ``elbo_gap``, ``ess_fraction``,
        ``temperature``, ``held_out_nll``, all of one length.
        NaN marks what was not measured at a step; panels without a number are left out.

    Raises
    ------
    ValueError
        If ``energies`` is missing or no panel has a number.
    """
    if "energies" not in columns:
        raise ValueError("training columns lack 'energies'.")
    energies, unit = _column(columns, "energies"), "energy evaluations"
    if "frames" in columns and not energies.any():
        energies, unit = _column(columns, "frames"), "draws of frames"
    panels = [(n, t) for n, t in _TRAINING_PANELS if n in columns and np.isfinite(_column(columns, n)).any()]
    if not panels:
        raise ValueError("training columns hold no measured value.")
    n_columns = 1 if len(panels) % 2 else 2
    n_rows = len(panels) // n_columns
    with _style():
        figure = Figure(figsize=(7.4, 0.5 + 2.1 * n_rows), layout="constrained")
        grid = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False)
        for axes, (name, title) in zip(grid.flat, panels, strict=True):
            _draw_training(axes, name, energies, _column(columns, name))
            axes.set_ylabel(title)
        for axes in grid[-1]:
            axes.set_xlabel(unit)
        return figure


def render(figure: Figure) -> tuple[bytes, NDArray[np.uint8]]:
    """PNG file content of a figure, and the same pixels as an array (height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    rgb = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    png = io.BytesIO()
    # From the pixels: to print the figure would lay it out once more, and slightly differently.
    matplotlib.image.imsave(png, rgb, format="png", dpi=figure.dpi)
    return png.getvalue(), rgb


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.style.context(_STYLE):
        yield


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


def _draw_histogram(axes: Axes, histogram: Histogram) -> None:
    axes.stairs(histogram.raw, histogram.edges, color=RAW_COLOR, fill=True, alpha=0.3)
    axes.stairs(histogram.raw, histogram.edges, color=RAW_COLOR, linewidth=1.2, label="flow samples")
    axes.stairs(histogram.reweighted, histogram.edges, color=REWEIGHTED_COLOR, linewidth=1.4, label="reweighted")
    axes.margins(x=0.02)


def _draw_training(axes: Axes, name: str, energies: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    shown = np.isfinite(values) & np.isfinite(energies)
    if name == "elbo_gap":
        shown &= values > 0  # noise can push a small gap below zero, which a log axis cannot show
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(_count_label))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if name == "ess_fraction":
        values = 100.0 * values
        axes.set_ylim(0, 100)
    x, y = energies[shown], values[shown]
    axes.plot(x, y, color=REWEIGHTED_COLOR, linewidth=1.2, marker="o" if x.size <= 40 else None, markersize=3)
    if name == "elbo" and y.size > 20:
        low, high = np.quantile(y, 0.05), y.max()  # the first steps from random weights are off any scale
        margin = 0.1 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(left=0.0)
    axes.xaxis.set_major_formatter(FuncFormatter(_count_label))
    axes.grid(True, color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)


def _count_label(value: float, _position: int | None = None) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _column(columns: Mapping[str, ArrayLike], name: str) -> NDArray[np.float64]:
    return np.asarray(columns[name], dtype=np.float64)


def _closed(values: NDArray[np.float64], period: float = 0.0) -> NDArray[np.float64]:
    """One point more at each end of a periodic axis, so that lines reach the frame."""
    return np.concatenate([[values[-1] - period], values, [values[0] + period]])


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN in place of infinities, so that a line has a gap there."""
    return np.where(np.isfinite(values), values, np.nan)
