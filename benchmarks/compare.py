"""Populations of an analysed run beside those of a replica-exchange reference, with z-scores.

    python benchmarks/compare.py alanine_dipeptide.run reference.npz

Prints, for each basin of the first residue, both populations with their standard errors and the difference in units
of the combined error. Exits with 1 if any differs by more than 3.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import h5py
import numpy as np
from replica_exchange import STATES, batch_error, block_means

from boltzgen.storage.tree import get_tree


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("reference", type=Path, help="npz file of replica_exchange.py")
    parser.add_argument("--blocks", type=int, default=4, help="blocks per seed for the errors of the reference")
    arguments = parser.parse_args()
    with h5py.File(arguments.run / "analysis.h5") as file:
        analysis = get_tree(file["analysis"])
    stored = np.load(arguments.reference)
    n_runs = len(stored["phi"])
    runs = [{name: stored[name][k] for name in stored.files if name != "temperatures"} for k in range(n_runs)]
    table = block_means(runs, arguments.blocks)
    label = next(iter(analysis["residues"]))
    print(f"{'state':<8}{'flow':>22}{'replica exchange':>22}{'z':>8}")
    worst = 0.0
    for name, value, error in zip(STATES, table.mean(axis=(0, 1)), batch_error(table), strict=True):
        flow = analysis["populations"][f"{label}:{name}"]
        stderr = flow.get("stderr", np.nan)
        z = (flow["value"] - value) / np.hypot(stderr, error)
        worst = np.fmax(worst, abs(z))
        print(f"{name:<8}{flow['value']:>12.5f} ± {stderr:.5f}{value:>12.5f} ± {error:.5f}{z:>8.2f}")
    return int(worst > 3.0)


if __name__ == "__main__":
    sys.exit(main())
