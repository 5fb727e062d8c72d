"""Trainings, what they achieve on fresh samples, and the file that remembers them.

A folder holds ``SYSTEM.run`` (prepared), ``trained/NAME.run`` (with the flow), ``trained/NAME.npz`` (torsions and log
weights of its samples) and ``results.jsonl``, to which every training and every check appends one line.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reference import ring_torsions

import boltzgen
from boltzgen.analysis.cuts import Angles, basin_cuts, positive_phi_cuts, well_cuts
from boltzgen.analysis.states import find_states
from boltzgen.analysis.torsions import dihedral
from boltzgen.config import Config
from boltzgen.molecule import Molecule
from boltzgen.sampling.draw import BoltzmannGenerator, Samples
from boltzgen.statistics.free_energy import weighted_probabilities
from boltzgen.statistics.weights import ess_without_top, kish_ess, summarize_weights
from boltzgen.storage.atomic import open_hdf5
from boltzgen.storage.runs import RunDirectory
from boltzgen.storage.tree import get_tree
from boltzgen.workflow import Context, train

SAMPLING_SEED = 12345
"""Goes with the seed of the training into that of the samples, which is so another one."""

SLOW_POINTS, REDRAWS = 3_000, 32
"""Of the marginal ESS."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Folder:
    """Names of the files of one table."""

    path: Path

    @classmethod
    def of(cls, run: Path) -> Folder:
        """The folder in which a prepared run lies."""
        return cls(run.parent)

    @property
    def results(self) -> Path:
        return self.path / "results.jsonl"

    def trained(self, name: str) -> Path:
        """The run directory of a training."""
        return self.path / "trained" / f"{name}.run"

    def samples(self, name: str) -> Path:
        return self.path / "trained" / f"{name}.npz"

    def reference(self, system: str) -> Path:
        return self.path / f"{system}.reference.npz"

    def append(self, record: Record) -> None:
        """Remember a line."""
        with self.results.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def records(self, kind: str) -> dict[str, Record]:
        """The last line of a kind, ``training`` or ``check``, for each name."""
        lines = self.results.read_text().splitlines() if self.results.exists() else []
        records = map(json.loads, lines)
        return {record["name"]: record for record in records if record["kind"] == kind}


def budget_of(config: Config) -> str:
    """The budget as text: energies, seconds or the name of a preset."""
    settings = config.train
    energies = [f"{settings.max_energies:.3g}-energies".replace("e+0", "e")] if settings.max_energies else []
    seconds = [f"{settings.time_budget:g}s"] if settings.time_budget else []
    return "-".join(energies + seconds) or settings.preset


def train_and_judge(run: Path, label: str, config: Config, n_samples: int) -> Record:
    """Train anew on a copy of a prepared run, judge the flow, keep its samples, and append the line."""
    folder, system = Folder.of(run), run.stem
    name = f"{system}-{label}-{budget_of(config)}-{config.seed}"
    copy = folder.trained(name)
    copy.mkdir(parents=True, exist_ok=True)
    shutil.copy2(RunDirectory(run).system_h5, copy)
    done = train(str(copy), None, None, config, Context(force=True, resume=False)).summary
    generator = boltzgen.load(copy)
    judgement, samples = judge(generator, n_samples, config.seed)
    angles = angles_of(generator.target.molecule, samples)
    np.savez(folder.samples(name), log_w=samples.log_weight, **{f"torsion {key}": a for key, a in angles.items()})
    with open_hdf5(RunDirectory(copy).flow_h5) as file:
        history = get_tree(file["history"])
    exchanged = done["n_exchange_energies"]
    drawn = done["n_energy_evaluations"] - exchanged
    record = {
        "kind": "training",
        "name": name,
        "system": system,
        "label": label,
        "budget": budget_of(config),
        "settings": config.train.model_dump(mode="json"),
        "seed": config.seed,
        "threads": config.threads,
        "energies": done["n_energy_evaluations"],
        "forces": done["n_force_evaluations"],
        "exchange_energies": exchanged,
        "gradient_samples": drawn + done["replayed"] + done["frames"],
        "counts": {key: value for key, value in done.items() if isinstance(value, int)},
        "training_seconds": done["seconds"],
        "seconds_by_part": {key: float(rows[-1]) for key, rows in history.items() if key.startswith("seconds_")},
        **judgement,
        "populations": populations(generator.target.molecule, angles, samples.log_weight),
        **provenance(),
    }
    folder.append(record)
    return record


def judge(generator: BoltzmannGenerator, n: int, seed: int) -> tuple[Record, Samples]:
    """Figures of ``n`` fresh samples in float64; shares of ESS are of all ``n``, unclipped.

    The gap log Z − ELBO, nats, is that of the samples with an energy; the others are counted.
    """
    started = time.perf_counter()
    samples = generator.sample(n, seed=[SAMPLING_SEED, seed])
    sampled = time.perf_counter()
    redrawn = generator.sample(SLOW_POINTS, inner=REDRAWS, seed=[SAMPLING_SEED, seed, 1])
    log_w = samples.log_weight
    weights = summarize_weights(log_w)
    record = {
        "n_samples": n,
        "n_failed": weights.n_failed,
        "sampling_seconds": sampled - started,
        "ess": weights.ess_fraction,
        "ess_without": {str(k): ess_without_top(log_w, k) / n for k in (1, 10, 100)},
        "khat": weights.khat,
        "gap": weights.log_z - float(log_w[np.isfinite(log_w)].mean()),
        "log_z": weights.log_z,
        "log_z_error": weights.log_z_stderr,
        "marginal_ess": kish_ess(redrawn.log_weight) / SLOW_POINTS,
        "marginal_seconds": time.perf_counter() - sampled,
    }
    return record, samples


def angles_of(molecule: Molecule, samples: Samples) -> dict[str, np.ndarray]:
    """All torsions that are compared, float32 radians ``(n,)``."""
    torsions = molecule.torsions | ring_torsions(molecule)
    return {name: dihedral(samples.positions, atoms).astype(np.float32) for name, atoms in torsions.items()}


def load_samples(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Torsions and log weights of the samples of a training."""
    with np.load(path) as stored:
        angles = {key.removeprefix("torsion "): stored[key] for key in stored.files if key.startswith("torsion ")}
        return angles, stored["log_w"]


def populations(molecule: Molecule, angles: Angles, log_w: np.ndarray) -> dict[str, Record]:
    """Of each state of each torsion: the share among the draws, and the reweighted one with its error."""
    torsions = molecule.torsions | ring_torsions(molecule)
    cuts = basin_cuts(torsions) + well_cuts(torsions, lambda name: find_states(angles[name], log_w))
    found: dict[str, Record] = {}
    for cut in (*cuts, *positive_phi_cuts(torsions)):
        index, n = cut(angles), len(cut.names)
        drawn = np.bincount(index, minlength=n) / len(index)
        weighted = weighted_probabilities(index, n, log_w, np.random.default_rng(0))
        found.setdefault(cut.title, {}).update(
            (name, {"drawn": share, "value": estimate.value, "error": estimate.stderr})
            for name, share, estimate in zip(cut.names, drawn.tolist(), weighted, strict=True)
        )
    return found


def positive_phi(record: Record) -> Mapping[str, Record]:
    """The populations of φ > 0 of a training, by residue."""
    return {title: states["phi>0"] for title, states in record["populations"].items() if "phi>0" in states}


def provenance() -> Record:
    """The machine, the program and the date."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", Path(__file__).parent, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = " and changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return {
        "cpu": cpu_model(),
        "torch": torch.__version__,
        "commit": git("rev-parse", "--short=12", "HEAD") + changed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cpu_model() -> str:
    """The name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
