"""All systems whose answers are known exactly, one line each."""

from __future__ import annotations

from boltzgen.selftest.catalog import SAMPLES, call_of, cases
from boltzgen.selftest.check import CaseResult, attempt_case


def exact(seed: int) -> None:
    """Run the full self-test, and print a table."""
    print("| system | ln Z | exact | z | largest of all z | failed checks | ESS | k̂ | s |")
    print(9 * "|---" + "|")
    rows = []
    for make in cases(quick=False):
        result = attempt_case(call_of(make), make, SAMPLES, seed, 1, lambda progress: None)
        rows += result.rows
        print(_line(result), flush=True)
    scores = [abs(row.z) for row in rows if row.z is not None]
    beyond = {limit: sum(z >= limit for z in scores) for limit in (1.96, 3.0, 4.0)}
    print(f"{len(rows)} checks, {sum(not row.is_met for row in rows)} failed; of {len(scores)} z beyond: {beyond}")


def _line(result: CaseResult) -> str:
    log_z = result.rows[0]
    if log_z.error is not None:
        return f"| {log_z.case} | {log_z.error} | | | | 1 of 1 | | | {result.seconds:.0f} |"
    z = "none" if log_z.z is None else f"{log_z.z:+.2f}"
    largest = max((abs(row.z) for row in result.rows if row.z is not None), default=float("nan"))
    failed = sum(not row.is_met for row in result.rows)
    return (
        f"| {log_z.case} | {log_z.value:.4f} | {log_z.exact:.4f} | {z} | {largest:.2f} of "
        f"{sum(row.z is not None for row in result.rows)} | {failed} | {100 * result.ess_fraction:.1f} % | "
        f"{result.khat:.2f} | {result.seconds:.0f} |"
    )
