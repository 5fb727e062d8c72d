"""The command reweight: from samples to ensembles at one or more temperatures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from boltzgen.config import Config
from boltzgen.statistics.weights import pareto_smooth, summarize_weights
from boltzgen.storage.atomic import sha256_of
from boltzgen.storage.runs import RunDirectory, check_parent, read_provenance
from boltzgen.storage.trajectory import Frames, fill_trajectory, read_trajectory
from boltzgen.storage.tree import put_tree
from boltzgen.workflow.load import load_target
from boltzgen.workflow.stage import Context, Stage, StageResult, already_there, writing
from boltzgen.workflow.summary import weight_keys, with_error


def reweight(run: Path, config: Config, context: Context) -> StageResult:
    """Merge the samples and weight them for one or more temperatures: ``ensemble.h5``."""
    directory = RunDirectory(run)
    files = directory.sample_files()
    records = [read_provenance(file) for file in files]
    for record in records:
        check_parent(record, directory.flow_h5)
    target, _ = load_target(directory)
    temperatures = config.reweight.temperatures or (target.temperature,)
    parents = {file.name: sha256_of(file) for file in files}
    stage_config = {"reweight": {"temperatures": list(temperatures)}}
    stage = Stage("reweight", directory.ensemble_h5, stage_config, parents, temperatures[0], config.seed, context)
    if stage.is_done():
        return already_there("reweight", directory, directory.ensemble_h5)
    started = time.monotonic()
    drawn = _merged([read_trajectory(file) for file in files])
    lines, by_temperature, trees = [], {}, {}
    for temperature in temperatures:
        u = drawn.reduced_potential * (target.temperature / temperature)
        log_weight = -u - drawn.log_prob
        weights = summarize_weights(log_weight)
        by_temperature[f"{temperature:g}"] = asdict(weights)
        trees[f"{temperature:g}"] = {
            "temperature": temperature,
            "log_weight": log_weight,
            "smoothed_log_weight": pareto_smooth(log_weight)[1],
            "summary": _storable(asdict(weights)),
        }
        lines.append(
            f"{temperature:6.1f} K      ESS {weights.ess:,.0f} of {weights.n_samples:,} "
            f"({100 * weights.ess_fraction:.1f} %), Pareto k {weights.khat:.2f}, log Z "
            f"{with_error(weights.log_z, weights.log_z_stderr)}"
        )
    first = trees[f"{temperatures[0]:g}"]
    u = drawn.reduced_potential * (target.temperature / temperatures[0])
    frames = Frames(drawn.positions, drawn.log_prob, u, first["log_weight"])

    def fill(file: h5py.File) -> None:
        fill_trajectory(file, target.molecule, frames, temperatures[0])
        put_tree(file.create_group("temperatures"), trees)

    with writing(directory):
        stage.write(fill, {"temperatures": [f"{t:g}" for t in temperatures]})
    summary = {
        **weight_keys(by_temperature[f"{temperatures[0]:g}"]),
        "temperature": temperatures[0],
        "temperatures": by_temperature,
        "seconds": time.monotonic() - started,
        "files": [str(directory.ensemble_h5)],
    }
    text = "\n".join([*lines, f"written       {directory.ensemble_h5}"])
    return StageResult("reweight", directory.path, False, summary, text)


def _merged(parts: list[Frames]) -> Frames:
    names = ("positions", "log_prob", "reduced_potential", "log_weight")
    return Frames(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _storable(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: {str(n): v for n, v in x.items()} if isinstance(x, dict) else x for k, x in values.items()}
