"""What the project claims of its own answers, put to the test.

python benchmarks/trust.py exact [--seed 0]                  all systems with exact answers
python benchmarks/trust.py intervals [--targets 100] [--repeats 10] [--seed 0]     whether error bars are honest
python benchmarks/trust.py zoo FOLDER [--basins 6] [--honest 4] [--seed 100]          damaged flows: who is caught
python benchmarks/trust.py bugs [--only 0:10] [--cases 0:4] [--seed 0]             planted bugs: who is noticed

FOLDER has trained runs of other molecules, named peptide-NAME.run and ring-NAME.run.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch
from bugs import hunt
from exact import exact
from intervals import intervals
from zoo import FACTORS, zoo


def part(text: str) -> slice:
    """A slice, as Python writes it."""
    return slice(*(int(bound) if bound else None for bound in text.split(":")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("exact", "intervals", "bugs"):
        commands.add_parser(name).add_argument("--seed", type=int, default=0)
    commands.choices["intervals"].add_argument("--targets", type=int, default=100)
    commands.choices["intervals"].add_argument("--repeats", type=int, default=10)
    commands.choices["bugs"].add_argument("--only", type=part, default=":", help="a slice of the list")
    commands.choices["bugs"].add_argument("--cases", type=part, default=":", help="a slice of the cases")
    menagerie = commands.add_parser("zoo")
    menagerie.add_argument("folder", type=Path)
    menagerie.add_argument("--basins", type=int, default=6, help="of each system, the largest first")
    menagerie.add_argument("--honest", type=int, default=4, help="visits of each undamaged flow")
    menagerie.add_argument("--shrink", nargs="+", choices=list(FACTORS), default=list(FACTORS))
    menagerie.add_argument("--seed", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.command == "exact":
        exact(options.seed)
    elif options.command == "intervals":
        intervals(options.targets, options.repeats, options.seed)
    elif options.command == "zoo":
        zoo(options.folder, options.shrink, options.basins, options.honest, options.seed)
    else:
        hunt(options.only, options.cases, options.seed)


if __name__ == "__main__":
    main()
