"""Prepare every molecule of a panel as a user would, and judge its coordinates: a Markdown table, a line of summary.

    OMP_NUM_THREADS=1 python benchmarks/panel.py -o panel.runs
    OMP_NUM_THREADS=1 python benchmarks/panel.py -o panel.runs --train 12

Each molecule goes through ``boltzgen prepare --smiles … --json`` in a process of its own. The figures are those of its
``coordinates_check``, in float64 on samples of the base: stiff coordinates Gaussian, torsions uniform.

round trip
    Largest |x' − x| of latent → x → latent → x', over all atoms and samples.
log-det
    Largest deviation of ln |det ∂x/∂latent| from autograd.
finite
    Share of the samples whose energy is a number.
excess
    Median of u − ln |det| above the lowest conformer, less what harmonic stiff coordinates and free torsions would
    have, divided by all degrees of freedom; kT.
states
    Distinct conformers that ETKDG finds, minimised in the force field of the run; how many of them lie in the support
    of the coordinates.

The exit code is 1 if a molecule neither prepares nor is refused as unsupported (exit 3), or a figure is out of bounds.
With ``--train N`` the first N of a varied dozen go through ``boltzgen run --preset quick`` instead.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

MOLECULES = Path(__file__).parents[1] / "molecules"
COLUMNS = (
    *("molecule", "atoms", "slow + rotors + stiff", "force field", "s", "parity kJ/mol", "round trip nm", "log-det"),
    *("finite", "excess kT", "states (inside)"),
)

DOZEN = (
    *("ace_ala_nme", "butane", "cyclohexane", "ace_pro_nme", "ace_phe_nme", "aspirin"),
    *("butanenitrile", "glycerol", "ibuprofen", "tetrahydrofuran", "toluene", "camphor"),
)
"""What ``--train`` takes, from all files of molecules."""


def read_panel(path: Path) -> dict[str, str]:
    """SMILES by name."""
    return {name: smiles for smiles, name in map(str.split, path.read_text().splitlines())}


def chosen(panel: dict[str, str], names: list[str]) -> dict[str, str]:
    """The molecules of these names; a KeyError says what a name may stand for."""
    for name in names:
        if name not in panel:
            nearest = difflib.get_close_matches(name, panel, 1, cutoff=0.0)
            raise KeyError(
                f"--only {name}: no such molecule. Did you mean {nearest[0] if nearest else 'another file'}?"
            )
    return {name: panel[name] for name in names}


def command(name: str, smiles: str, folder: Path, limit: float, *arguments: str) -> dict[str, Any]:
    """One command of boltzgen: its JSON object with the exit code and the seconds that a user waits."""
    line = [sys.executable, "-m", "boltzgen", *arguments, "--smiles", smiles, "-o", str(folder / f"{name}.run")]
    start = time.monotonic()
    try:
        done = subprocess.run([*line, "--json"], capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"exit_code": None, "error": f"no end after {limit:g} s", "waited": limit}
    try:
        record = json.loads(done.stdout)
    except json.JSONDecodeError:
        record = {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return {**record, "exit_code": done.returncode, "waited": time.monotonic() - start}


def prepare_row(name: str, record: dict[str, Any]) -> str:
    if record["exit_code"] != 0:
        return f"| {name} | exit {record['exit_code']}: {reason(record)} |" + " |" * 9
    parity, check = record["parity"], record["coordinates_check"]
    return (
        f"| {name} | {record['n_atoms']} | {record['n_torsions'] - record['n_rotors']} + {record['n_rotors']} + "
        f"{record['n_stiff']} | {record['force_field']}, {record['solvent']} | {record['waited']:.0f} "
        f"| {number(parity['energy']):.1e} | {number(check['round_trip']):.1e} | {number(check['log_det']):.1e} "
        f"| {100 * number(check['finite']):.1f} % | {number(check['excess']):.2f} "
        f"| {check['states']} ({check['states_inside']}) |"
    )


def number(value: float | None) -> float:
    """JSON has no NaN, and says null."""
    return math.nan if value is None else value


def reason(record: dict[str, Any]) -> str:
    """The error without the SMILES that it quotes."""
    return re.sub(r"^SMILES: ('[^']*')?:? ?", "", str(record.get("error", "no reason given")).removeprefix("error: "))


def prepare_all(panel: dict[str, str], folder: Path, limit: float) -> list[dict[str, Any]]:
    print(f"| {' | '.join(COLUMNS)} |\n|" + "---|" * len(COLUMNS))
    rows = []
    for name, smiles in panel.items():
        record = command(name, smiles, folder, limit, "prepare")
        print(prepare_row(name, record), flush=True)
        check = record.get("coordinates_check")
        good = check["in_bounds"] and check["finite"] == 1.0 if check else record["exit_code"] == 3
        rows.append({"name": name, **record, "good": good})
    return rows


def summarise(rows: list[dict[str, Any]]) -> bool:
    """Print the line of summary; True if nothing is out of bounds."""
    checks = [row["coordinates_check"] for row in rows if row["exit_code"] == 0]
    refusals = Counter(f"exit {row['exit_code']}" for row in rows if row["exit_code"] != 0)
    print(f"\n{len(checks)} of {len(rows)} prepared; refused: {dict(refusals) or 'none'}", end="")
    if checks:
        worst = {key: np.max([number(c[key]) for c in checks]) for key in ("round_trip", "log_det", "excess")}
        print(
            f"; worst: round trip {worst['round_trip']:.1e} nm, log-det {worst['log_det']:.1e}, finite "
            f"{100 * min(c['finite'] for c in checks):.1f} %, excess {worst['excess']:.2f} kT (median "
            f"{np.median([number(c['excess']) for c in checks]):.2f}); {sum(c['states_inside'] for c in checks)} of "
            f"{sum(c['states'] for c in checks)} states inside"
        )
    bad = [row["name"] for row in rows if not row["good"]]
    print(f"\nout of bounds or failed: {', '.join(bad) or 'none'}")
    return not bad


def train_all(panel: dict[str, str], folder: Path, limit: float) -> list[dict[str, Any]]:
    print("| molecule | s | energies | ESS | k̂ | log Z | verdict |\n|" + "---|" * 7)
    rows = []
    for name, smiles in panel.items():
        record = command(name, smiles, folder, limit, "run", "--preset", "quick")
        rows.append({"name": name, **record, "good": record["exit_code"] in (0, 3)})
        if record["exit_code"] != 0:
            print(f"| {name} | exit {record['exit_code']}: {reason(record)} |" + " |" * 5, flush=True)
            continue
        ess, log_z = f"{100 * record['ess_fraction']:.1f} %", f"{record['log_z']:.3f} ± {record['log_z_stderr']:.3f}"
        print(
            f"| {name} | {record['waited']:.0f} | {record['n_energy_evaluations']:,} | {ess} | {record['khat']:.2f} "
            f"| {log_z} | {record['verdict']} |",
            flush=True,
        )
    shares = [row["ess_fraction"] for row in rows if row["exit_code"] == 0]
    if shares:
        median, least = 100 * np.median(shares), 100 * min(shares)
        print(f"\n{len(shares)} of {len(rows)} trained; ESS: median {median:.1f} %, least {least:.1f} %")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=MOLECULES / "panel.smi", help="SMILES and name on each line")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these molecules of it")
    parser.add_argument("--train", type=int, default=0, metavar="N", help="train the first N of a dozen instead")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds that one command may take")
    parser.add_argument("-o", "--output", type=Path, default=Path("panel.run"), help="folder of the run directories")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    panel = read_panel(arguments.file)
    if arguments.train:
        panel |= {**read_panel(MOLECULES / "amino_acids.smi"), **read_panel(MOLECULES / "panel.smi")}
        panel = {name: panel[name] for name in DOZEN[: arguments.train]}
    if arguments.only:
        try:
            panel = chosen(panel, arguments.only)
        except KeyError as error:
            parser.error(error.args[0])
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.train:
        rows = train_all(panel, arguments.output, arguments.limit)
        good = all(row["good"] for row in rows)
    else:
        rows = prepare_all(panel, arguments.output, arguments.limit)
        good = summarise(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1, default=str))
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
