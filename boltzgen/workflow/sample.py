"""The command sample: from a flow to weighted samples."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from boltzgen.config import Config, SampleConfig
from boltzgen.errors import ConflictError, InputError
from boltzgen.progress import Progress
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.statistics.weights import kish_ess
from boltzgen.storage.atomic import sha256_of
from boltzgen.storage.runs import RunDirectory, read_provenance
from boltzgen.storage.trajectory import Frames, fill_trajectory
from boltzgen.workflow.load import drawing_temperatures, load_flow
from boltzgen.workflow.stage import Context, Stage, StageResult, writing
from boltzgen.workflow.summary import sample_text


def sample(run: Path, config: Config, context: Context) -> StageResult:
    """Draw weighted samples: ``samples.h5``, one shard of it, or more under another seed."""
    directory = RunDirectory(run)
    settings = config.sample
    output, n, seed = directory.samples_h5, settings.n, [config.seed]
    if settings.add:
        output = directory.seed_h5(config.seed)
        _check_added(directory, settings, config.seed)
    if settings.shard:
        index, count = (int(part) for part in settings.shard.split("/"))
        output = directory.shard_h5(index, count)
        n = settings.n * index // count - settings.n * (index - 1) // count
        seed = [config.seed, index, count]
        _check_shard(directory, settings.n, count)
    target, flow, hottest = load_flow(directory)
    temperatures = drawing_temperatures(settings, target, hottest)
    seed += _words_of_data(directory)
    stage = Stage(
        "sample",
        directory,
        output,
        {"sample": settings.model_dump(mode="json", exclude={"add"}), "seed": config.seed},
        {"flow.h5": sha256_of(directory.flow_h5)},
        target.temperature,
        config.seed,
        context,
        sample_text,
    )
    with writing(directory, lock=settings.shard is None):
        if stage.is_done():
            return stage.skipped()
        torch.set_num_threads(1)
        started = time.monotonic()

        def report(done: int) -> None:
            context.check_deadline()
            left = (time.monotonic() - started) * (n - done) / done if done else None
            context.reporter.progress(Progress("sample", done / n, left, {"samples": done}))

        report(0)
        drawn = BoltzmannGenerator(target, flow, temperatures=temperatures).sample(
            n,
            inner=settings.inner,
            refine=settings.refine,
            seed=seed,
            batch_size=settings.batch_size,
            report=report,
        )
        context.reporter.done("sample")
        frames = Frames(
            drawn.positions.astype(np.float32),
            drawn.log_prob,
            drawn.reduced_potential,
            drawn.log_weight,
            inner=settings.inner,
            refine=settings.refine,
        )
        failed = ~np.isfinite(drawn.log_weight)
        ess = 0.0 if failed.all() else kish_ess(drawn.log_weight)
        summary = {
            "n_samples": n,
            "n_failed": int(failed.sum()),
            "n_energy_evaluations": drawn.n_energy_evaluations,
            "n_force_evaluations": drawn.n_force_evaluations,
            "inner": settings.inner,
            "refine": settings.refine,
            "drawn_at": {f"{t:g}": share for t, share in temperatures.items()},
            "ess": ess,
            "ess_fraction": ess / n,
            "flow_ess_fraction": drawn.flow_ess_fraction,
            "acceptance": drawn.acceptance,
            "seconds": time.monotonic() - started,
        }
        return stage.write(lambda file: fill_trajectory(file, target.molecule, frames, target.temperature), summary)


def _words_of_data(directory: RunDirectory) -> list[int]:
    """Numbers that set the random stream apart from that of the frames that a flow has learnt from.

    Samples of another flow under the same seed come from the same base noise. A flow that has learnt from them would
    send it to nearly the same places, where it knows its data by heart: log Z came out 0.1 too low.
    """
    parents = read_provenance(directory.flow_h5).parents
    return [int(digest[:16], 16) for name, digest in sorted(parents.items()) if name.startswith("data ")]


def _check_added(directory: RunDirectory, settings: SampleConfig, seed: int) -> None:
    if settings.shard:
        raise InputError("--add draws one file, and --shard a part of one. Leave one of them out.")
    for file in (directory.samples_h5, *sorted(directory.path.glob("samples-*-of-*.h5"))):
        if file.exists() and read_provenance(file).config["seed"] == seed:
            raise InputError(f"{file} was drawn under the seed {seed} already. Give another --seed.")


def _check_shard(directory: RunDirectory, n: int, count: int) -> None:
    if count > n:
        raise InputError(f"{n} samples cannot be split into {count} shards. Ask for more samples or fewer shards.")
    if directory.samples_h5.exists():
        raise ConflictError(f"{directory.samples_h5} holds all samples already. Move it away before sampling shards.")
