"""What prepare, train and run would do with a molecule: read and judged as by them, with nothing written."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from boltzgen.config import Config
from boltzgen.constants import thermal_energy
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.storage.runs import RunDirectory
from boltzgen.target import Target
from boltzgen.training.footprint import training_memory
from boltzgen.training.objectives import PAIR_SOFTENING
from boltzgen.workflow.energy import checked_energy
from boltzgen.workflow.learning import method_of, reaction_coordinate, read_data
from boltzgen.workflow.load import available_cores, load_target, resolve_device
from boltzgen.workflow.prepare import describe, is_prepared, open_request
from boltzgen.workflow.stage import Context, StageResult, Summary, stored_summary
from boltzgen.workflow.summary import preview_text
from boltzgen.workflow.train import energy_budget, train_stage

if TYPE_CHECKING:
    from boltzgen.chemistry.build import ChemicalSystem


def preview(
    source: str | None, smiles: str | None, run: Path | None, config: Config, context: Context, *, trains: bool
) -> StageResult:
    """The plan of ``prepare`` or, if it ``trains``, of ``train`` and ``run``, for a molecule or a prepared run.

    Fails as the command itself would on its input, its output and its device.
    """
    done = []
    method = method_of(config.train)
    if source is not None and Path(source).is_dir():
        directory = RunDirectory(Path(source))
        target = load_target(directory)
        plan = stored_summary(directory.system_h5)
        done.append("prepare")
    else:
        request = open_request(source, smiles, run, config, context)
        directory = request.stage.directory
        if is_prepared(request.stage, keep_same=trains):
            done.append("prepare")
        chemical = request.build()
        for warning in chemical.warnings:
            context.reporter.warn(warning)
        target = load_target(directory) if done else _unfitted_target(chemical, config, context)
        plan = {
            **describe(chemical, target.coordinates),
            "temperature": config.prepare.temperature,
            "seed": config.seed,
        }
    device = resolve_device(config.train.device if trains else "auto")
    n_frames = 0
    if trains:
        reaction_coordinate(config.train, target.molecule)
        n_frames = sum(len(file.positions) for file in read_data(config.train, target.molecule, target.temperature))
    if trains and done and train_stage(directory, target, config, device, context).is_done():
        done.append("train")
    architecture = Architecture.of(target.coordinates, relaxes=not method.through_slow)
    budget = energy_budget(config.train, architecture, n_frames)
    memory = training_memory(
        target, architecture, device, config.threads or available_cores(), method, budget or math.inf
    )
    training: Summary = {
        "n_parameters": sum(parameter.numel() for parameter in Generator(architecture).parameters()),
        "training_energies": None if method.learns_from_data_alone else budget,
        # What prepare finds may make draws take many energies each, and a preset gives as many more.
        "training_energies_at_least": budget != config.train.max_energies and "prepare" not in done,
        "training_draws": budget if method.learns_from_data_alone else None,
        "training_seconds": config.train.time_budget,
        "training_method": config.train.method,
        "training_frames": n_frames,
        "training_device": str(device),
        "training_memory": memory + (_resident() if device.type == "cpu" else 0),
    }
    names = (
        *("formula", "smiles", "charge", "stereocentres", "force_field", "force_field_reason", "solvent", "n_atoms"),
        *("n_torsions", "n_rotors", "symmetry_number", "n_stiff", "temperature", "warnings"),
    )
    summary = {**{name: plan[name] for name in names}, **training, "done": done}
    return StageResult("preview", directory.path, False, summary, preview_text(summary))


def _unfitted_target(chemical: ChemicalSystem, config: Config, context: Context) -> Target:
    """A target with the checked energy, and coordinates of the right blocks."""
    from boltzgen.coordinates.atlas import Atlas
    from boltzgen.coordinates.fitting import unfitted_chart
    from boltzgen.coordinates.harmonic import TYPICAL_WIDTHS
    from boltzgen.coordinates.zmatrix import build_zmatrix

    molecule, temperature = chemical.molecule, config.prepare.temperature
    potential = checked_energy(chemical, config.seed, context.reporter).potential
    kT = thermal_energy(temperature)
    zmatrix = build_zmatrix(molecule.atomic_numbers, molecule.bonds, molecule.rigid_bonds, chemical.positions)
    chart = unfitted_chart(
        zmatrix, chemical.positions, lambda x: potential.batch_last(x, PAIR_SOFTENING) / kT, molecule.planar_atoms
    )
    narrow = TYPICAL_WIDTHS["bond"] * np.eye(chart.n_stiff)
    return Target(molecule, potential, Atlas([chart.with_chart(cholesky=narrow)]), temperature)


def _resident() -> int:
    """Bytes that this process, with all that it has imported, took at most."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
