"""What the project claims of its own answers, put to the test.

python benchmarks/trust.py exact [--seed 0]                  all systems with exact answers
python benchmarks/trust.py intervals [--targets 100] [--repeats 10] [--seed 0]     whether error bars are honest
python benchmarks/trust.py bugs [--only 0:10] [--cases 0:4] [--seed 0]             planted bugs: who is noticed
"""

from __future__ import annotations

import argparse
import warnings

import torch
from bugs import hunt
from exact import exact
from intervals import intervals


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
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.command == "exact":
        exact(options.seed)
    elif options.command == "intervals":
        intervals(options.targets, options.repeats, options.seed)
    else:
        hunt(options.only, options.cases, options.seed)


if __name__ == "__main__":
    main()
