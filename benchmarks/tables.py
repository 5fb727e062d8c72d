"""Trainings and checks as a Markdown table and as plots, beside what has been published."""

from __future__ import annotations

from collections import defaultdict
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from checks import BINS
from trained import Folder, Record, positive_phi

from boltzgen.analysis.coverage import LOST

COLUMNS = (
    *("system", "settings", "seed", "energies (exchange)", "forces", "gradient samples", "seconds", "threads"),
    *(
        "ESS (%)",
        "without 1 / 10 / 100",
        "marginal ESS %",
        "k̂",
        "KL gap",
        "TV (floor); smoothed",
        "φ > 0: flow, reference (z)",
    ),
    *("largest z", "lost states", "REX, same time: TV; φ > 0 (z); effective"),
)

PUBLISHED = {
    "ala_ff96": {"reverse KL": (2.56e8, 94.1), "FAB": (2.13e8, 94.8), "TA-BG": (1e8, 95.8), "CMT": (1e8, 97.7)},
    "ala3": {"reverse KL": (2.56e8, 75.1), "FAB": (2.13e8, 63.6), "TA-BG": (1e8, 65.8), "CMT": (1e8, 68.6)},
    "ala5": {"reverse KL": (2.56e8, 21.8), "FAB": (4.2e8, 14.6), "TA-BG": (4e8, 18.2), "CMT": (4e8, 29.6)},
}
"""Energies and ESS in % of the same systems: table 1 of arXiv 2510.18460."""

MARKERS = {"reverse KL": "s", "FAB": "D", "TA-BG": "v", "CMT": "^"}
BY_DEFAULT, PALER = "default", 0.4
MOST_GAP = 20.0
"""nats that the plot shows: beyond, single clashes decide."""

COLLAPSED = "reverse KL (published; collapsed but for the dipeptide)"

NOTES = """Seconds: training + sampling. ESS: count and share of the samples. TV: bins of {degrees:g} degrees; the
floor is what a perfect flow would show; smoothed by a Gaussian of as much. Lost: states of at least 1 % of the
reference whose frames have a median ln w above log Z by more than {lost:g} nats. REX: replica exchange with the seconds
and threads of training and sampling; effective: how many independent samples would determine the largest joint state as
well, to be held against ESS; "by rate" where it is that of the long reference, scaled to the same time."""


def table(folder: Folder) -> str:
    """One row for each training; a check of an earlier one of that name does not count."""
    checks = {(name, record["of"]): record for name, record in folder.records("check").items()}
    trainings = sorted(folder.records("training").values(), key=lambda r: (r["system"], r["label"], r["energies"]))
    rows = [_row(record, checks.get((record["name"], record["date"]))) for record in trainings]
    header = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return "\n".join([*header, *rows, "", NOTES.format(degrees=360 / BINS, lost=LOST)])


def _row(training: Record, check: Record | None) -> str:
    without = " / ".join(f"{100 * training['ess_without'][k]:.1f}" for k in ("1", "10", "100"))
    exchanged = f" ({training['exchange_energies']:.2e})" if training["exchange_energies"] else ""
    cells = (
        training["system"],
        f"{training['label']}, {training['budget']}",
        training["seed"],
        f"{training['energies']:.2e}{exchanged}",
        f"{training['forces']:.2e}",
        f"{training['gradient_samples']:.2e}",
        f"{training['training_seconds']:.0f} + {training['sampling_seconds']:.0f}",
        training["threads"],
        f"{training['ess'] * training['n_samples']:.0f} ({100 * training['ess']:.1f})",
        without,
        f"{100 * training['marginal_ess']:.1f}",
        f"{training['khat']:.2f}",
        f"{training['gap']:.3f}",
        *(_checked(check, training) if check else _unchecked(training)),
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _checked(check: Record, training: Record) -> tuple[str, ...]:
    lost, exchange = check["lost"], check["exchange"]
    worst, phi = check["worst_population"], _farthest(check["phi_positive"])
    ours = (
        f"{_number(phi['flow'], phi['flow_error'])}, {_number(phi['reference'], phi['reference_error'])}{_z(phi)}"
        if phi
        else "-"
    )
    excess = lost["worst"][0]["excess"] if lost["worst"] else np.nan
    return (
        f"{_tv(check['tv'])}; {_tv(check['smoothed_tv'])}",
        ours,
        f"{worst['z']:.1f} of {check['n_populations']}, {worst['title']}" if worst else "-",
        f"{lost['n_lost']} of {lost['n_states']}, worst {excess:+.1f} nats",
        _exchanged(exchange),
    )


def _exchanged(exchange: Record | None) -> str:
    if exchange is None:
        return "-"
    if "scaled_by" in exchange:
        return f"{exchange['effective']:.0f} by rate"
    populations = exchange["populations"]
    slow = _farthest([row for row in populations if row["title"] != "largest"])
    largest = next((row for row in populations if row["title"] == "largest"), None)
    cells = [f"{exchange['tv']:.4f}"]
    cells += [f"{_number(slow['value'], slow['error'])}{_z(slow)}"] if slow else []
    cells += [f"{largest['effective']:.0f}"] if largest else []
    return "; ".join(cells)


def _tv(record: Record) -> str:
    return f"{record['value']:.4f} ({record['floor']:.4f})"


def _unchecked(training: Record) -> tuple[str, ...]:
    phi = ", ".join(_number(row["value"], row["error"]) for row in positive_phi(training).values())
    return ("-", phi or "-", "-", "-", "-")


def _farthest(rows: list[Record]) -> Record | None:
    """The row with the largest |z|."""
    return max(rows, key=lambda row: abs(row["z"] or 0.0), default=None)


def _number(value: float, error: float | None) -> str:
    return f"{value:.4f}" + ("" if error is None else f" ± {error:.4f}")


def _z(row: Record) -> str:
    name = row["title"].partition(":")[0]
    return f" ({name})" if row["z"] is None else f" ({name} {row['z']:+.1f})"


def plot(folder: Folder) -> Path:
    """ESS and KL gap against energies and seconds: one line for each system and label, medians over seeds.

    Lines of a system have its colour, paler where settings are not those by default.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    lines = _lines(list(folder.records("training").values()))
    figure, axes = plt.subplots(2, 2, figsize=(13, 9), layout="constrained", sharex="col")
    rows = (("ess", "ESS of fresh samples, %", 100.0), ("gap", "log Z − ELBO, nats", 1.0))
    columns = (("energies", "energies of training"), ("training_seconds", "seconds of training"))
    full_then_pale = [*plt.get_cmap("tab20").colors[::2], *plt.get_cmap("tab20").colors[1::2]]
    colours = dict(zip(dict.fromkeys(system for system, _ in lines), cycle(full_then_pale), strict=False))
    for panels, (y, y_label, scale) in zip(axes, rows, strict=True):
        for ax, (x, x_label) in zip(panels, columns, strict=True):
            for (system, label), points in lines.items():
                values = sorted((point[x], scale * point[y]) for point in points)
                style = {"color": colours[system], "alpha": 1.0 if label == BY_DEFAULT else PALER}
                ax.plot(*zip(*values, strict=True), "o-", **style, label=f"{system}, {label}")
            ax.set(xscale="log", xlabel=x_label, ylabel=y_label)
            ax.grid(alpha=0.3, which="both")
    for ax in axes[0]:
        ax.set_ylim(0.0, 100.0)
    for ax in axes[1]:
        ax.set_yscale("log")
        ax.set_ylim(top=MOST_GAP)
    _published(axes[0, 0], colours)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    path = folder.path / "training.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _lines(trainings: list[Record]) -> dict[tuple[str, str], list[dict[str, float]]]:
    """For each system and label a point for each budget: medians over the seeds."""
    groups: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in trainings:
        groups[record["system"], record["label"]][record["budget"]].append(record)

    def median(seeds: list[Record]) -> dict[str, float]:
        keys = ("energies", "training_seconds", "ess", "gap")
        return {key: float(np.median([one[key] for one in seeds])) for key in keys}

    return {line: [median(seeds) for seeds in budgets.values()] for line, budgets in sorted(groups.items())}


def _published(ax: Any, colours: dict[str, Any]) -> None:
    """Published points of the systems at hand, in the colours of their lines."""
    for system in set(PUBLISHED) & set(colours):
        for name, (energies, ess) in PUBLISHED[system].items():
            ax.plot(energies, ess, MARKERS[name], color=colours[system], markerfacecolor="none")
    for name, marker in MARKERS.items():
        label = COLLAPSED if name == "reverse KL" else f"{name} (published)"
        ax.plot([], [], marker, color="grey", markerfacecolor="none", label=label)


def ablation_table(rows: list[tuple[str, int, Record]]) -> str:
    """One row for each variant and seed."""
    lines = ["| variant | seed | energies | CPU s | ESS % | KL gap | k̂ | φ > 0 | drawn |", "|" + "---|" * 9]
    for name, seed, record in rows:
        phi = positive_phi(record).values()
        cells = (
            *(name, seed, f"{record['energies']:.2e}", f"{record['cpu_seconds']:.0f}", f"{100 * record['ess']:.1f}"),
            *(f"{record['gap']:.3f}", f"{record['khat']:.2f}"),
            ", ".join(_number(p["value"], p["error"]) for p in phi) or "-",
            ", ".join(_number(p["drawn"], None) for p in phi) or "-",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
