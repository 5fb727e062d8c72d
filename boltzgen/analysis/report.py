"""The report of an analysis: a small HTML page, representative structures, tables as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boltzgen.statistics.agreement import free_energy
from boltzgen.statistics.free_energy import Estimate, Profile
from boltzgen.statistics.verdict import Verdict
from boltzgen.statistics.weights import checked_log_weights

_CSS = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .5rem; }
h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
.verdict { border-left: .4rem solid; padding: .5rem 1rem; background: #f6f6f6; }
.verdict strong { font-size: 1.1rem; }
.OK { border-color: #009E73; } .UNVERIFIED { border-color: #E69F00; } .FAILED { border-color: #D55E00; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .2rem 1.5rem .2rem 0; }
th, td { border-bottom: 1px solid #eee; }
th { font-weight: 600; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #666; font-size: .9rem; }
""".strip()


def html_report(
    title: str,
    summary: Mapping[str, Any],
    verdict: Verdict,
    populations: Mapping[str, Estimate],
    plots: Mapping[str, str],
    provenance: Mapping[str, Any],
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]] | None = None,
) -> str:
    """One HTML page without scripts or outside resources but the plots. All text is escaped.

    Parameters
    ----------
    summary
        Rows of the first table, in order: name and value.
    populations
        By state name; an undetermined error is said to be so.
    plots
        Path of each image relative to the page, by caption.
    provenance
        Names and values; nested values are shown as JSON.
    tables
        More tables by their headings: header, which may be empty, and rows.
    """
    population_rows = [(name, *_estimate_cells(estimate)) for name, estimate in populations.items()]
    figures = "\n".join(
        f'<figure><img src="{escape(quote(path))}" alt="{escape(name)}">'
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, path in plots.items()
    )
    sections = [
        _verdict_html(verdict),
        _section("Summary", _table([(name, _text(value)) for name, value in summary.items()])),
        _section(
            "Populations", _table(population_rows, ("state", "probability", "standard error", "ΔF to all else, kT"))
        ),
        *(_section(heading, _table(rows, header)) for heading, (header, rows) in (tables or {}).items()),
        _section("Plots", figures) if plots else "",
        _section("Provenance", _table([(name, _text(value)) for name, value in provenance.items()])),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_CSS}\n</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def representatives(
    labels: Sequence[str] | NDArray[np.str_], log_w: ArrayLike, reduced_potential: ArrayLike
) -> dict[str, int]:
    """Frame of the lowest reduced potential in each state that a sample with weight visits.

    ``labels`` (n,) names the state of each frame. States come in alphabetical order.
    """
    states = np.asarray(labels)
    energies = np.where(np.isfinite(checked_log_weights(log_w)), reduced_potential, np.inf)
    frames = {}
    for state in np.unique(states):
        inside = np.flatnonzero(states == state)
        lowest = inside[np.argmin(energies[inside])]
        if np.isfinite(energies[lowest]):
            frames[str(state)] = int(lowest)
    return frames


def surface_csv(edges: ArrayLike, raw: ArrayLike, reweighted: ArrayLike) -> str:
    """Ramachandran surfaces as CSV: bin centres in degrees, free energies in kT (``inf`` where empty).

    ``edges`` (m + 1,) in radians, of both angles; surfaces (m, m) over (φ, ψ).
    """
    bounds = np.degrees(np.asarray(edges, dtype=np.float64))
    centers = 0.5 * (bounds[1:] + bounds[:-1])
    phi, psi = np.meshgrid(centers, centers, indexing="ij")
    columns = [np.ravel(column) for column in (phi, psi, np.asarray(raw), np.asarray(reweighted))]
    return _csv(("phi_degrees", "psi_degrees", "raw_kT", "reweighted_kT"), zip(*columns, strict=True))


def profile_csv(raw: Profile, reweighted: Profile) -> str:
    """Profiles of a torsion as CSV: bin centres in degrees, kT; an undetermined band is ``nan``."""
    undetermined = np.full_like(reweighted.centers, np.nan)
    columns = (
        np.degrees(reweighted.centers),
        raw.free_energy,
        reweighted.free_energy,
        undetermined if reweighted.lower is None else reweighted.lower,
        undetermined if reweighted.upper is None else reweighted.upper,
    )
    names = ("degrees", "raw_kT", "reweighted_kT", "lower_95_kT", "upper_95_kT")
    return _csv(names, zip(*columns, strict=True))


def _csv(names: Sequence[str], rows: Iterable[Sequence[float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([f"{value:.6g}" for value in row] for row in rows)
    return text.getvalue()


def _verdict_html(verdict: Verdict) -> str:
    reasons = "".join(f"<p>{escape(reason)}</p>" for reason in verdict.reasons)
    return f'<div class="verdict {escape(verdict.word)}"><strong>{escape(verdict.word)}</strong>{reasons}</div>'


def _section(heading: str, content: str) -> str:
    return f"<h2>{escape(heading)}</h2>\n{content}"


def _table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    head = "<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in header) + "</tr>\n" if header else ""
    body = "\n".join(
        f"<tr><th>{escape(first)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return f"<table>\n{head}{body}\n</table>"


def _estimate_cells(estimate: Estimate) -> tuple[str, str, str]:
    error = "undetermined" if estimate.stderr is None else f"{estimate.stderr:.2g}"
    energy = free_energy(estimate)
    of_energy = "" if energy.stderr is None else f" ± {energy.stderr:.2f}"
    return f"{estimate.value:.4g}", error, f"{energy.value:.2f}{of_energy}"


def _text(value: Any) -> str:
    if value is None:
        return "undetermined"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
