"""The command sample: from a flow to weighted samples."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from boltzgen.config import Config
from boltzgen.progress import Progress
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.storage.atomic import sha256_of
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.trajectory import Frames, fill_trajectory
from boltzgen.workflow.load import load_flow
from boltzgen.workflow.stage import Context, Stage, StageResult, already_there, writing


def sample(run: Path, config: Config, context: Context) -> StageResult:
    """Draw weighted samples: ``samples.h5``, or one shard of it."""
    directory = RunDirectory(run)
    settings = config.sample
    output, n, seed = directory.samples_h5, settings.n, [config.seed]
    if settings.shard:
        index, count = (int(part) for part in settings.shard.split("/"))
        output = directory.shard_h5(index, count)
        n = settings.n * index // count - settings.n * (index - 1) // count
        seed = [config.seed, index, count]
    target, flow = load_flow(directory)
    parents = {"flow.h5": sha256_of(directory.flow_h5)}
    stage_config = {"sample": settings.model_dump(mode="json"), "seed": config.seed}
    stage = Stage("sample", output, stage_config, parents, target.temperature, config.seed, context)
    if stage.is_done():
        return already_there("sample", directory, output)
    torch.set_num_threads(1)
    generator = BoltzmannGenerator(target, flow)
    started = time.monotonic()

    def report(done: int) -> None:
        left = (time.monotonic() - started) * (n - done) / done
        context.reporter.progress(Progress("sample", done / n, left, {"samples": done}))

    with writing(directory, lock=settings.shard is None):
        drawn = generator.sample(n, seed=seed, batch_size=settings.batch_size, report=report)
        context.reporter.done("sample")
        frames = Frames(drawn.positions.astype(np.float32), drawn.log_prob, drawn.reduced_potential, drawn.log_weight)
        n_failed = int(np.sum(~np.isfinite(drawn.log_weight)))
        stage.write(
            lambda file: fill_trajectory(file, target.molecule, frames, target.temperature),
            {"n_energy_evaluations": n, "n_force_evaluations": 0, "n_failed": n_failed},
        )
    summary = {
        "n_samples": n,
        "n_failed": n_failed,
        "n_energy_evaluations": n,
        "n_force_evaluations": 0,
        "temperature": target.temperature,
        "seconds": time.monotonic() - started,
        "files": [str(output)],
    }
    text = f"sampled       {n:,} in {summary['seconds']:.0f} s, {n_failed} failed\nwritten       {output}"
    return StageResult("sample", directory.path, False, summary, text)
