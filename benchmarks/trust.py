"""How many planted bugs the quick self-test notices.

    python benchmarks/trust.py [--only 0:10] [--cases 0:4] [--seed 0]

Each bug of ``planted.py`` is active from the making of a case on, training included. Cases run in the order of the
catalog until one check fails, or a case ends in an error.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch
from planted import BUGS, Patch

from boltzgen.selftest.catalog import QUICK_SAMPLES, cases
from boltzgen.selftest.check import run_case


def noticed(patch: Patch, seed: int, which: slice) -> str | None:
    """What gives a bug away in some of the cases, or None."""
    with patch():
        for make in cases(quick=True)[which]:
            try:
                result = run_case(make(), QUICK_SAMPLES, seed, 1, lambda progress: None)
            except Exception as error:  # any end but a table of met checks is noticed
                return f"{type(error).__name__}: {str(error)[:60]}"
            failed = [row for row in result.rows if not row.is_met]
            if failed:
                row = failed[0]
                by = f"z {row.z:+.1f}" if row.z is not None else f"{row.value:.1e}"
                return f"{row.case}, {row.name}: {by}; {len(failed)} of {len(result.rows)} checks"
    return None


def part(text: str) -> slice:
    """A slice, as Python writes it."""
    return slice(*(int(bound) if bound else None for bound in text.split(":")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=":", help="a slice of the list")
    parser.add_argument("--cases", default=":", help="a slice of the cases")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    caught = 0
    chosen = list(BUGS.items())[part(arguments.only)]
    for name, patch in chosen:
        started = time.process_time()
        by = noticed(patch, arguments.seed, part(arguments.cases))
        caught += by is not None
        print(f"{name:48} {by or 'SURVIVED':90} {time.process_time() - started:5.1f} s", flush=True)
    print(f"{caught} of {len(chosen)} noticed")


if __name__ == "__main__":
    main()
