"""The command train: from a target to a flow."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import h5py
import torch

from boltzgen.config import Config, TrainConfig
from boltzgen.errors import ConflictError
from boltzgen.flow.generator import Architecture
from boltzgen.interrupts import Interrupts
from boltzgen.progress import Reporter
from boltzgen.storage.atomic import atomic_write, open_hdf5, sha256_of
from boltzgen.storage.runs import RunDirectory, fingerprint, read_provenance
from boltzgen.storage.tree import get_tree, put_tree
from boltzgen.target import Target
from boltzgen.training.trainer import Trainer, TrainSettings, history_columns, to_arrays
from boltzgen.workflow.load import available_cores, load_target, resolve_device
from boltzgen.workflow.prepare import prepare
from boltzgen.workflow.stage import Context, Stage, StageResult, already_there, writing

PRESETS = {"quick": 600_000, "standard": 4_000_000, "thorough": 20_000_000}
"""Energy evaluations of a training run."""


def train(source: str | None, smiles: str | None, run: Path | None, config: Config, context: Context) -> StageResult:
    """Train the flow from energies alone: ``flow.h5`` and ``metrics.csv``; a molecule is prepared first."""
    prepared = source is not None and Path(source).is_dir()
    if prepared:
        directory = RunDirectory(Path(str(source)))
    else:
        result = prepare(source, smiles, run, config, context)
        directory = RunDirectory(result.run)
        context.reporter.info(result.text)
    target, _ = load_target(directory)
    settings = config.train
    # What is computed does not depend on the device, so a run may go on elsewhere.
    stage_config = {"train": settings.model_dump(mode="json", exclude={"device"}), "seed": config.seed}
    device = resolve_device(settings.device)
    parents = {"system.h5": sha256_of(directory.system_h5)}
    stage = Stage(
        "train", directory.flow_h5, stage_config, parents, target.temperature, config.seed, context, str(device)
    )
    if stage.is_done():
        return already_there("train", directory, directory.flow_h5)
    torch.set_num_threads(1)  # threads work on parts of a batch, not inside operations
    with writing(directory):
        trainer = _trainer(target, settings, config.seed, device, config.threads or available_cores())
        if context.resume and directory.checkpoint_h5.exists():
            _resume(trainer, stage, directory, context.reporter)

        def checkpoint() -> None:
            def fill(file: h5py.File) -> None:
                put_tree(file.create_group("trainer"), trainer.state())

            stage.write(fill, trainer.counts(), directory.checkpoint_h5)
            atomic_write(directory.metrics_csv, _csv(trainer.history))

        with Interrupts(context.deadline) as interrupts:
            finished = trainer.run(context.reporter.progress, interrupts.keep_on, checkpoint)
        if not finished:
            raise interrupts.error()
        context.reporter.done("train")

        def fill(file: h5py.File) -> None:
            put_tree(file.create_group("architecture"), trainer.average.architecture.to_dict())
            put_tree(file.create_group("weights"), to_arrays(trainer.average.state_dict()))
            put_tree(file.create_group("history"), history_columns(trainer.history))

        counts = trainer.counts()
        atomic_write(directory.metrics_csv, _csv(trainer.history))
        stage.write(fill, counts)
        directory.checkpoint_h5.unlink(missing_ok=True)
    last = trainer.history[-1]
    text = (
        f"trained       {counts['n_energy_evaluations']:,} energies with forces in {trainer.seconds:.0f} s "
        f"on {device}; {counts['skipped_steps']} steps skipped, {counts['n_failed']} energies failed\n"
        f"written       {directory.flow_h5}, {directory.metrics_csv}"
    )
    summary = {
        **counts,
        "temperature": target.temperature,
        "elbo_gap": last["elbo_gap"],
        "seconds": trainer.seconds,
        "files": [str(directory.flow_h5), str(directory.metrics_csv)],
    }
    return StageResult("train", directory.path, False, summary, text)


def _trainer(target: Target, settings: TrainConfig, seed: int, device: torch.device, threads: int) -> Trainer:
    budget = settings.max_energies or (PRESETS[settings.preset] if settings.time_budget is None else None)
    train_settings = TrainSettings(
        max_energies=budget,
        time_budget=settings.time_budget,
        start_temperature=settings.start_temperature,
        learning_rate=settings.learning_rate,
        seed=seed,
    )
    coordinates = target.coordinates
    return Trainer(target, Architecture(coordinates.n_torsions, coordinates.n_stiff), train_settings, device, threads)


def _resume(trainer: Trainer, stage: Stage, directory: RunDirectory, reporter: Reporter) -> None:
    record = read_provenance(directory.checkpoint_h5)
    if record.fingerprint != fingerprint(stage.config, stage.parents):
        raise ConflictError(
            f"{directory.checkpoint_h5} is of a training with other settings. "
            "Repeat those to go on, or begin anew with --no-resume."
        )
    with open_hdf5(directory.checkpoint_h5) as file:
        trainer.load_state(get_tree(file["trainer"]))
    reporter.info(f"resumed at step {trainer.step}, {trainer.energies:,} energies, {trainer.seconds:.0f} s")


def _csv(history: list[dict[str, float]]) -> bytes:
    columns = history_columns(history)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{value:.10g}" for value in row] for row in zip(*columns.values(), strict=True))
    return buffer.getvalue().encode()
