"""The command reweight: from samples to ensembles at one or more temperatures."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from boltzgen.config import Config
from boltzgen.errors import ConflictError, InputError
from boltzgen.statistics.weights import log_weights_at, pareto_smooth, summarize_weights
from boltzgen.storage.atomic import sha256_of
from boltzgen.storage.runs import Provenance, RunDirectory
from boltzgen.storage.trajectory import Frames, fill_trajectory, read_trajectory
from boltzgen.storage.tree import put_tree
from boltzgen.workflow.load import check_samples, load_target
from boltzgen.workflow.other_energy import build_energy, open_request, reduced_potentials
from boltzgen.workflow.stage import Context, Stage, StageResult, Summary, writing
from boltzgen.workflow.summary import reweight_text, weight_keys


def reweight(run: Path, config: Config, context: Context) -> StageResult:
    """Merge the samples and weight them for one or more temperatures: ``ensemble.h5``.

    With another force field or System the energies of all samples are computed anew under it.
    """
    directory = RunDirectory(run)
    files = directory.sample_files()
    drawn_at = _drawn_at(directory)
    target = load_target(directory)
    temperatures = config.reweight.temperatures or (drawn_at,)
    request = open_request(directory, config.reweight)
    stage = Stage(
        "reweight",
        directory,
        directory.ensemble_h5,
        {"reweight": {"temperatures": list(temperatures), **(request.settings if request else {})}},
        {file.name: sha256_of(file) for file in files} | (request.parents if request else {}),
        temperatures[0],
        config.seed,
        context,
        reweight_text,
    )
    with writing(directory):
        if stage.is_done():
            return stage.skipped()
        started = time.monotonic()
        drawn = _merged([read_trajectory(file) for file in files])
        other = None
        if request is not None:
            other = build_energy(directory, target, request, config.seed, context.reporter)
            u = reduced_potentials(other, drawn.positions, drawn_at, context.reporter)
            drawn = replace(drawn, reduced_potential=u, log_weight=-u - drawn.log_prob)
        if not np.isfinite(drawn.log_weight).any():
            raise InputError("none of the samples has a finite energy. Train longer, and check the input structure.")
        ensembles = {f"{t:g}": _at_temperature(drawn, drawn_at, t) for t in temperatures}
        first = ensembles[f"{temperatures[0]:g}"]
        u = drawn.reduced_potential * (drawn_at / temperatures[0])
        frames = replace(drawn, reduced_potential=u, log_weight=first["log_weight"])

        def fill(file: h5py.File) -> None:
            fill_trajectory(file, target.molecule, frames, temperatures[0])
            put_tree(file.create_group("temperatures"), ensembles)
            if other is not None:
                put_tree(file.create_group("potential"), other.potential.to_tree())

        summary: Summary = {
            **first["summary"],
            "temperatures": {name: ensemble["summary"] for name, ensemble in ensembles.items()},
            "merged_files": len(files),
            **({"force_field": other.force_field, "solvent": other.solvent} if other else {}),
            "n_energy_evaluations": len(drawn.positions) if other else 0,
            "seconds": time.monotonic() - started,
        }
        return stage.write(fill, summary)


def _drawn_at(directory: RunDirectory) -> float:
    """The temperature that the samples were drawn for, after checking that all have one density and none comes twice.

    Raises
    ------
    ConflictError
        If files were drawn with different settings, shards of one set with different seeds, or two under one seed.
    """
    records = check_samples(directory)
    shards = [record for record in records if record.config["sample"]["shard"]]
    whole = {json.dumps([record.config["sample"]["n"], record.config["seed"]]) for record in shards}
    if len({_density(record) for record in records}) > 1 or len(whole) > 1:
        raise ConflictError(f"the samples in {directory.path} were drawn with different settings. Draw them alike.")
    first: dict[tuple[int, str | None], Provenance] = {}
    for record in records:
        stream = record.config["seed"], record.config["sample"]["shard"]
        if stream in first:
            raise ConflictError(
                f"{first[stream].path} and {record.path} were drawn under the same seed {stream[0]}: they are the same "
                "samples. Remove one of them."
            )
        first[stream] = record
    return records[0].temperature


def _density(record: Provenance) -> str:
    """What all samples must share for their densities and weights to be of one kind."""
    sample = record.config["sample"]
    return json.dumps({k: v for k, v in sample.items() if k not in ("n", "shard", "batch_size")}, sort_keys=True)


def _at_temperature(drawn: Frames, drawn_at: float, temperature: float) -> dict[str, Any]:
    """The samples weighted for a temperature, as a tree to be stored."""
    log_weight = log_weights_at(drawn.reduced_potential, drawn.log_prob, drawn_at, temperature)
    return {
        "temperature": temperature,
        "log_weight": log_weight,
        "smoothed_log_weight": pareto_smooth(log_weight)[1],
        "summary": weight_keys(_plain(asdict(summarize_weights(log_weight)))),
    }


def _merged(parts: list[Frames]) -> Frames:
    names = ("positions", "log_prob", "reduced_potential", "log_weight")
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
    return Frames(*columns, inner=parts[0].inner, refine=parts[0].refine)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
