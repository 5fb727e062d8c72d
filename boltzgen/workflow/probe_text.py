"""The coverage probe as lines that people see, and as tables of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boltzgen.probe.result import TROUBLES

Table = tuple[Sequence[str], list[tuple[str, ...]]]
"""Header, which may be empty, and rows."""

MOST_LINES = 8
"""States that are listed on the terminal; the report and the files have all."""

KINDS = {
    "lost": "lost",
    "suspected": "perhaps lost",
    "scarce": "drawn too rarely",
    "unsettled": "not weighed",
    "covered": "drawn, if with large weights",
    "rare": "rare, below 1 % of the ensemble",
}


def probe_lines(probe: Mapping[str, Any]) -> list[str]:
    """What was done, and the states with large weights: those that are lost with their torsions."""
    lines = [f"{name:<14}{text}" for name, text in _findings(probe).items()]
    told = [one for one in probe["states"] if one["kind"] in TROUBLES]
    for one in told[:MOST_LINES]:
        drawn = f"drawn {_percent(one['drawn_share'])}, weighted {_percent(one['weighted_share'])}"
        lines.append(f"  {KINDS[one['kind']]}: {one['state']}, {_share(one)}, {drawn}")
        angles = ", ".join(f"{name} {angle:.0f}" for name, angle in one["torsions"].items())
        lines.append(f"    at {angles} degrees")
    if len(told) > MOST_LINES:
        lines.append(f"  and {len(told) - MOST_LINES} more, see the report")
    return lines


def probe_tables(probe: Mapping[str, Any]) -> dict[str, Table]:
    """Tables of the report by their headings."""
    tables: dict[str, Table] = {"Coverage probe": ((), list(_findings(probe).items()))}
    columns = (
        "state",
        "finding",
        "share of the ensemble",
        "drawn",
        "weighted",
        "weights too large, nats",
        "torsions, degrees",
    )
    rows: list[tuple[str, ...]] = [
        (
            one["state"],
            KINDS[one["kind"]],
            _share(one),
            _percent(one["drawn_share"]),
            _percent(one["weighted_share"]),
            "outside the support" if one["excess"] is None else f"{one['excess']:+.2f}",
            ", ".join(f"{name} {angle:.0f}" for name, angle in one["torsions"].items()),
        )
        for one in probe["states"]
    ]
    if rows:
        tables["States where challengers have large weights"] = (columns, rows)
    return tables


def _findings(probe: Mapping[str, Any]) -> dict[str, str]:
    kinds = [one["kind"] for one in probe["states"]]
    counts = {kind: kinds.count(kind) for kind in KINDS}
    share = probe["share_of_training"]
    cost = f"{probe['n_energy_evaluations']:,} energies, {probe['seconds']:.1f} s"
    cost += "" if share is None else f", {100 * share:.1f} % of the training's time"
    text = f"{probe['n_challengers']:,} challengers in {probe['n_states']:,} joint states; {counts['lost']} lost"
    text += f", {counts['suspected']} perhaps lost" if counts["suspected"] else ""
    text += f", {counts['scarce']} drawn too rarely" if counts["scarce"] else ""
    text += f", {counts['rare']} thin but rare" if counts["rare"] else ""
    text += f", {counts['unsettled']} thin and not weighed" if counts["unsettled"] else ""
    largest = probe["largest_excess"]
    text += "" if largest is None else f"; largest weights {largest:+.3g} nats"
    return {"probe": f"{text} ({cost})", "bridge": _bridge(probe)}


def _bridge(probe: Mapping[str, Any]) -> str:
    if probe["bridged_log_z"] is None:
        return "log Z by bridge sampling with the challengers: not determined"
    difference, error = probe["bridged_log_z"] - probe["log_z"], probe["bridged_log_z_stderr"]
    sigmas = probe["bridged_sigmas"]
    text = f"log Z {probe['bridged_log_z']:.3f} ± {error:.3f} with the challengers, {difference:+.3f} nats"
    return text + ("" if sigmas is None else f" ({sigmas:+.1f} standard errors) from the samples'")


def _share(one: Mapping[str, Any]) -> str:
    if one["share"] is None:
        return f"weight not determined ({_percent(one['visited_share'])} of the challengers)"
    if one["share_stderr"] is None:
        return f"roughly {_percent(one['share'])} of the ensemble"
    return f"{100 * one['share']:.2g} ± {100 * one['share_stderr']:.1g} % of the ensemble"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
