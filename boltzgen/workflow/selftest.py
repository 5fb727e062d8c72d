"""The command selftest: systems with exactly known answers through the whole road."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch

from boltzgen.config import Config
from boltzgen.errors import GateError
from boltzgen.progress import Progress
from boltzgen.selftest.check import MAX_LOG_Z_ERROR, MAX_Z, CaseResult, Row, attempt_case
from boltzgen.workflow.load import available_cores
from boltzgen.workflow.stage import Context, Result


def selftest(config: Config, context: Context, *, quick: bool) -> Result:
    """Train on every case, draw samples, and compare what their weights say with what is known; writes nothing."""
    # Imported here: the cases bring OpenMM, which a prepared run does without.
    from boltzgen.selftest.catalog import QUICK_SAMPLES, SAMPLES, call_of, cases

    torch.set_num_threads(1)
    results: list[CaseResult] = []
    makers = cases(quick=quick)
    for k, make in enumerate(makers):
        case_name = call_of(make)

        def report(progress: Progress, done: int = k, name: str = case_name) -> None:
            context.reporter.progress(
                Progress("selftest", (done + progress.fraction) / len(makers), None, {"case": name})
            )

        n = QUICK_SAMPLES if quick else SAMPLES
        results.append(attempt_case(case_name, make, n, config.seed, config.threads or available_cores(), report))
    context.reporter.done("selftest")
    rows = [row for result in results for row in result.rows]
    failed = [row for row in rows if not row.is_met]
    summary = {
        "quick": quick,
        "seed": config.seed,
        "n_checks": len(rows),
        "n_failed_checks": len(failed),
        "max_z": max((abs(row.z) for row in rows if row.z is not None), default=None),
        "cases": {
            result.rows[0].case: {
                "ess_fraction": result.ess_fraction,
                "khat": result.khat,
                "seconds": result.seconds,
                "checks": [asdict(row) for row in result.rows],
            }
            for result in results
        },
        "verdict": "FAILED" if failed else "OK",
        "seconds": context.seconds,
    }
    code = GateError.exit_code if failed else 0
    return Result("selftest", None, False, summary, _text(results, failed, context.seconds), code)


def _text(results: Sequence[CaseResult], failed: Sequence[Row], seconds: float) -> str:
    lines = [f"{'':34} {'value':>14} {'exact':>14} {'error bar':>10} {'z':>6}"]
    for result in results:
        worth = f"ESS {100.0 * result.ess_fraction:.1f} %, k {result.khat:.2f}, {result.seconds:.1f} s"
        lines.append(f"{result.rows[0].case}: {worth}")
        lines += [_line(row) for row in result.rows]
    n = sum(len(result.rows) for result in results)
    rule = f"|z| < {MAX_Z:g} and |error of ln Z| < {MAX_LOG_Z_ERROR:g}"
    verdict = f"{len(failed)} of {n} checks failed" if failed else f"all {n} checks met"
    lines += [f"{verdict} ({rule}), {seconds:.0f} s"]
    lines += [f"failed: {row.case}, {row.name}" + (f": {row.error}" if row.error else "") for row in failed]
    return "\n".join(lines)


def _line(row: Row) -> str:
    mark = "" if row.is_met else "  FAILED"
    if row.error is not None:
        return f"  {row.error}{mark}"
    if row.limit is not None:
        return f"  {row.name:32} {row.value:14.1e} {'below':>14} {row.limit:10.0e} {'':6}{mark}"
    if row.least is not None:
        return f"  {row.name:32} {row.value:14.3f} {'above':>14} {row.least:10.2f} {'':6}{mark}"
    if row.stderr is None or row.z is None:
        return f"  {row.name:32} {row.value:14.6f} {row.exact:14.6f} {'none':>10} {'':6}{mark}"
    return f"  {row.name:32} {row.value:14.6f} {row.exact:14.6f} {row.stderr:10.5f} {row.z:+6.2f}{mark}"
