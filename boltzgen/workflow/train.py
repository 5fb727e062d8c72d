"""The command train: from a target to a flow."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import h5py
import torch

from boltzgen.config import Config, TrainConfig
from boltzgen.errors import ConflictError, InputError
from boltzgen.flow.architecture import EXCHANGE_SHARE, Architecture
from boltzgen.flow.generator import Generator
from boltzgen.interrupts import Interrupts
from boltzgen.storage.atomic import atomic_write, open_hdf5, sha256_of
from boltzgen.storage.runs import RunDirectory, read_provenance
from boltzgen.storage.tree import get_tree, put_tree
from boltzgen.target import Target
from boltzgen.training.gradient import Sources
from boltzgen.training.history import history_columns
from boltzgen.training.trainer import Diverged, Trainer, TrainSettings
from boltzgen.training.weights import to_arrays
from boltzgen.workflow.basins import read_basins
from boltzgen.workflow.learning import load_data, method_of, reaction_coordinate
from boltzgen.workflow.load import available_cores, load_flow, load_target, resolve_device
from boltzgen.workflow.prepare import prepare
from boltzgen.workflow.stage import Context, Stage, StageResult, Summary, stored_summary, writing
from boltzgen.workflow.summary import train_text

PRESETS = {"quick": 600_000, "standard": 15_000_000, "thorough": 60_000_000}
"""Energy evaluations of a training run; where a draw takes more than one, as many as take about as long."""

CUMULATIVE = ("n_energy_evaluations", "n_force_evaluations", "n_exchange_energies", "n_failed", "frames", "seconds")
"""Counts of a training that those of the one before it are added to."""

EPOCHS = 10
"""Draws of each frame on average in a training on data alone, at most: more is learnt by heart."""


def train(source: str | None, smiles: str | None, run: Path | None, config: Config, context: Context) -> StageResult:
    """Train the flow by the method asked for: ``flow.h5`` and ``metrics.csv``; a molecule is prepared first."""
    method_of(config.train)  # refused before anything is prepared
    if source is not None and Path(source).is_dir():
        directory = RunDirectory(Path(source))
    else:
        prepared = prepare(source, smiles, run, config, context, keep_same=True)
        directory = RunDirectory(prepared.run)
        context.reporter.info(prepared.text)
    target = load_target(directory)
    settings = config.train
    device = resolve_device(settings.device)
    if settings.seed_basins:
        return train_on(directory, target, config, device, context)
    stage = train_stage(directory, target, config, device, context)
    with writing(directory):
        if stage.is_done():
            return stage.skipped()
        torch.set_num_threads(1)  # threads work on parts of a batch, not inside operations
        coordinate = reaction_coordinate(settings, target.molecule)
        data = load_data(settings, target, context.reporter)
        sources = Sources(data.frames if data else None, coordinate)
        trainer = _trainer(target, config, device, sources)
        if context.resume and directory.checkpoint_h5.exists():
            _resume(trainer, stage)
        return _run(trainer, stage, {"data": data.summary} if data else {})


def train_on(
    directory: RunDirectory, target: Target, config: Config, device: torch.device, context: Context
) -> StageResult:
    """Go on with a finished training, led to the basins that it has lost; the flow is replaced by a better one."""
    basins = read_basins(directory)
    _, flow, hottest = load_flow(directory)
    settings, before = config.train, stored_summary(directory.flow_h5)
    if not settings.max_energies and settings.time_budget is None:
        again = before["n_energy_evaluations"] or energy_budget(settings, flow.architecture)
        settings = settings.model_copy(update={"max_energies": again})
    settings = settings.model_copy(update={"start_temperature": max(hottest, target.temperature)})
    config = config.model_copy(update={"train": settings})
    stage = train_stage(directory, target, config, device, context)
    parents = {name: sha256_of(path) for name, path in basins.parents.items()}
    stage = replace(stage, parents=stage.parents | parents)
    with writing(directory):
        torch.set_num_threads(1)
        data = load_data(settings, target, context.reporter)
        sources = Sources(data.frames if data else None, reaction_coordinate(settings, target.molecule))
        trainer = _trainer(target, config, device, sources, flow)
        trainer.begin_from(flow, torch.as_tensor(basins.positions).permute(1, 2, 0).contiguous())
        if context.resume and directory.checkpoint_h5.exists():
            _resume(trainer, stage)
        context.reporter.info(f"goes on from {directory.flow_h5}, led to {', '.join(basins.states)}")
        learnt_from = {"data": data.summary} if data else {}
        earlier = {name: before[name] for name in CUMULATIVE}
        return _run(trainer, stage, {**learnt_from, "seeded_with": list(basins.states), "earlier": earlier})


def train_stage(
    directory: RunDirectory, target: Target, config: Config, device: torch.device, context: Context
) -> Stage:
    """The stage that trains in a prepared run."""
    return Stage(
        "train",
        directory,
        directory.flow_h5,
        # Without the device: a run may go on elsewhere, if not with the same random numbers. Data are known by content.
        {"train": config.train.model_dump(mode="json", exclude=_exclude(config.train)), "seed": config.seed},
        {"system.h5": sha256_of(directory.system_h5)}
        | {f"data {k}": sha256_of(Path(name)) for k, name in enumerate(config.train.data, start=1)},
        target.temperature,
        config.seed,
        context,
        train_text,
        device=str(device),
        dtype="float32",
    )


def _exclude(settings: TrainConfig) -> set[str]:
    """Settings that are no part of what is trained: where, data by their names, and what is not asked for."""
    return {"device", "data"} | (set() if settings.seed_basins else {"seed_basins"})


def energy_budget(settings: TrainConfig, architecture: Architecture, n_frames: int = 0) -> int | None:
    """Energy evaluations of a training, or draws of frames if it learns from these alone; None if a time ends it."""
    if settings.max_energies or settings.time_budget is not None:
        return settings.max_energies
    of_preset = PRESETS[settings.preset]
    if method_of(settings).learns_from_data_alone:
        return min(of_preset, EPOCHS * n_frames)
    of_points = of_preset * (1.0 - EXCHANGE_SHARE) / architecture.cost_of_point
    return round(of_points * architecture.energies_per_point / (1.0 - architecture.exchange_share))


def _run(trainer: Trainer, stage: Stage, learnt_from: Summary) -> StageResult:
    """Train to the end of the budget and write the flow, or leave a checkpoint and raise Interrupted."""
    directory, context = stage.directory, stage.context

    def summary() -> Summary:
        own = _summary(trainer, stage)
        before = learnt_from.get("earlier", {})
        return own | {name: own[name] + value for name, value in before.items()} | learnt_from

    def checkpoint() -> None:
        def fill(file: h5py.File) -> None:
            put_tree(file.create_group("trainer"), trainer.state())

        atomic_write(directory.metrics_csv, _csv(trainer.history))
        stage.write(fill, summary(), path=directory.checkpoint_h5)

    def fill(file: h5py.File) -> None:
        flow = trainer.result
        put_tree(file.create_group("architecture"), flow.architecture.to_dict())
        put_tree(file.create_group("weights"), to_arrays(flow.state_dict()))
        put_tree(file.create_group("temperatures"), {"lowest": stage.temperature, "highest": trainer.hottest})
        put_tree(file.create_group("history"), history_columns(trainer.history))

    with Interrupts(context.deadline) as interrupts:
        try:
            finished = trainer.run(context.reporter.progress, interrupts.keep_on, checkpoint)
        except Diverged as error:
            checkpoint()
            draws, batch = error.batch, directory.path / "diverged.h5"
            stage.write(lambda file: put_tree(file.create_group("batch"), draws), {}, path=batch)
            raise InputError(f"{error} The last good weights are in the checkpoint, the batch in {batch}.") from error
        if not finished:
            raise interrupts.error()
        context.reporter.done("train")
        atomic_write(directory.metrics_csv, _csv(trainer.history))
        result = stage.write(fill, summary(), files=[directory.metrics_csv])
        directory.checkpoint_h5.unlink(missing_ok=True)
        if interrupts.signalled:
            raise interrupts.error()
    return result


def _summary(trainer: Trainer, stage: Stage) -> Summary:
    best = trainer.held_out.best
    last = trainer.history[-1] if trainer.history else {"elbo_gap": math.nan, "held_out_nll": math.nan}
    return {
        **trainer.counts(),
        "method": stage.config["train"]["method"],
        "elbo_gap": last["elbo_gap"],
        "held_out_nll": best.loss if best else last["held_out_nll"],
        "seconds": trainer.counters.seconds,
        "threads": trainer.threads,
        "device": stage.device,
    }


def _trainer(
    target: Target, config: Config, device: torch.device, sources: Sources, trained: Generator | None = None
) -> Trainer:
    """A trainer with the settings of a run, of the architecture of a ``trained`` flow if it is to go on with that."""
    settings, method = config.train, method_of(config.train)
    fresh = Architecture.of(target.coordinates, relaxes=not method.through_slow)
    architecture = trained.architecture if trained else fresh
    train_settings = TrainSettings(
        max_energies=energy_budget(settings, architecture, len(sources.data.training) if sources.data else 0),
        time_budget=settings.time_budget,
        start_temperature=settings.start_temperature,
        exchange_share=settings.exchange_share,
        learning_rate=settings.learning_rate,
        seed=config.seed,
        method=method,
    )
    threads = config.threads or available_cores()
    return Trainer(target, architecture, train_settings, device, threads, sources)


def _resume(trainer: Trainer, stage: Stage) -> None:
    checkpoint = stage.directory.checkpoint_h5
    if read_provenance(checkpoint).fingerprint != stage.fingerprint:
        if stage.context.force:
            return
        raise ConflictError(
            f"{checkpoint} is of a training with other settings. Repeat those to go on, or begin anew with --no-resume."
        )
    with open_hdf5(checkpoint) as file:
        trainer.load_state(get_tree(file["trainer"]))
    done = trainer.counters
    stage.context.reporter.info(f"resumed at step {done.step}, {done.energies:,} energies, {done.seconds:.0f} s")


def _csv(history: list[dict[str, float]]) -> bytes:
    columns = history_columns(history)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([f"{value:.10g}" for value in row] for row in zip(*columns.values(), strict=True))
    return buffer.getvalue().encode()
