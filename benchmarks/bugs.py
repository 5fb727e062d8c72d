"""How many planted bugs the quick self-test notices.

Each bug of ``planted.py`` is active from the making of a case on, training included. Cases run in the order of the
catalog until one check fails, or a case ends in an error.
"""

from __future__ import annotations

import time

from planted import BUGS, Patch

from boltzgen.selftest.catalog import QUICK_SAMPLES, call_of, cases
from boltzgen.selftest.check import attempt_case


def noticed(patch: Patch, seed: int, which: slice) -> str | None:
    """What gives a bug away in some of the cases, or None."""
    with patch():
        for make in cases(quick=True)[which]:
            result = attempt_case(call_of(make), make, QUICK_SAMPLES, seed, 1, lambda progress: None)
            failed = [row for row in result.rows if not row.is_met]
            if failed:
                row = failed[0]
                if row.error is not None:
                    return f"{row.case}: {row.error[:60]}"
                by = f"z {row.z:+.1f}" if row.z is not None else f"{row.value:.1e}"
                return f"{row.case}, {row.name}: {by}; {len(failed)} of {len(result.rows)} checks"
    return None


def hunt(only: slice, which: slice, seed: int) -> None:
    """Print what notices each bug."""
    caught = 0
    chosen = list(BUGS.items())[only]
    for name, patch in chosen:
        started = time.process_time()
        by = noticed(patch, seed, which)
        caught += by is not None
        print(f"{name:48} {by or 'SURVIVED':90} {time.process_time() - started:5.1f} s", flush=True)
    print(f"{caught} of {len(chosen)} noticed")
