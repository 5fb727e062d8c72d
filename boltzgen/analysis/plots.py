"""The figures of an analysis by name, and those of energies, weights and training. Each returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike, NDArray

from boltzgen.analysis.comparison import Comparison
from boltzgen.analysis.plot_style import MARK_COLOR, RAW_COLOR, REWEIGHTED_COLOR, style
from boltzgen.analysis.surfaces import EnsembleAnalysis, Histogram
from boltzgen.analysis.torsion_plots import profile_figure, ramachandran_figure, torsion_figure
from boltzgen.statistics.growth import Growth
from boltzgen.statistics.weights import WeightSummary

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


def energy_figure(histogram: Histogram) -> Figure:
    """Density of the reduced potential among samples as drawn and as weighted."""
    with style():
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
    with style():
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


def ess_figure(growth: Growth, khat: float) -> Figure:
    """Effective share of the samples against their number, with the scatter of blocks: a heavy tail makes it sag."""
    with style():
        figure = Figure(figsize=(5.0, 3.2), layout="constrained")
        axes = figure.subplots()
        shares, errors = 100.0 * growth.ess_fraction, 100.0 * np.nan_to_num(growth.stderr)
        axes.errorbar(
            growth.n, shares, errors, color=REWEIGHTED_COLOR, marker="o", markersize=4, linewidth=1.2, capsize=2
        )
        axes.axhline(shares[-1], color=MARK_COLOR, linewidth=1.0, linestyle=(0, (4, 2)))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(_count_label))
        axes.set_ylim(0.0, min(100.0, 1.3 * float((shares + errors).max())))
        axes.set_xlabel("samples")
        axes.set_ylabel("effective share (%)")
        axes.set_title(f"ESS {shares[-1]:.1f} %   k̂ {khat:.2f}", loc="right")
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
    with style():
        figure = Figure(figsize=(7.4, 0.5 + 2.1 * n_rows), layout="constrained")
        grid = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False)
        for axes, (name, title) in zip(grid.flat, panels, strict=True):
            _draw_training(axes, name, energies, _column(columns, name))
            axes.set_ylabel(title)
        for axes in grid[-1]:
            axes.set_xlabel(unit)
        return figure


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
