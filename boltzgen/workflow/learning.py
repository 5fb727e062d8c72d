"""From settings and files to what training learns from: a method, frames, a reaction coordinate."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boltzgen.config import TrainConfig
from boltzgen.coordinates.locate import locate
from boltzgen.errors import InputError
from boltzgen.flow.latents import Slow
from boltzgen.molecule import Molecule
from boltzgen.progress import Reporter
from boltzgen.storage.frames import ForeignFrames, read_frames, trajectory_kind
from boltzgen.target import Target
from boltzgen.training.data import DataSet, LatentFrames
from boltzgen.training.method import DATA, METHODS, Method
from boltzgen.training.reaction import ReactionCoordinate

LEAST_FRAMES = 10
"""Frames of which a tenth can be held out."""

FEW_EFFECTIVE_FRAMES = 100
"""Effective frames below which a warning is due."""


@dataclass(frozen=True)
class Data:
    """Frames to learn from, and what to tell of them: counts, effective number, reasons of those left out."""

    frames: DataSet
    summary: dict[str, Any]


def method_of(settings: TrainConfig) -> Method:
    """The method that the settings ask for, before anything is prepared.

    Raises
    ------
    InputError
        If it needs data and there are none, a file of them is missing or no trajectory, or a range is given for no
        reaction coordinate.
    """
    method = METHODS[settings.method]
    if settings.rc_range and not settings.rc:
        raise InputError("train.rc_range is the range of no reaction coordinate. Give train.rc too, or leave both out.")
    for name in settings.data:
        trajectory_kind(Path(name))
    if method is DATA and not settings.data:
        raise InputError("train.method = data: there are no frames to learn from. Give --data FILE.")
    if settings.data and method is not DATA:
        method = method.mixed_with_data(settings.data_weight)
    return replace(method, spread=settings.rc_weight) if settings.rc else method


def read_data(settings: TrainConfig, molecule: Molecule, temperature: float) -> list[ForeignFrames]:
    """The frames of all files, checked to be of the molecule and, if they have weights, of the temperature in K."""
    return [read_frames(Path(name), molecule, temperature) for name in settings.data]


def load_data(settings: TrainConfig, target: Target, reporter: Reporter) -> Data | None:
    """The frames of all files as latents, those outside the support counted, told of by name and left out.

    Raises
    ------
    InputError
        If too few lie inside.
    """
    if not settings.data:
        return None
    files = read_data(settings, target.molecule, target.temperature)
    for name, file in zip(settings.data, files, strict=True):
        if file.reordered:
            reporter.info(f"{name}: atoms are in another order than in system.pdb, and matched by their names")
    positions = torch.as_tensor(np.concatenate([file.positions for file in files])).permute(1, 2, 0).contiguous()
    located = locate(target.coordinates, positions)
    log_weight = torch.as_tensor(np.concatenate([_normalised(file) for file in files]))[located.inside]
    n, n_inside = len(located.inside), int(located.inside.sum())
    outside = {_describe(target.molecule, *reason): count for reason, count in located.outside.items()}
    told = "; ".join(f"{reason}: {count:,}" for reason, count in list(outside.items())[:3])
    told += f"; and {len(outside) - 3} more" if len(outside) > 3 else ""
    of = ", ".join(settings.data)
    if n_inside < LEAST_FRAMES or not torch.isfinite(log_weight).any():
        raise InputError(
            f"{of}: {n_inside} of {n:,} frames lie in the support of the coordinates"
            f"{f' ({told})' if told else ' with a weight'}. Give at least {LEAST_FRAMES} of the same stereoisomer."
        )
    slow = Slow(located.label, located.torsions)
    weights = torch.softmax(log_weight, dim=0)
    frames = LatentFrames(slow, located.stiff, located.log_det, weights)
    if outside:
        reporter.warn(f"{of}: {n - n_inside:,} of {n:,} frames lie outside the support and are left out ({told})")
    if frames.ess < FEW_EFFECTIVE_FRAMES:
        reporter.warn(f"{of}: the weights leave {frames.ess:.0f} effective frames, too few to learn much from")
    reporter.info(f"{of}: {n_inside:,} frames, {frames.ess:,.0f} effective, taken to be of {target.temperature:g} K")
    summary = {"frames": n, "frames_inside": n_inside, "ess": frames.ess, "outside": outside}
    return Data(DataSet.of(frames), summary)


def _normalised(file: ForeignFrames) -> np.ndarray:
    """Log weights whose sum is the number of frames, so that each file counts by its length."""
    highest = file.log_weight.max()
    if not np.isfinite(highest):
        return np.full_like(file.log_weight, -np.inf)
    weights = np.exp(file.log_weight - highest)
    return file.log_weight - highest - np.log(weights.mean())


def reaction_coordinate(settings: TrainConfig, molecule: Molecule) -> ReactionCoordinate | None:
    """The coordinate ``train.rc``: a torsion by its name or four atoms ``0-4-6-8``, a distance by two, ``1-12``.

    Raises
    ------
    InputError
        If there is no such torsion or atom, or a distance has no range.
    """
    text, limits = settings.rc, settings.rc_range
    if text is None:
        return None
    if limits and (len(limits) != 2 or not limits[0] < limits[1]):
        raise InputError(
            "train.rc_range: must be two numbers, the lower first: degrees of a torsion, nm of a distance."
        )
    atoms: tuple[int, ...] | None = molecule.torsions.get(text)
    if atoms is None and re.fullmatch(r"\d{1,6}-\d{1,6}(-\d{1,6}-\d{1,6})?", text, re.ASCII):
        atoms = tuple(int(number) for number in text.split("-"))
        if len(set(atoms)) < len(atoms) or max(atoms) >= molecule.n_atoms:
            raise InputError(f"train.rc = {text}: must be different atoms from 0 to {molecule.n_atoms - 1}.")
    if atoms is None:
        near = difflib.get_close_matches(text, molecule.torsions, n=1, cutoff=0.0)
        advice = f"Did you mean {near[0]}?" if near else "Give four atoms of a torsion, such as 0-1-2-3."
        raise InputError(f"train.rc = {text}: no torsion has this name. {advice}")
    if len(atoms) == 2:
        if not limits or limits[0] < 0:
            raise InputError(f"train.rc = {text}: a distance needs train.rc_range in nm, such as [0.3, 0.8].")
        return ReactionCoordinate(atoms, *limits)
    low, high = limits or (-180.0, 180.0)
    if high - low > 360.0:
        raise InputError("train.rc_range: a torsion has 360 degrees at most.")
    return ReactionCoordinate(atoms, math.radians(low), math.radians(high))


def _describe(molecule: Molecule, kind: str, atoms: tuple[int, ...]) -> str:
    """``torsion HA-CA-N-C of ALA2``; what is not finite has no atoms."""
    if not atoms:
        return "positions that are not finite"
    names = "-".join(molecule.atom_names[atom] for atom in atoms)
    return f"{kind} {names} of {molecule.residue_label(atoms[0])}"
