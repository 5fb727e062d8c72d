"""The summary of an analysis as lines that people see, and what it says of a reference as tables of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boltzgen.workflow.probe_text import Table, probe_lines
from boltzgen.workflow.summary import with_error


def analyze_text(summary: Mapping[str, Any]) -> str:
    """Populations, what a reference says of them, and the verdict."""
    lines = [
        f"samples       {summary['n_samples']:,} at {summary['temperature']:g} K, {summary['n_failed']} failed",
        f"ESS           {summary['ess']:,.0f} ({100 * summary['ess_fraction']:.1f} %), unclipped; "
        f"Pareto k {summary['khat']:.2f}",
        f"log Z         {with_error(summary['log_z'], summary['log_z_stderr'])}",
    ]
    if "reference" in summary:
        lines += _reference_lines(summary["reference"])
    else:
        lines.append("populations")
        for name, value in summary["populations"].items():
            lines.append(f"  {name:<20}{with_error(value['value'], value['stderr'], 5)}")
    if "probe" in summary:
        lines += probe_lines(summary["probe"])
    lines.append(f"verdict       {summary['verdict']}")
    lines += [f"  {reason}" for reason in summary["reasons"]]
    folders = sorted({str(Path(name).parent) for name in summary["files"] if name.endswith(".png")})
    report = [name for name in summary["files"] if name.endswith("report.html")]
    lost = [f"; lost states {name}" for name in summary["files"] if name.endswith("lost_states.pdb")]
    lines.append(f"plots         {', '.join(folders)}; report {', '.join(report)}{''.join(lost)}")
    return "\n".join(lines)


def reference_tables(reference: Mapping[str, Any]) -> dict[str, Table]:
    """Tables of the report by their headings."""
    populations: list[tuple[str, ...]] = [
        (
            name,
            _estimate(row["flow"]),
            _estimate(row["counted"]),
            _estimate(row["mbar"]),
            _score(row["z"]),
            *(_free_energy(row[kind]) for kind in ("flow", "counted", "mbar")),
        )
        for name, row in reference["populations"].items()
    ]
    columns = ("state", "flow", "counted", "MBAR", "z", "ΔF flow", "ΔF counted", "ΔF MBAR")
    tables: dict[str, Table] = {
        "Reference by replica exchange": ((), [(name, text) for name, text in _findings(reference).items()]),
        "Populations beside the reference; ΔF in kT against all else": (columns, populations),
    }
    columns_of_states = ("state", "share of the reference", "share drawn", "weights too large, nats")
    for heading, states in (
        ("Lost states", reference["lost_states"]),
        ("Joint states of the reference", reference["states"]),
    ):
        rows: list[tuple[str, ...]] = [
            (one["state"], _share(one), f"{one['drawn_share']:.4f}", f"{one['excess']:+.2f}")  # inf reads +inf
            for one in states
        ]
        if rows:
            tables[heading] = (columns_of_states, rows)
    return tables


def _reference_lines(reference: Mapping[str, Any]) -> list[str]:
    lines = [f"{name:<14}{text}" for name, text in _findings(reference).items()]
    lines += [f"  lost: {one['state']}, {_share(one)} of the reference" for one in reference["lost_states"]]
    width = max((len(name) for name in reference["populations"]), default=0)
    lines.append(f"{'populations':<{width + 4}}{'flow':<22}{'reference, counted':<22}{'by MBAR':<22}{'z':>6}  ΔF in kT")
    for name, row in reference["populations"].items():
        flow, counted, mbar = (_estimate(row[kind]) for kind in ("flow", "counted", "mbar"))
        energies = f"{_free_energy(row['flow'])}; {_free_energy(row['counted'])}"
        lines.append(f"  {name:<{width + 2}}{flow:<22}{counted:<22}{mbar:<22}{_score(row['z']):>6}  {energies}")
    return lines


def _findings(reference: Mapping[str, Any]) -> dict[str, str]:
    """What the reference is, what both cost, and how the flow covers it."""
    state = "converged" if reference["converged"] else "NOT CONVERGED"
    threads = reference["flow_threads"]
    flow = _cost(reference, "flow_") + (f", threads {threads}" if threads else "")
    equal = reference["effective_samples_at_equal_cost"]
    equal_text = "" if equal is None else f"; in the time of the flow {equal:,.0f}"
    findings = {
        "reference": f"{reference['file']}: {reference['n_ladders']} ladders, {reference['nanoseconds']:.3g} ns, "
        f"{state}",
        "effective": f"flow {flow}; reference {_cost(reference, '')}, threads {reference['threads']}{equal_text}",
    }
    n, lost = len(reference["states"]), len(reference["lost_states"])
    worst = reference["states"][0] if reference["states"] else None
    share = 100 * reference["states_share"]
    text = f"{n} joint states of 1 % or more, together {share:.0f} % of the reference; {lost} lost"
    if worst:
        text += f"; worst {worst['state']}, weights {worst['excess']:+.1f} nats"
    findings["coverage"] = text
    forward, gap = reference["forward_ess_fraction"], reference["gap"]
    error = None if forward["stderr"] is None else 100.0 * forward["stderr"]
    text = f"ESS {with_error(100.0 * forward['value'], error, 1)} % from frames of the reference"
    if gap is not None:
        text += f"; EUBO - ELBO {with_error(gap['value'], gap['stderr'], 2)} nats"
    findings["forward"] = text + f"; {100 * reference['outside_share']:.2g} % outside the support"
    return findings


def _cost(reference: Mapping[str, Any], prefix: str) -> str:
    n, rate = reference[f"{prefix}effective_samples"], reference[f"{prefix}effective_samples_per_second"]
    seconds = f"{reference[f'{prefix}seconds']:,.3g} s"
    return f"of {seconds}" if n is None else f"{n:,.0f} in {seconds}, {rate:.3g} a second"


def _estimate(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "-"
    error = value["stderr"]
    return f"{value['value']:.5f}" + (" ± -" if error is None else f" ± {error:.5f}")


def _free_energy(value: Mapping[str, Any] | None) -> str:
    if value is None or value["free_energy"] is None:
        return "-"
    error = value["free_energy_stderr"]
    return f"{value['free_energy']:.2f}" + ("" if error is None else f" ± {error:.2f}")


def _score(z: float | None) -> str:
    return "-" if z is None or not math.isfinite(z) else f"{z:+.1f}"


def _share(one: Mapping[str, Any]) -> str:
    error = one["share_stderr"]
    return f"{one['share']:.4f}" + ("" if error is None else f" ± {error:.4f}")
