"""The commands run and info: everything at once, and what there is."""

from __future__ import annotations

import json
from pathlib import Path

from boltzgen.config import Config
from boltzgen.errors import BoltzgenError, InputError
from boltzgen.storage.runs import Provenance, RunDirectory, check_parent, read_provenance
from boltzgen.workflow.analyze import analyze
from boltzgen.workflow.reweight import reweight
from boltzgen.workflow.sample import sample
from boltzgen.workflow.stage import Context, StageResult, stored_summary
from boltzgen.workflow.train import train


def run_all(source: str | None, smiles: str | None, run: Path | None, config: Config, context: Context) -> StageResult:
    """Everything: prepare, train, sample, reweight, analyze."""
    results = [train(source, smiles, run, config, context)]
    directory = results[0].run
    for stage in (sample, reweight, analyze):
        context.reporter.info(results[-1].text)
        context.check_deadline()
        results.append(stage(directory, config, context))
    system = stored_summary(RunDirectory(directory).system_h5)
    parts = [system, results[0].summary, results[1].summary]
    summary = {
        **results[-1].summary,
        "n_energy_evaluations": sum(part["n_energy_evaluations"] for part in parts),
        "n_force_evaluations": sum(part["n_force_evaluations"] for part in parts),
        "seconds": context.seconds,
        "skipped_stages": [result.command for result in results if result.skipped],
    }
    title = f"{system['formula']}  {system['smiles']}  {system['force_field']} + {system['solvent']}"
    cost = f"{summary['n_energy_evaluations']:,} energies, {context.seconds:.0f} s, seed {config.seed}"
    text = "\n".join([title, results[-1].text, f"cost          {cost}"])
    skipped = all(result.skipped for result in results)
    return StageResult("run", directory, skipped, summary, text, results[-1].exit_code)


def info(path: Path) -> StageResult:
    """Tell what a run directory or one of its files holds."""
    files = sorted(path.glob("*.h5")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no HDF5 file of boltzgen.")
    lines, summary = [], {}
    for file in files:
        record = read_provenance(file)
        summary[file.name] = {
            "stage": record.stage,
            "created_utc": record.created_utc,
            "package_version": record.package_version,
            "temperature": record.temperature,
            "config": record.config,
            "parents": record.parents,
            "seeds": record.seeds,
        }
        stored = json.loads(record.extra["summary"])
        summary[file.name]["summary"] = stored
        shown = {name: value for name, value in stored.items() if isinstance(value, int | float | str)}
        details = ", ".join(f"{name} {_short(value)}" for name, value in shown.items())
        lines.append(
            f"{file.name:<16}{record.stage}, {record.created_utc}, boltzgen {record.package_version}\n  {details}"
        )
        lines += [f"  {_lineage(record, file.parent / name)}" for name in record.parents if name.endswith(".h5")]
    directory = path if path.is_dir() else path.parent
    return StageResult("info", directory, False, {"contents": summary}, "\n".join(lines))


def _short(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _lineage(record: Provenance, parent: Path) -> str:
    """Whether a parent is there as it was when the file was made from it."""
    try:
        check_parent(record, parent)
    except BoltzgenError as error:
        return f"made from {parent.name}: {error}"
    return f"made from {parent.name}, unchanged"
