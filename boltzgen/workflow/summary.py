"""The numbers of an ensemble as the JSON keys and the lines that users see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def verdict_text(summary: Mapping[str, Any]) -> str:
    """The result of an analysis, for people."""
    lines = [
        f"samples       {summary['n_samples']:,} at {summary['temperature']:g} K, {summary['n_failed']} failed",
        f"ESS           {summary['ess']:,.0f} ({100 * summary['ess_fraction']:.1f} %), unclipped; "
        f"Pareto k {summary['khat']:.2f}",
        f"log Z         {with_error(summary['log_z'], summary['log_z_stderr'])}",
        "populations",
    ]
    for name, value in summary["populations"].items():
        lines.append(f"  {name:<20}{with_error(value['value'], value['stderr'], 5)}")
    lines.append(f"verdict       {summary['verdict']}")
    lines += [f"  {reason}" for reason in summary["reasons"]]
    folders = sorted({str(Path(name).parent) for name in summary["files"] if name.endswith(".png")})
    report = [name for name in summary["files"] if name.endswith("report.html")]
    lines.append(f"plots         {', '.join(folders)}; report {', '.join(report)}")
    return "\n".join(lines)


def with_error(value: float, stderr: float | None, digits: int = 3) -> str:
    """A value with its standard error, or the remark that there is none to give."""
    error = "error not determined" if stderr is None else f"± {stderr:.{digits}f}"
    return f"{value:.{digits}f} {error}"


def weight_keys(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a :class:`~boltzgen.statistics.weights.WeightSummary` that ``--json`` promises."""
    names = ("n_samples", "n_failed", "ess", "ess_fraction", "khat", "log_z", "log_z_stderr", "largest_share")
    without = {str(k): v for k, v in weights["ess_without_largest"].items()}
    return {name: weights[name] for name in names} | {"ess_without_largest": without}
