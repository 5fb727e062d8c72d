"""The commands run and info: everything at once, and what there is."""

from __future__ import annotations

from pathlib import Path

from boltzgen.config import Config
from boltzgen.errors import InputError
from boltzgen.storage.runs import RunDirectory, read_provenance
from boltzgen.workflow.analyze import analyze
from boltzgen.workflow.reweight import reweight
from boltzgen.workflow.sample import sample
from boltzgen.workflow.stage import Context, StageResult
from boltzgen.workflow.train import train


def run_all(source: str | None, smiles: str | None, run: Path | None, config: Config, context: Context) -> StageResult:
    """Everything: prepare, train, sample, reweight, analyze."""
    results = [train(source, smiles, run, config, context)]
    directory = results[0].run
    for stage in (sample, reweight, analyze):
        context.reporter.info(results[-1].text)
        results.append(stage(directory, config, context))
    training = read_provenance(RunDirectory(directory).flow_h5).extra
    system = read_provenance(RunDirectory(directory).system_h5).extra
    n_samples = results[-1].summary["n_samples"]
    summary = {
        **results[-1].summary,
        "n_energy_evaluations": training["n_energy_evaluations"] + system["n_energy_evaluations"] + n_samples,
        "n_force_evaluations": training["n_force_evaluations"] + system["n_energy_evaluations"],
        "seconds": context.seconds,
        "skipped_stages": [result.command for result in results if result.skipped],
    }
    title = f"{system['formula']}  {system['smiles']}  {system['force_field']} + {system['solvent']}"
    cost = f"{summary['n_energy_evaluations']:,} energies, {context.seconds:.0f} s"
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
        details = ", ".join(
            f"{k} {v}" for k, v in record.extra.items() if isinstance(v, int | float | str) and "\n" not in str(v)
        )
        lines.append(f"{file.name:<16}{record.stage}, {record.created_utc}, {record.temperature:g} K; {details}")
    directory = path if path.is_dir() else path.parent
    return StageResult("info", directory, False, {"contents": summary}, "\n".join(lines))
