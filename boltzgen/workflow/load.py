"""Opening what earlier stages wrote."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from boltzgen.config import SampleConfig
from boltzgen.energy.potential import PotentialEnergy
from boltzgen.errors import EnvironmentProblem, InputError
from boltzgen.flow.architecture import Architecture
from boltzgen.flow.generator import Generator
from boltzgen.sampling.draw import BoltzmannGenerator
from boltzgen.storage.atomic import open_hdf5
from boltzgen.storage.runs import Provenance, RunDirectory, check_parent, read_provenance
from boltzgen.storage.tree import get_tree
from boltzgen.target import Target
from boltzgen.training.weights import to_tensors

HOT_NATS = 0.2
"""KL divergence, in nats, of the draws that defend against heavy tails from those at the ensemble's temperature."""


def load_generator(run: str | Path) -> BoltzmannGenerator:
    """Open a trained run directory, see :func:`boltzgen.load`."""
    target, flow, hottest = load_flow(RunDirectory(Path(run)))
    return BoltzmannGenerator(target, flow, temperatures=drawing_temperatures(SampleConfig(), target, hottest))


def load_target(directory: RunDirectory) -> Target:
    """The prepared target of a run; needs neither OpenMM nor RDKit."""
    require(directory.system_h5, f"boltzgen prepare INPUT -o {directory.path}")
    read_provenance(directory.system_h5)  # refuses a file of another program or of a newer version
    with open_hdf5(directory.system_h5) as file:
        return Target.from_tree(get_tree(file["target"]))


def load_flow(directory: RunDirectory) -> tuple[Target, Generator, float]:
    """The prepared target, the trained flow and the highest temperature that it knows, checked to belong together."""
    target = load_target(directory)
    require(directory.flow_h5, f"boltzgen train {directory.path}")
    check_parent(read_provenance(directory.flow_h5), directory.system_h5)
    with open_hdf5(directory.flow_h5) as file:
        flow = Generator(Architecture(**get_tree(file["architecture"]))).attach(target)
        flow.load_state_dict(to_tensors(get_tree(file["weights"])))
        hottest = get_tree(file["temperatures"])["highest"]
    return target, flow, hottest


def load_weighted(directory: RunDirectory) -> Target:
    """The target with the energy that the ensemble of the run is weighted for: another one, if it was asked for."""
    target = load_target(directory)
    with open_hdf5(directory.ensemble_h5) as file:
        tree = get_tree(file["potential"]) if "potential" in file else None
    if tree is None:
        return target
    return Target(target.molecule, PotentialEnergy.from_tree(tree), target.coordinates, target.temperature)


def load_drawn(directory: RunDirectory, weighted: Target | None = None) -> tuple[Target, BoltzmannGenerator]:
    """The target, or that which the ensemble is ``weighted`` for, and the density that the samples were drawn from."""
    trained, flow, hottest = load_flow(directory)
    target = weighted or trained
    drawn = SampleConfig.model_validate(read_provenance(directory.sample_files()[0]).config["sample"])
    return target, BoltzmannGenerator(target, flow, temperatures=drawing_temperatures(drawn, target, hottest))


def drawing_temperatures(settings: SampleConfig, target: Target, hottest: float) -> dict[float, float]:
    """Temperatures in K at which samples are drawn, by their shares.

    Unless they are asked for: that of the ensemble, and for a share that at which d harmonic coordinates are
    ``HOT_NATS`` away from it, ln T/T₀ = √(4 HOT_NATS/d): hot enough to be wider, near enough to cost little.

    Raises
    ------
    InputError
        If one is asked for that the flow has not learnt, or several of samples that are redrawn or annealed.
    """
    asked, plain = settings.temperatures, settings.inner == 1 and settings.refine == 0
    temperature, coordinates = target.temperature, target.coordinates
    outside = [t for t in asked if not temperature <= t <= hottest]
    if outside:
        known = f"{temperature:g} to {hottest:g} K" if hottest > temperature else f"{temperature:g} K alone"
        raise InputError(f"--temperature {outside[0]:g}: the flow knows {known}. Ask for these, or train it hotter.")
    if asked and not plain and set(asked) != {temperature}:
        raise InputError(f"--inner and --refine are for draws at {temperature:g} K alone. Leave --temperature out.")
    if asked:
        return dict.fromkeys(asked, 1.0 / len(set(asked)))
    hot = temperature * math.exp(math.sqrt(4.0 * HOT_NATS / (coordinates.n_torsions + coordinates.n_stiff)))
    if plain and settings.hot_share and hot <= hottest:
        return {temperature: 1.0 - settings.hot_share, hot: settings.hot_share}
    return {temperature: 1.0}


def available_cores() -> int:
    """The number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def resolve_device(name: str) -> torch.device:
    """The device of a name; only ``auto`` falls back to the CPU.

    Raises
    ------
    EnvironmentProblem
        If the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = torch.device(name).type
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(kind, False):
        raise EnvironmentProblem(f"there is no {kind} device here. Give --device cpu, or auto to take what there is.")
    if kind == "mps":
        raise EnvironmentProblem("mps has no float64, which final weights need. Give --device cpu.")
    return torch.device(name)


def check_samples(directory: RunDirectory) -> list[Provenance]:
    """The records of the sample files, after checking that they, the flow and the system belong together.

    Raises
    ------
    ConflictError
        If one of them has changed since the next was made from it.
    """
    check_parent(read_provenance(directory.flow_h5), directory.system_h5)
    records = [read_provenance(file) for file in directory.sample_files()]
    for record in records:
        check_parent(record, directory.flow_h5)
    return records


def require(path: Path, command: str) -> None:
    """Raise InputError, naming the command that makes the file, if it is missing."""
    if not path.exists():
        raise InputError(f"{path} does not exist. Run `{command}` first.")
