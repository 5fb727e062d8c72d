"""Summaries of stages as the lines that people see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def prepare_text(summary: Mapping[str, Any]) -> str:
    """What was prepared."""
    parity = summary["parity"]
    return "\n".join(
        [
            *_molecule_lines(summary),
            "held          stereocentres, double bonds and amides (not before proline), as in the input",
            f"energy check  torch against OpenMM on {parity['n_frames']} jittered frames: "
            f"max |dU| {parity['energy']:.1e} kJ/mol (float32 {parity['energy_float32']:.1e}), "
            f"max |dF| {parity['force']:.1e} kJ/mol/nm",
            f"conformers    {summary['n_conformers']} distinct minima, lowest u = {summary['lowest_u']:.2f} kT; "
            f"{_shapes(summary['n_charts'])}",
            *_check_lines(summary.get("coordinates_check")),  # runs of older versions have none
            _written(summary),
        ]
    )


def preview_text(summary: Mapping[str, Any]) -> str:
    """What would be prepared and trained."""
    energies, draws, seconds = (summary[f"training_{name}"] for name in ("energies", "draws", "seconds"))
    at_least = "at least " if summary["training_energies_at_least"] else ""
    budget = [f"{at_least}{energies:,} energies"] if energies else []
    budget += [f"{draws:,} draws of frames"] if draws else []
    budget += [f"{seconds:g} s"] if seconds else []
    lines = [
        *_molecule_lines(summary),
        f"flow          {summary['n_parameters']:,} parameters",
        f"training      {summary['training_method']}, {' or '.join(budget)} on {summary['training_device']}, "
        f"about {summary['training_memory'] / 2**20:,.0f} MiB of memory",
    ]
    if summary["training_frames"]:
        lines.append(f"data          {summary['training_frames']:,} frames")
    if summary["done"]:
        lines.append(f"there already {', '.join(summary['done'])}")
    return "\n".join(lines)


def _shapes(n: int) -> str:
    """How many basins of rings and inverting nitrogens have coordinates of their own."""
    return f"{n} shape{'s' if n > 1 else ''} of rings and nitrogens, each with coordinates of its own"


def _molecule_lines(summary: Mapping[str, Any]) -> list[str]:
    """The molecule, its force field and its degrees of freedom."""
    stereo = ", ".join(f"{atom} {label}" for atom, label in summary["stereocentres"].items()) or "none"
    n_slow = summary["n_torsions"] - summary["n_rotors"]
    return [
        f"molecule      {summary['formula']}, {summary['n_atoms']} atoms, charge {summary['charge']:+d}",
        f"SMILES        {summary['smiles']}",
        f"stereo        {stereo}",
        f"force field   {summary['force_field']} + {summary['solvent']} ({summary['force_field_reason']}), "
        f"{summary['temperature']:g} K",
        f"coordinates   {n_slow} slow torsions, {summary['n_rotors']} symmetric rotors (symmetry number "
        f"{summary['symmetry_number']}), {summary['n_stiff']} stiff",
    ]


def _check_lines(check: Mapping[str, Any] | None) -> list[str]:
    """The figures that judge the coordinates."""
    if check is None:
        return []
    return [
        f"bijection     round trip {check['round_trip']:.1e} nm, log-det against autograd {check['log_det']:.1e}",
        f"base          {check['n_samples']:,} samples, {100 * check['finite']:.1f} % with finite energy; median "
        f"{check['excess']:+.2f} kT per degree of freedom against harmonic, quartiles {check['spread']:.1f} kT apart "
        f"(harmonic {check['harmonic_spread']:.1f})",
        f"states        {check['states']} distinct conformers found by ETKDG, {check['states_inside']} of them in the "
        "support of the coordinates",
    ]


def train_text(summary: Mapping[str, Any]) -> str:
    """What training cost, and where it ended."""
    energies, frames = summary["n_energy_evaluations"], summary["frames"]
    cost = [f"{energies:,} energies with forces"] if energies else []
    cost += [f"{frames:,} draws of frames"] if frames else []
    lines = [
        f"trained       {' and '.join(cost)} in {summary['seconds']:.0f} s "
        f"on {summary['device']}, seed {summary['seed']}; {summary['skipped_steps']} steps skipped, "
        f"{summary['n_failed']} energies failed"
    ]
    if "data" in summary:
        data = summary["data"]
        lines.append(
            f"data          {data['frames_inside']:,} of {data['frames']:,} frames, {data['ess']:,.0f} effective; "
            f"held out: -E ln q(x) = {summary['held_out_nll']:.3f} nats"
        )
    if "seeded_with" in summary:
        lines.append(f"seeded with   {', '.join(summary['seeded_with'])}")
        lines.append("next          sample, reweight and analyze with --force: theirs are of the flow before")
    return "\n".join([*lines, _written(summary)])


def sample_text(summary: Mapping[str, Any]) -> str:
    """How many samples were drawn, and what their estimator bought."""
    lines = [
        f"sampled       {summary['n_samples']:,} in {summary['seconds']:.0f} s, seed {summary['seed']}, "
        f"{summary['n_failed']} failed"
    ]
    inner, refine = summary["inner"], summary["refine"]
    if len(summary["drawn_at"]) > 1:
        shares = ", ".join(f"{100 * share:.0f} % at {float(t):.0f} K" for t, share in summary["drawn_at"].items())
        lines.append(f"drawn         {shares}: the weights are those of the mixture")
    if inner > 1 or refine:
        behind = [f"mean of {inner} redraws"] if inner > 1 else []
        behind += [f"{refine} bridges, {100 * summary['acceptance']:.0f} % of moves accepted"] if refine else []
        lines.append(
            f"ESS           {summary['ess']:,.0f} ({100 * summary['ess_fraction']:.1f} %) by {' and '.join(behind)}; "
            f"joint ESS of the flow's draws {100 * summary['flow_ess_fraction']:.1f} %"
        )
    return "\n".join([*lines, _written(summary)])


def reweight_text(summary: Mapping[str, Any]) -> str:
    """The weights at each temperature."""
    lines = [
        f"{float(temperature):6.1f} K      ESS {w['ess']:,.0f} of {w['n_samples']:,} "
        f"({100 * w['ess_fraction']:.1f} %), Pareto k {w['khat']:.2f}, "
        f"log Z {with_error(w['log_z'], w['log_z_stderr'])}"
        for temperature, w in summary["temperatures"].items()
    ]
    if summary.get("merged_files", 1) > 1:
        lines.insert(0, f"merged        {summary['merged_files']} files of samples")
    if "force_field" in summary:
        lines.insert(0, f"force field   {summary['force_field']} + {summary['solvent']}, not that of the flow")
    return "\n".join([*lines, _written(summary)])


def plan_of_md_text(summary: Mapping[str, Any]) -> str:
    """What would be simulated."""
    temperatures, ladders = summary["temperatures"], summary["ladders"]
    budget = [f"{summary['max_energies']:,} energies"] if summary["max_energies"] else []
    budget += [f"{summary['time_budget']:g} s"] if summary["time_budget"] else []
    lines = [
        *_molecule_lines(summary),
        f"simulation    {ladders if ladders else 'up to 32'} ladders of {_ladder(temperatures)}, {' or '.join(budget)}",
    ]
    if summary["done"]:
        lines.append(f"there already {', '.join(summary['done'])}")
    return "\n".join(lines)


def md_text(summary: Mapping[str, Any]) -> str:
    """What was simulated, the populations with their errors, and whether they can be trusted."""
    acceptance = [share for share in summary["acceptance"] if math.isfinite(share)]
    range_of = f"{min(acceptance):.2f} to {max(acceptance):.2f}" if acceptance else "not attempted"
    lines = [
        f"simulated     {summary['nanoseconds']:,.3g} ns: {summary['n_ladders']} ladders of "
        f"{_ladder(summary['temperatures'])}; {summary['n_energy_evaluations']:,} energies with forces in "
        f"{summary['seconds']:.0f} s, seed {summary['seed']}, threads {summary['threads']}",
        f"exchange      acceptance {range_of}, {summary['round_trips']:,} round trips; "
        f"{summary['n_failed']} walkers failed",
        f"frames        {summary['n_frames']:,} at {summary['temperature']:g} K, every "
        f"{summary['frame_interval_ps']:g} ps after {summary['burn_in_ps']:.3g} ps; "
        f"{100 * (1 - summary['kept_share']):.2g} % in another configuration, which populations leave out",
    ]
    if summary["slowest"] is not None:
        slowest = summary["correlations"][summary["slowest"]]
        lines.append(
            f"effective     {summary['effective_samples']:,.0f} samples, "
            f"{summary['effective_samples_per_second']:.3g} a second; the slowest is {summary['slowest']}, "
            f"one in {slowest['picoseconds']:.3g} ps"
        )
    lines.append(f"populations   {'counted':<24}by MBAR over all temperatures")
    for name, value in summary["populations"].items():
        mbar = value["mbar"]
        other = with_error(mbar["value"], mbar["stderr"], 5) if mbar else "not determined"
        lines.append(f"  {name:<20}  {with_error(value['value'], value['stderr'], 5):<24}{other}")
    if summary["converged"]:
        lines.append("reference     ladders agree; a state that none of them found is not in it")
    else:
        lines.append("reference     NOT CONVERGED: these populations are no reference")
        lines += [f"  {reason}" for reason in summary["reasons"]]
    return "\n".join([*lines, _written(summary)])


def _ladder(temperatures: Sequence[float]) -> str:
    return f"{len(temperatures)} temperatures from {temperatures[0]:g} to {temperatures[-1]:g} K"


def with_error(value: float, stderr: float | None, digits: int = 3) -> str:
    """A value with its standard error, or the remark that there is none to give."""
    error = "error not determined" if stderr is None or not math.isfinite(stderr) else f"± {stderr:.{digits}f}"
    return f"{value:.{digits}f} {error}"


def weight_keys(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a :class:`~boltzgen.statistics.weights.WeightSummary` that ``--json`` promises."""
    names = (
        *("n_samples", "n_failed", "ess", "ess_fraction", "clipped_ess", "khat"),
        *("log_z", "log_z_stderr", "largest_share"),
    )
    without = {str(k): v for k, v in weights["ess_without_largest"].items()}
    return {name: weights[name] for name in names} | {"ess_without_largest": without}


def _written(summary: Mapping[str, Any]) -> str:
    return f"written       {', '.join(summary['files'])}"
