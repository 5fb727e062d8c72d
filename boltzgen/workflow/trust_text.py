"""What an ensemble says of itself, as lines that people see and as tables of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boltzgen.statistics.weights import CLIPPED_SHARE
from boltzgen.workflow.summary import with_error

Rows = list[tuple[str, ...]]

DIGITS = {"nm": 5, "degrees": 1}
"""Digits behind the point of averages by their unit; two for others."""


def weight_lines(summary: Mapping[str, Any]) -> dict[str, str]:
    """What the weights are worth, beyond ESS and k-hat, in words."""
    growth = [row for row in summary["ess_growth"][::-1] if row["n"] >= 100][::3][::-1]
    shares = ", ".join(f"{100 * row['ess_fraction']:.1f} % of {row['n']:,}" for row in growth)
    return {
        "weights": f"largest {100 * summary['largest_share']:.2g} % of all; ESS with the largest "
        f"{100 * CLIPPED_SHARE:g} % clipped {100 * summary['clipped_ess'] / summary['n_samples']:.1f} %",
        "ESS against n": shares,
    }


def average_rows(summary: Mapping[str, Any]) -> Rows:
    """Averages, and the cis shares of amides: name, value with error, unit."""
    rows: Rows = [
        (name, with_error(one["value"], one["stderr"], DIGITS.get(one["unit"], 2)), one["unit"])
        for name, one in summary["averages"].items()
    ]
    for name, one in summary["cis"].items():
        never = one["value"] in (0.0, 1.0)
        held = "never" if one["value"] == 0.0 else "always"
        rows.append((f"{name} cis", held if never else with_error(one["value"], one["stderr"], 5), ""))
    return rows


def check_rows(summary: Mapping[str, Any]) -> Rows:
    """Checks: name, whether passed, value, bound, words."""
    said = {True: "passed", False: "FAILED", None: "-"}
    return [
        (
            name,
            said[one["passed"]],
            "-" if one["value"] is None else f"{one['value']:.2g}",
            "-" if one["value"] is None else f"{one['bound']:.2g}",
            one["words"],
        )
        for name, one in summary["checks"].items()
    ]


def ladder_rows(summary: Mapping[str, Any]) -> Rows:
    """Temperatures that the flow knows: ESS, k-hat, ln Z and mean energy with errors."""
    return [
        (
            f"{row['temperature']:.0f} K",
            f"{100 * row['ess_fraction']:.1f} %",
            f"{row['khat']:.2f}",
            with_error(row["log_z"], row["log_z_stderr"]),
            with_error(row["energy"], row["energy_stderr"], 2),
        )
        for row in summary["ladder"]
    ]


def trust_tables(summary: Mapping[str, Any]) -> dict[str, tuple[tuple[str, ...], Rows]]:
    """Tables of the report by their headings."""
    tables = {
        "Averages": (("average", "value", "unit"), average_rows(summary)),
        "Checks": (("check", "", "value", "bound", "found"), check_rows(summary)),
        "Temperatures of the flow, by its own draws": (
            ("temperature", "ESS", "Pareto k", "log Z", "<U>, kJ/mol"),
            ladder_rows(summary),
        ),
    }
    return {heading: (header, rows) for heading, (header, rows) in tables.items() if rows}


def trust_lines(summary: Mapping[str, Any]) -> list[str]:
    """Averages and checks as lines that people see."""
    averages = [f"  {name:<40}{value} {unit}".rstrip() for name, value, unit in average_rows(summary)]
    checks = [f"  {name:<20}{passed:<8}{words}" for name, passed, _, _, words in check_rows(summary)]
    return ["averages", *averages, "checks", *checks]
